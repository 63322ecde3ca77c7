"""Make the probe of an exported model: ask it and two broken copies of it, and keep the prompts that tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlm_analysis.edits.view import misnumbered
from vlm_analysis.errors import PromptError, short
from vlm_analysis.export.probe.value import (
    MOST,
    PROBE_FILE,
    PROBE_FOLDER,
    VARIANTS,
    FirstToken,
    Probe,
    ProbePrompt,
    probe_text,
)
from vlm_analysis.models.asking import Template, render
from vlm_analysis.models.decoding import decode, greedy_ids
from vlm_analysis.models.inputs import VISION, encode, takes_logits_to_keep
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import is_out_of_memory
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.images import open_image
from vlm_analysis.prompts.prompts import Prompt

MAX_NEW_TOKENS = 24
CANDIDATES = 24
"""Prompts that are tried at most; each is answered three times."""
ENOUGH = 2
"""Prompts that tell each broken model, after which no more are tried than a probe holds."""
_NEAR_BOUND = 0.9  # of the bound on vision tokens: a server has no such bound, and would see a larger picture


def make_probe(
    loaded: LoadedModel, view: Any, candidates: Sequence[Prompt], on_progress: Progress = no_progress
) -> tuple[Probe, tuple[Prompt, ...]] | None:
    """Return the probe of an edited model and the prompts in it; None where no prompt can be asked through a server.

    Of at most `CANDIDATES` prompts those are kept that tell most: first where both broken models answer otherwise, then one of them.

    Args:
        loaded: the dense model.
        view: the edited model.
        candidates: prompts in the order in which they are tried.
        on_progress: called before each prompt.
    """
    if loaded.template is None:
        return None
    broken, not_tried = _broken(view)
    asked: list[tuple[ProbePrompt, Prompt]] = []
    tried = list(candidates)[:CANDIDATES]
    for number, prompt in enumerate(tried):
        on_progress(number, len(tried), "choosing prompts for the probe")
        answered = _answered(loaded, view, prompt, broken, not_tried)
        if answered is not None:
            asked.append((answered, prompt))
        if len(asked) >= MOST and all(
            _n_tell(asked, variant) >= ENOUGH for variant in VARIANTS if variant not in not_tried
        ):
            break
    if not asked:
        return None
    best = sorted(asked, key=lambda pair: -sum(pair[0].tells(variant) for variant in VARIANTS))[:MOST]
    kept = tuple(
        replace(one, otherwise={k: v for k, v in one.otherwise.items() if k not in not_tried}) for one, _ in best
    )
    return Probe(kept, MAX_NEW_TOKENS, _opening(loaded, loaded.template), not_tried), tuple(
        prompt for _, prompt in best
    )


def write_probe(probe: Probe, prompts: Sequence[Prompt], folder: Path) -> None:
    """Write `probe/` into an exported folder: the probe's file and its pictures."""
    place = folder / PROBE_FOLDER
    place.mkdir()
    for one, prompt in zip(probe.prompts, prompts, strict=True):
        for name, image in zip(one.images, prompt.images, strict=True):
            open_image(image).save(place / name, format="PNG")
    (place / PROBE_FILE).write_text(probe_text(probe), "utf-8")


Answering = Callable[[LoadedModel, Prompt], list[int]]


def _broken(view: Any) -> tuple[dict[str, Answering], dict[str, str]]:
    """Return the broken models by name, as functions that answer a prompt, and why others cannot be made."""
    broken: dict[str, Answering] = {"deepstack": partial(_without_deepstack, view)}
    not_tried: dict[str, str] = {}
    try:
        broken["layers"] = partial(_plainly, misnumbered(view))
    except ValueError as error:
        not_tried["layers"] = f"a model with wrong numbers could not be made ({short(error, 100)})"
    return broken, not_tried


def _answered(
    loaded: LoadedModel, view: Any, prompt: Prompt, broken: dict[str, Answering], not_tried: dict[str, str]
) -> ProbePrompt | None:
    """Return a prompt with the answers of the model and of the broken ones; None where the model does not take it as a server would."""
    try:
        encoded = encode(loaded, prompt)
    except PromptError:
        return None
    n_vision = int((encoded.kinds == VISION).sum()) / encoded.n_images
    if loaded.max_vision_tokens is not None and n_vision > _NEAR_BOUND * loaded.max_vision_tokens:
        return None
    ids = greedy_ids(loaded, view, prompt, MAX_NEW_TOKENS)
    otherwise = {}
    for variant, answering in broken.items():
        if variant in not_tried:
            continue
        try:
            otherwise[variant] = decode(loaded, answering(loaded, prompt))
        except _NoFeaturesError:
            not_tried[variant] = "the model has no such features"
        except (RuntimeError, ValueError, IndexError, KeyError) as error:  # a broken model may fail anywhere
            if is_out_of_memory(error):
                raise
            not_tried[variant] = f"a model broken like that does not run ({short(error, 100)})"
    names = tuple(f"{name}.png" for name in prompt.image_hashes)
    answer = decode(loaded, ids)
    return ProbePrompt(
        str(prompt.id), prompt.question, names, answer, _first(loaded, view, encoded.tensors, ids), otherwise
    )


def _plainly(model: Any, loaded: LoadedModel, prompt: Prompt) -> list[int]:
    return greedy_ids(loaded, model, prompt, MAX_NEW_TOKENS)


class _NoFeaturesError(ValueError):
    """The decoder is given no DeepStack features."""


def _without_deepstack(view: Any, loaded: LoadedModel, prompt: Prompt) -> list[int]:
    """Return the answer without the DeepStack features that the decoder is given."""
    with _features_lost(view) as seen:
        ids = greedy_ids(loaded, view, prompt, MAX_NEW_TOKENS)
    if not seen:
        raise _NoFeaturesError
    return ids


@contextmanager
def _features_lost(view: Any) -> Iterator[list[str]]:
    """Take DeepStack features out of what the decoder is called with; yields the names under which it got some."""
    seen: list[str] = []

    def take_out(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        names = [name for name, value in kwargs.items() if "deepstack" in name and value is not None]
        seen.extend(names)
        return args, kwargs | dict.fromkeys(names)

    hook = view.get_decoder().register_forward_pre_hook(take_out, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@torch.inference_mode()
def _first(loaded: LoadedModel, view: Any, tensors: dict[str, torch.Tensor], ids: Sequence[int]) -> FirstToken | None:
    """Return the first token of an answer with its log-probability, from one pass over the prompt."""
    keep = {"logits_to_keep": 1} if takes_logits_to_keep(view) else {}
    logits = view(**tensors, use_cache=False, **keep).logits[0, -1]
    logprob = float(logits.float().log_softmax(dim=-1)[ids[0]]) if ids else float("nan")
    if not logprob > -float("inf"):
        return None
    return FirstToken(loaded.processor.tokenizer.decode([ids[0]]), min(logprob, 0.0))


def _opening(loaded: LoadedModel, template: Template) -> str:
    """Return what the chat template writes to open an answer."""
    turns = [("user", ("?",))]
    closed, opened = (render(loaded.processor, template, turns, open_answer=one) for one in (False, True))
    return opened.removeprefix(closed) if opened.startswith(closed) else ""


def _n_tell(asked: Sequence[tuple[ProbePrompt, Prompt]], variant: str) -> int:
    return sum(one.tells(variant) for one, _ in asked)
