"""The table of strategies; each chooses the layers to drop from scores, spans or neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.strategies.choice import Choice, StrategyInputs, runs_of
from vlm_analysis.selection.strategies.spans import angular_block, interlace
from vlm_analysis.words import counted


def first_k(inputs: StrategyInputs) -> Choice:
    allowed = set(inputs.candidates)
    return Choice([layer for layer in _scores(inputs).order if layer in allowed][: inputs.budget])


def contiguous_block(inputs: StrategyInputs) -> Choice:
    """Choose the run of `budget` neighbouring layers whose summed wish to be dropped is largest; ties to the lower start."""
    wish = _scores(inputs).wish
    sums = {start: wish[start : start + inputs.budget].sum() for start in runs_of(inputs)}
    finite = {start: total for start, total in sums.items() if math.isfinite(total)}
    return _block(inputs, max(finite, key=lambda start: (finite[start], -start), default=None))


def minimum_gap(inputs: StrategyInputs) -> Choice:
    """Choose in drop order, skipping layers within the gap of a chosen one and those after which the rest would not fit."""
    allowed = [layer for layer in _scores(inputs).order if layer in set(inputs.candidates)]
    fits = len(_apart(allowed, inputs.gap))
    if fits < inputs.budget:
        raise MaskError(
            f"Cannot drop {counted(inputs.budget, 'layer')} with {inputs.gap} kept between any two: expected a budget of at most {fits}. "
            "Lower the budget or the gap."
        )
    selection: list[int] = []
    for layer in allowed:
        free = [other for other in allowed if all(abs(other - one) > inputs.gap for one in (*selection, layer))]
        near = any(abs(layer - one) <= inputs.gap for one in selection)
        if (
            len(selection) < inputs.budget
            and not near
            and len(selection) + 1 + len(_apart(free, inputs.gap)) >= inputs.budget
        ):
            selection.append(layer)
    return Choice(selection, {"gap": inputs.gap})


def middle_block(inputs: StrategyInputs) -> Choice:
    """Choose the run of `budget` neighbouring layers whose middle is nearest the middle of all layers; ties to the lower."""
    off = {start: abs(2 * start + inputs.budget - inputs.n_layers) for start in runs_of(inputs)}
    return _block(inputs, min(off, key=lambda start: (off[start], start), default=None))


def last_n(inputs: StrategyInputs) -> Choice:
    return Choice(inputs.candidates[len(inputs.candidates) - inputs.budget :])


def evenly_spaced(inputs: StrategyInputs) -> Choice:
    """Choose the layers in the middle of `budget` equal parts of those that may go."""
    number = len(inputs.candidates)
    return Choice([inputs.candidates[(2 * part + 1) * number // (2 * inputs.budget)] for part in range(inputs.budget)])


def random_draw(inputs: StrategyInputs) -> Choice:
    indices = np.random.default_rng(inputs.seed).choice(len(inputs.candidates), inputs.budget, replace=False)
    return Choice([inputs.candidates[index] for index in indices])


def _scores(inputs: StrategyInputs) -> LayerScores:
    assert inputs.scores is not None  # make_mask refuses a strategy without what it needs
    return inputs.scores


def _block(inputs: StrategyInputs, start: int | None) -> Choice:
    if start is None:
        raise MaskError(
            f"No contiguous block of {counted(inputs.budget, 'layer')} can be dropped: the layers that may go are {inputs.candidates}. "
            "Drop fewer."
        )
    return Choice(list(range(start, start + inputs.budget)))


def _apart(layers: Sequence[int], gap: int) -> list[int]:
    """Return as many of the layers as can lie more than `gap` apart."""
    selection: list[int] = []
    for layer in sorted(layers):
        if not selection or layer - selection[-1] > gap:
            selection.append(layer)
    return selection


@dataclass(frozen=True)
class Strategy:
    """A row of the table.

    Attributes:
        needs: layer scores; a recording, whose spans it reads; nothing; or a model to measure again after each step
            (see `greedy`, `beam` and `evolve`).
        choose: returns at most `budget` of the candidates; None for strategies that `make_mask` cannot run.
        takes: the arguments of `make_mask` that change its choice, beside the budget and the locks.
        ordered: whether the layers are chosen in drop order.
    """

    title: str
    source: str
    needs: Literal["scores", "recording", "nothing", "model"]
    choose: Callable[[StrategyInputs], Choice] | None
    takes: tuple[str, ...] = ()
    ordered: bool = False


STRATEGIES: dict[str, Strategy] = {
    "first-k": Strategy(
        "First k of the drop order",
        "all at once by one order of the layers, as in arXiv:2603.20275",
        "scores",
        first_k,
        ordered=True,
    ),
    "contiguous-block": Strategy(
        "Contiguous block",
        "the best run of neighbours by summed score (our choice of sum)",
        "scores",
        contiguous_block,
    ),
    "minimum-gap": Strategy(
        "No two adjacent",
        "first k with kept layers between any two (our choice)",
        "scores",
        minimum_gap,
        ("gap",),
        True,
    ),
    "angular-block": Strategy(
        "Angular block",
        "the run whose ends are nearest in angle on the last token, arXiv:2403.17887",
        "recording",
        angular_block,
        ("domain", "token_group"),
    ),
    "interlace": Strategy(
        "Interlace triplets",
        "one of each most redundant triplet, arXiv:2511.19676; pairs and single layers once triplets run out, and all prompt "
        "tokens, are our choices",
        "recording",
        interlace,
        ("domain", "token_group"),
        True,
    ),
    "greedy": Strategy(
        "Greedy on measured damage",
        "drop the least harmful layer, measure again: SLEB, arXiv:2402.09025",
        "model",
        None,
    ),
    "beam": Strategy(
        "Beam search on measured damage",
        "greedy that keeps several masks at each step (our choice)",
        "model",
        None,
    ),
    "evolutionary": Strategy(
        "Evolutionary search on measured damage",
        "masks that swap and cross layers; the best survive (our choice)",
        "model",
        None,
    ),
    "last-n": Strategy("Last layers", "baseline: the last that may go", "nothing", last_n),
    "evenly-spaced": Strategy("Evenly spaced", "baseline: no measurement at all", "nothing", evenly_spaced),
    "middle-block": Strategy("Middle block", "baseline: the run of neighbours in the middle", "nothing", middle_block),
    "random-draw": Strategy("Random draw", "baseline: a seeded draw", "nothing", random_draw, ("seed",)),
}


def provenance_of(strategy: str, inputs: StrategyInputs, choice: Choice) -> dict[str, Any]:
    """Return the strategy's arguments and the details of its choice, as JSON values."""
    row = STRATEGIES[strategy]
    details = choice.details | ({"drop_order": [int(layer) for layer in choice.layers]} if row.ordered else {})
    if row.needs == "scores" and inputs.scores is not None:
        return {**details, "criterion": inputs.scores.criterion, **inputs.scores.options}
    if row.needs == "recording" and inputs.spans is not None:
        spans = inputs.spans
        return {**details, "domain": spans.domain, "recording_prompts": spans.recording.prompts}
    return details
