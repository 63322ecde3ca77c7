"""Strategies that choose spans of layers: the angular block and Interlace's triplets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.selection.criteria.spans import ANGULAR_GROUP, SIMILARITY_GROUP, Spans
from vlm_analysis.selection.strategies.choice import Choice, StrategyInputs, runs_of
from vlm_analysis.words import counted


def angular_block(inputs: StrategyInputs) -> Choice:
    """Choose the run l..l+n−1 whose d(l, n) = arccos(cos(x_l, x_{l+n})) / π is smallest; ties to the lower l."""
    if not inputs.budget:
        return Choice([])
    spans = _spans(inputs)
    distances = spans.angular(inputs.budget)
    measured = {start: float(distances[start]) for start in runs_of(inputs) if not np.isnan(distances[start])}
    if not measured:
        raise MaskError(
            f"No contiguous block of {counted(inputs.budget, 'layer')} can be dropped: expected one with a measured distance among the "
            f"layers that may go, {inputs.candidates}. Drop fewer, or record prompts that reach these layers."
        )
    start = min(measured, key=lambda first: (measured[first], first))
    details = {"token_group": spans.token_group or ANGULAR_GROUP, "angular_distance": measured[start]}
    return Choice(list(range(start, start + inputs.budget)), details)


def interlace(inputs: StrategyInputs) -> Choice:
    """Choose one layer of each of the most redundant triplets, largest S_3 first, no two overlapping.

    S_n(i) is the mean cosine of x_i and x_{i+n}. Of a triplet's first two layers the one with the larger S_1 goes; the other
    would be tuned and the third frozen, which the provenance records. Where only one of the two may go, that one goes (our
    choice). Once triplets run out, pairs by S_2 in the same way, then single layers by S_1, those outside all triplets and
    pairs first (our choices). Ties go to the lower layer.
    """
    spans = _spans(inputs)
    starts = {size: spans.similarity(size) for size in (3, 2) if size <= inputs.n_layers}
    dropped, groups = triplets_first(inputs.candidates, inputs.budget, spans.similarity(1), starts)
    return Choice(dropped, {"token_group": spans.token_group or SIMILARITY_GROUP, **_partners(groups, dropped)})


def triplets_first(
    candidates: Sequence[int], budget: int, single: np.ndarray, starts: Mapping[int, np.ndarray]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return `budget` layers in drop order, and the groups of neighbours of which each of the first is one.

    Groups do not overlap, those of a larger size come first, then those of a larger value. Of a group's first two layers that may go
    the one with the larger `single` goes. Where groups run out, single layers go, those outside of all groups first. Ties go to the
    lower layer.

    Args:
        candidates: the layers that may go.
        budget: how many go; fewer are returned where fewer have a value.
        single: (n_layers,) the value of each layer; NaN where it must stay.
        starts: by size, the value of each group by its first layer; NaN where there is none.
    """
    open_layers = {layer for layer in candidates if not np.isnan(single[layer])}
    dropped: list[int] = []
    groups: list[tuple[int, ...]] = []
    for size, values in starts.items():
        for start in (int(one) for one in np.argsort(-values, kind="stable") if not np.isnan(values[one])):
            first_two = [layer for layer in (start, start + 1) if layer in open_layers]
            grouped = {layer for group in groups for layer in group}
            if len(dropped) == budget or not first_two or grouped & set(range(start, start + size)):
                continue
            groups.append(tuple(range(start, start + size)))
            dropped.append(max(first_two, key=lambda layer: (single[layer], -layer)))
    grouped = {layer for group in groups for layer in group}
    rest = sorted(open_layers - set(dropped), key=lambda layer: (layer in grouped, -single[layer], layer))
    return dropped + rest[: budget - len(dropped)], groups


def _partners(groups: Iterable[tuple[int, ...]], dropped: list[int]) -> dict[str, list[int]]:
    """Return which kept layers of the groups would be tuned (the first two's other) and which frozen (a triplet's third)."""
    dropped_set = set(dropped)
    return {
        "tuned": sorted(layer for group in groups for layer in group[:2] if layer not in dropped_set),
        "frozen": sorted(layer for group in groups for layer in group[2:] if layer not in dropped_set),
    }


def _spans(inputs: StrategyInputs) -> Spans:
    assert inputs.spans is not None  # make_mask refuses a strategy without what it needs
    return inputs.spans
