"""Prompts that a model cannot take: what its forward raises becomes a sentence that names the prompt.

Which prompts these are is known only once they are tried. The error is a PromptError, by which longer work sets the prompt aside and
goes on; what is no prompt's fault is raised as it is (a lack of memory) or as a ModelError (a broken device).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from vlm_analysis.errors import ModelError, PromptError, StrataError, short
from vlm_analysis.models.memory import is_out_of_memory
from vlm_analysis.words import joined

OF_THE_MODEL = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)  # what a model's forward may raise
MOST_NAMED = 3
_BROKEN_DEVICE: tuple[type[Exception], ...] = (torch.AcceleratorError,) if hasattr(torch, "AcceleratorError") else ()


@contextmanager
def naming(prompts: Sequence[str], model: str) -> Iterator[None]:
    """Name the prompts (their ids) in what a forward pass of the model (its name) raises inside.

    Raises:
        PromptError: the pass failed.
        ModelError: the device failed, and with it all that comes after.
    """
    try:
        yield
    except StrataError:
        raise
    except _BROKEN_DEVICE as error:
        raise ModelError(
            f"The device failed while {model} ran {_named(prompts)}: {short(error)}. Restart Strata and load the model again."
        ) from error
    except OF_THE_MODEL as error:
        if is_out_of_memory(error):
            raise
        raise PromptError(
            f"{_named(prompts)} cannot be run by {model}: expected a forward pass, got {type(error).__name__}: "
            f"{short(error).rstrip('.')}. Take it out, or change its images or its texts."
        ) from error


def none_left(model: str, reasons: Mapping[str, str]) -> PromptError:
    """Return the error for work whose prompts are all set aside; it says the first reasons."""
    first = " ".join(list(reasons.values())[:MOST_NAMED])
    if len(reasons) == 1:
        return PromptError(first)
    return PromptError(
        f"None of the {len(reasons)} prompts can be used with {model}: expected one at least, got: {first}"
    )


def _named(prompts: Sequence[Any]) -> str:
    names = [short(repr(name), 60) for name in prompts[:MOST_NAMED]]
    more = [f"{len(prompts) - MOST_NAMED} more"] if len(prompts) > MOST_NAMED else []
    return f"Prompt{'s' if len(prompts) > 1 else ''} {joined([*names, *more])}"
