"""The settings with which a window of layers is replaced, and which windows can be: values, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import EditError, short
from vlm_analysis.model_info import Locks
from vlm_analysis.recovery.schedules import Schedule, Setting, with_settings


@dataclass(frozen=True, kw_only=True)
class Replacing(Schedule):
    """How the layer is trained that stands for a window; rates, decay, norm and one epoch are those of LLM-Streamline's code.

    Attributes:
        answer_epochs: how often each prompt is seen afterwards, while the layer learns the answers; 0 leaves that out.
    """

    learning_rate: float = 2e-4
    last_rate: float = 5e-5
    weight_decay: float = 1e-3
    warmup: float = 0.0
    most_norm: float = 5.0
    epochs: int = 1
    most_steps: int | None = None
    answer_epochs: int = 0

    failed: ClassVar[str] = "The window cannot be replaced"
    checked: ClassVar[tuple[Setting, ...]] = (
        *Schedule.checked,
        (("answer_epochs",), "a whole number from 0 on", lambda value: is_whole(value) and value >= 0),
    )


def replacing_of(options: Mapping[str, Any]) -> Replacing:
    """Return the settings with options in place of the defaults.

    Raises:
        EditError: there is no such setting, or a value that is none.
    """
    return with_settings(Replacing(), options, "replacement")


def windows_of(locks: Locks, n: int) -> list[tuple[int, ...]]:
    """Return every window of n + 1 consecutive layers none of which has to stay, the first first.

    >>> windows_of(Locks(6, {0: "first", 5: "last"}), 2)
    [(1, 2, 3), (2, 3, 4)]

    Raises:
        EditError: n is no whole number from 1 on, or there is no such window.
    """
    if not is_whole(n) or n < 1:
        raise EditError(
            f"No window can be replaced: expected 1 layer or more to go, got {short(repr(n), 80)}. Change it."
        )
    free = set(locks.free)
    windows = [tuple(range(first, first + n + 1)) for first in range(locks.n_layers - n)]
    found = [window for window in windows if free.issuperset(window)]
    if not found:
        raise EditError(
            f"No window can be replaced: expected {n + 1} layers in a row that may go, got fewer among {locks.n_layers}. Take fewer."
        )
    return found
