"""The strategies as one table: how scores, spans or nothing become the layers to drop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.strategies.spans import angular_block, interlace
from vlm_analysis.selection.strategies.wanted import Chosen, Wanted, runs_of


def first_k(wanted: Wanted) -> Chosen:
    allowed = set(wanted.candidates)
    return Chosen([layer for layer in _scores(wanted).order if layer in allowed][: wanted.budget])


def contiguous_block(wanted: Wanted) -> Chosen:
    """Choose the run of `budget` neighbouring layers whose summed wish to be dropped is largest; ties to the lower start."""
    wish = _scores(wanted).wish
    sums = {start: wish[start : start + wanted.budget].sum() for start in runs_of(wanted)}
    finite = {start: total for start, total in sums.items() if math.isfinite(total)}
    return _block(wanted, max(finite, key=lambda start: (finite[start], -start), default=None))


def minimum_gap(wanted: Wanted) -> Chosen:
    """Choose in drop order, leaving out layers nearer than the gap to a chosen one, or after which the rest would not fit."""
    allowed = [layer for layer in _scores(wanted).order if layer in set(wanted.candidates)]
    fits = len(_apart(allowed, wanted.gap))
    if fits < wanted.budget:
        raise MaskError(
            f"Cannot drop {wanted.budget} layers with {wanted.gap} kept between any two: expected a budget of at most {fits}. "
            "Lower the budget or the gap."
        )
    chosen: list[int] = []
    for layer in allowed:
        free = [other for other in allowed if all(abs(other - one) > wanted.gap for one in (*chosen, layer))]
        near = any(abs(layer - one) <= wanted.gap for one in chosen)
        if (
            len(chosen) < wanted.budget
            and not near
            and len(chosen) + 1 + len(_apart(free, wanted.gap)) >= wanted.budget
        ):
            chosen.append(layer)
    return Chosen(chosen, {"gap": wanted.gap})


def middle_block(wanted: Wanted) -> Chosen:
    """Choose the run of `budget` neighbouring layers whose middle is nearest the middle of all layers; ties to the lower."""
    off = {start: abs(2 * start + wanted.budget - wanted.n_layers) for start in runs_of(wanted)}
    return _block(wanted, min(off, key=lambda start: (off[start], start), default=None))


def last_n(wanted: Wanted) -> Chosen:
    return Chosen(wanted.candidates[len(wanted.candidates) - wanted.budget :])


def evenly_spaced(wanted: Wanted) -> Chosen:
    """Choose the layers in the middle of `budget` equal parts of those that may go."""
    number = len(wanted.candidates)
    return Chosen([wanted.candidates[(2 * part + 1) * number // (2 * wanted.budget)] for part in range(wanted.budget)])


def random_draw(wanted: Wanted) -> Chosen:
    drawn = np.random.default_rng(wanted.seed).choice(len(wanted.candidates), wanted.budget, replace=False)
    return Chosen([wanted.candidates[place] for place in drawn])


def _scores(wanted: Wanted) -> LayerScores:
    assert wanted.scores is not None  # make_mask refuses a strategy without what it needs
    return wanted.scores


def _block(wanted: Wanted, start: int | None) -> Chosen:
    if start is None:
        raise MaskError(
            f"No contiguous block of {wanted.budget} layers can be dropped: the layers that may go are {wanted.candidates}. "
            "Drop fewer."
        )
    return Chosen(list(range(start, start + wanted.budget)))


def _apart(layers: Sequence[int], gap: int) -> list[int]:
    """Return as many of the layers as can lie more than `gap` apart."""
    chosen: list[int] = []
    for layer in sorted(layers):
        if not chosen or layer - chosen[-1] > gap:
            chosen.append(layer)
    return chosen


@dataclass(frozen=True)
class Strategy:
    """A row of the table: a way to the layers to drop.

    Attributes:
        needs: layer scores; a recording, whose spans it reads; nothing; or a model to measure again after each step
            (see `greedy`, `beam` and `evolve`).
        choose: returns at most `budget` of the candidates; None where `make_mask` cannot do it.
        takes: the arguments of `make_mask` that change what it chooses, beside the budget and what stays.
        ordered: whether it chooses the layers in the order in which they go.
    """

    title: str
    source: str
    needs: Literal["scores", "recording", "nothing", "model"]
    choose: Callable[[Wanted], Chosen] | None
    takes: tuple[str, ...] = ()
    ordered: bool = False


STRATEGIES: dict[str, Strategy] = {
    "first-k": Strategy(
        "First k of the drop order", "one-shot ranking, as in arXiv:2603.20275", "scores", first_k, ordered=True
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
        "greedy that keeps several masks in the running (our choice)",
        "model",
        None,
    ),
    "evolutionary": Strategy(
        "Evolutionary search on measured damage",
        "masks that swap layers and cross, the best staying (our choice)",
        "model",
        None,
    ),
    "last-n": Strategy("Last layers", "baseline: the last that may go", "nothing", last_n),
    "evenly-spaced": Strategy("Evenly spaced", "baseline: no measurement at all", "nothing", evenly_spaced),
    "middle-block": Strategy("Middle block", "baseline: the run of neighbours in the middle", "nothing", middle_block),
    "random-draw": Strategy("Random draw", "baseline: a seeded draw", "nothing", random_draw, ("seed",)),
}


def provenance_of(strategy: str, wanted: Wanted, chosen: Chosen) -> dict[str, Any]:
    """Return what the strategy was asked and what it tells about its choice, in values that JSON can hold."""
    row = STRATEGIES[strategy]
    told = chosen.told | ({"drop_order": [int(layer) for layer in chosen.layers]} if row.ordered else {})
    if row.needs == "scores" and wanted.scores is not None:
        return {**told, "criterion": wanted.scores.criterion, **wanted.scores.options}
    if row.needs == "recording" and wanted.spans is not None:
        spans = wanted.spans
        return {**told, "domain": spans.domain, "recording_prompts": spans.recording.prompts}
    return told
