"""Choose which MLP neurons and attention groups go: those of least value for their parameters, under one budget (µCRASP,
arXiv:2605.25842)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import SMALL, Narrow
from vlm_analysis.errors import EditError, short
from vlm_analysis.selection.width.options import WidthOptions, is_number, options_of, pivot_weight, values_of
from vlm_analysis.selection.width.scores import KV_GROUPS, NEURONS, TAYLOR, UNITS, WidthScores
from vlm_analysis.words import layers as named

UNIFORM, GLOBAL = MODES = ("uniform", "global")


def make_narrow(scores: WidthScores, share: float, mode: str = GLOBAL, *, form: str = SMALL, **options: Any) -> Edit:
    """Return the Edit that leaves out the units of least value for their parameters, up to a share of the decoder layers' parameters.

    The paper fills a budget greedily by value over cost; here the units of least value over cost go first, which is the same order. One
    that would go beyond the budget is passed over for a smaller one, so that what is missing to the budget is less than a unit.

    Args:
        scores: of `score_width`.
        share: of the parameters of all decoder layers, at most so many go; between 0 and 1.
        mode: "global": each layer loses what it can spare; no stock class loads such a checkpoint. "uniform": every layer keeps the same
            number of neurons and of groups, as stock classes need it; of all pairs of numbers that come within a unit a layer of the
            budget, the one that loses least value (our choice).
        form: of the change (see `Narrow`).
        options: of `WidthOptions`: `by`, `pivots`, `g_base`, `rho`, `alpha`, `beta`, `omega`, `least`, `units`.

    Raises:
        EditError: an option is out of range, the budget cannot be met, or in mode "uniform" a layer cannot be narrowed.
    """
    chosen = check_choice(share, mode, form=form, **options)
    budget = math.floor(share * sum(scores.model.layer_parameters))
    pick = _uniform if mode == UNIFORM else _global
    gone = pick(scores, values_of(scores, share, chosen), budget, chosen)
    kept = {unit: _kept(getattr(scores, unit), gone[unit]) for unit in UNITS}
    told = {"share": float(share), "mode": mode, **chosen.to_json(), "g": pivot_weight(scores, share, chosen)}
    return Edit(
        scores.model.n_layers,
        (Narrow(kept[NEURONS], kept[KV_GROUPS], form=form),),
        name=f"{share:.0%} narrower, {mode}{_beside(chosen)}",
        model=scores.model,
        provenance={"width": {**told, **scores.about()}},
    )


def check_choice(share: float, mode: str, *, form: str = SMALL, **options: Any) -> WidthOptions:
    """Return the options of `make_narrow` with these arguments, which it takes as far as they can be told without scores.

    Raises:
        EditError: one of them is none.
    """
    if not isinstance(mode, str) or mode not in MODES:
        raise EditError(
            f"Unknown mode of width: expected one of {', '.join(MODES)}, got {short(repr(mode), 80)}. Name one of them."
        )
    if not is_number(share, 0, 1) or not 0 < share < 1:
        raise EditError(
            f"The width cannot be cut: expected a share of the parameters between 0 and 1, got {short(repr(share), 80)}. Change it."
        )
    Narrow(form=form)
    return options_of(options)


Gone = dict[str, dict[int, np.ndarray]]
"""By unit and layer, the numbers of those that go."""


def _kept(parts: tuple[np.ndarray, ...], gone: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
    kept = {}
    for layer, numbers in gone.items():
        stays = np.ones(parts[layer].shape[1], bool)
        stays[numbers] = False
        kept[layer] = np.flatnonzero(stays).tolist()
    return kept


def _least(n_units: int, options: WidthOptions) -> int:
    """Return how many of a layer's units stay at least."""
    return max(1, math.ceil(options.least * n_units))


def _global(
    scores: WidthScores, values: Mapping[str, tuple[np.ndarray, ...]], budget: int, options: WidthOptions
) -> Gone:
    """Return the units that go where each layer loses what it can spare."""
    parts = [
        (unit, layer, one, scores.costs(unit)[layer])
        for unit in options.units
        for layer, one in enumerate(values[unit])
        if len(one)
    ]
    if not parts:
        raise _too_little(scores, budget, 0)
    part_of = np.concatenate([np.full(len(one), at) for at, (_, _, one, _) in enumerate(parts)])
    number = np.concatenate([np.arange(len(one)) for _, _, one, _ in parts])
    cost = np.array([part[3] for part in parts])[part_of]
    order = np.argsort(np.concatenate([one / most for _, _, one, most in parts]), kind="stable")
    may_go = np.array([len(one) - _least(len(one), options) for _, _, one, _ in parts])
    order = order[_places(part_of[order], len(parts)) < may_go[part_of[order]]]
    went = _within(cost[order], budget)
    removed = int(cost[order][went].sum())
    if len(order) == int(went.sum()) and budget - removed >= int(cost.min()):
        raise _too_little(scores, budget, removed)
    found: Gone = {unit: {} for unit in UNITS}
    chosen = order[went]
    for at, (unit, layer, _, _) in enumerate(parts):
        if len(numbers := number[chosen[part_of[chosen] == at]]):
            found[unit][layer] = np.sort(numbers)
    return found


def _places(parts: np.ndarray, n_parts: int) -> np.ndarray:
    """Return the place of each entry among those of its part, in the order given."""
    by_part = np.argsort(parts, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(parts, minlength=n_parts))[:-1]])
    places = np.empty(len(parts), int)
    places[by_part] = np.arange(len(parts)) - first[parts[by_part]]
    return places


def _within(costs: np.ndarray, budget: int) -> np.ndarray:
    """Return which of the costs are taken in their order, each that still fits into the budget (bool)."""
    total = np.cumsum(costs)
    taken = total <= budget
    n_first = int(taken.sum())
    left, smallest = budget - (int(total[n_first - 1]) if n_first else 0), int(costs.min(initial=0))
    for at in range(n_first, len(costs)):
        if left < smallest:
            break
        if costs[at] <= left:
            taken[at] = True
            left -= int(costs[at])
    return taken


def _uniform(
    scores: WidthScores, values: Mapping[str, tuple[np.ndarray, ...]], budget: int, options: WidthOptions
) -> Gone:
    """Return the units that go where every layer keeps the same number of them."""
    sizes, costs = _same_sizes(scores, options), [sum(scores.costs(unit)) for unit in UNITS]
    orders = {unit: [np.argsort(one, kind="stable") for one in values[unit]] for unit in sizes}
    lost, most = dict.fromkeys(UNITS, np.zeros(1)), dict.fromkeys(UNITS, 0)
    for unit, size in sizes.items():
        most[unit] = size - _least(size, options)
        lost[unit] = np.sum([np.concatenate([[0.0], np.cumsum(np.sort(one))]) for one in values[unit]], axis=0)
    best: tuple[float, int, int] | None = None
    for n_groups in range(most[KV_GROUPS] + 1):
        left = budget - n_groups * costs[1]
        if left < 0:
            break
        n_neurons = min(most[NEURONS], left // costs[0])
        missing = left - n_neurons * costs[0]
        if missing < (costs[0] if most[NEURONS] else costs[1]):
            loss = float(lost[NEURONS][n_neurons] + lost[KV_GROUPS][n_groups])
            best = min(best or (loss, n_neurons, n_groups), (loss, n_neurons, n_groups))
    if best is None:
        raise _too_little(scores, budget, sum(most[unit] * cost for unit, cost in zip(UNITS, costs, strict=True)))
    counts = dict(zip(UNITS, best[1:], strict=True))
    if not any(counts.values()):
        raise EditError(
            f"The width cannot be cut: expected a share of at least one unit a layer, got {budget:,} parameters. Raise it, or take "
            "mode global."
        )
    return {
        unit: {
            layer: np.sort(order[: counts[unit]]) for layer, order in enumerate(orders.get(unit, ())) if counts[unit]
        }
        for unit in UNITS
    }


def _same_sizes(scores: WidthScores, options: WidthOptions) -> dict[str, int]:
    """Return how many units every layer has of each kind that may go.

    Raises:
        EditError: layers differ, or one cannot be narrowed.
    """
    sizes = {}
    for unit in options.units:
        if reasons := scores.reasons(unit):
            layer, reason = next(iter(reasons.items()))
            other = next(iter({*UNITS} - {unit}))
            raise EditError(
                f"The width cannot be the same in every layer: the {unit} of layer {layer} cannot be cut: {reason}. Take mode global, or "
                f"let {other} alone go."
            )
        by_size: dict[int, list[int]] = {}
        for layer, part in enumerate(getattr(scores, unit)):
            by_size.setdefault(part.shape[1], []).append(layer)
        if len(by_size) > 1:
            told = ", ".join(f"{size} in {named(layers)}" for size, layers in list(by_size.items())[:3])
            raise EditError(
                f"The width cannot be the same in every layer: expected as many {unit} in each, got {short(told)}. Take mode global."
            )
        sizes[unit] = next(iter(by_size))
    return sizes


def _too_little(scores: WidthScores, budget: int, removed: int) -> EditError:
    whole = sum(scores.model.layer_parameters)
    return EditError(
        f"So many parameters cannot go: expected at most {removed / whole:.0%} of the decoder layers', got {budget / whole:.0%}. Ask for a "
        "smaller share, lower `least`, or let both kinds of units go."
    )


def _beside(options: WidthOptions) -> str:
    """Return what is not as usual, for the edit's name."""
    if options.by != TAYLOR:
        return f", by {options.by}"
    words = [] if options.pivots == "steps" else [{"none": "no pivots", "random": "random pivots"}[options.pivots]]
    words += [] if options.beta else ["no CMDS"]
    return "".join(f", {word}" for word in words)
