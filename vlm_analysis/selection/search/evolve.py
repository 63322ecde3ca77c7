"""Evolutionary search on measured damage: masks of one budget that swap layers and cross, the best staying. Our choice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.selection.search.objective import BY_KL, Objective, Rank
from vlm_analysis.selection.search.search import Judge, Layers, Measure, layers_to_go, made_mask, told

CROSSED = 0.5  # share of children of two parents; the others are swaps
TWICE = 0.25  # share of swaps of two layers
TRIES = 20  # draws for each new mask wanted, before all near ones count as tried


def evolve(
    measure: Measure,
    budget: int | float,
    *,
    n_layers: int,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    objective: Objective = BY_KL,
    population: int = 16,
    generations: int = 8,
    seed: int = 0,
    start: Sequence[Edit] = (),
    on_progress: Progress | None = None,
) -> Edit:
    """Return the best mask found from `start` and random masks over generations; never worse than the best of `start`.

    Each generation has up to `population` children of the best so far: one swaps one dropped layer for a kept one, sometimes two,
    another drops what both its parents drop and, drawn, as much as is missing of what one of them drops. No mask is measured twice.

    Args:
        measure, budget, n_layers, locks, protected, locked, objective, on_progress: as in `greedy`; called once a generation.
        population: masks of a generation, and of those that have children, at least 1.
        generations: after the first masks, at least 0.
        seed: the same draws the same masks.
        start: masks of the budget to start from, such as those of criteria; random ones fill up the population.

    Raises:
        MaskError: a start that is not of the budget or drops a layer that stays, settings below their least, or what `greedy`
            refuses.
    """
    _check(population=(population, 1), generations=(generations, 0), seed=(seed, 0))
    report, rng = on_progress or no_progress, np.random.default_rng(seed)
    free = Locks.given(n_layers, locks, protected, locked).free
    judge, wanted = Judge(measure, objective, n_layers), layers_to_go(budget, n_layers, free)
    first = _checked_start(start, n_layers, free, wanted)
    parents: list[Rank] = []
    seen: set[Layers] = set()
    steps: list[dict[str, Any]] = []
    for generation in range(generations + 1 if wanted else 0):
        report(*told(generation, generations + 1, "round", parents[0][0] if parents else None))
        if generation:
            new = _unseen(_children(parents, free, rng), population, seen)
        else:
            new = first + _unseen(_random(free, wanted, rng), population - len(first), first)
        if not new:
            break
        seen |= {*new}
        parents = judge.best(new, parents)[:population]
        steps.append({"layers": list(parents[0][2]), "harm": parents[0][0], "tried": len(new)})
    settings = {
        "population": population,
        "generations": generations,
        "seed": seed,
        "start": [list(one) for one in first],
    }
    best = parents[0][2] if parents else ()
    return made_mask("evolutionary", n_layers, best, objective, budget, steps, **settings)


def _random(free: Sequence[int], wanted: int, rng: np.random.Generator) -> Iterator[Layers]:
    while True:
        yield _drawn(free, wanted, rng)


def _children(parents: Sequence[Rank], free: Sequence[int], rng: np.random.Generator) -> Iterator[Layers]:
    """Yield the layers that children of good parents drop; some may have been measured before."""
    while True:
        one, other = (parents[rng.integers(len(parents), size=2).min()][2] for _ in range(2))  # the better of two drawn
        yield _crossed(one, other, rng) if rng.random() < CROSSED else _swapped(one, free, rng)


def _crossed(one: Layers, other: Layers, rng: np.random.Generator) -> Layers:
    """Return what both drop and, drawn from what one of them drops, as much as is missing."""
    both, either = set(one) & set(other), sorted(set(one) ^ set(other))
    return _sorted([*both, *_drawn(either, len(one) - len(both), rng)])


def _swapped(one: Layers, free: Sequence[int], rng: np.random.Generator) -> Layers:
    """Return the mask with one dropped layer, sometimes two, in exchange for kept ones."""
    staying = [layer for layer in free if layer not in one]
    number = min(2 if rng.random() < TWICE else 1, len(one), len(staying))
    return _sorted([*(set(one) - set(_drawn(one, number, rng))), *_drawn(staying, number, rng)])


def _unseen(draws: Iterator[Layers], number: int, seen: Collection[Layers]) -> list[Layers]:
    """Return up to `number` different draws that were not seen; fewer where they cannot be found."""
    found: dict[Layers, None] = {}
    for layers in islice(draws, TRIES * max(0, number)):
        if layers not in seen:
            found[layers] = None
        if len(found) == number:
            break
    return list(found)


def _drawn(layers: Sequence[int], number: int, rng: np.random.Generator) -> Layers:
    return _sorted([layers[place] for place in rng.choice(len(layers), number, replace=False)])


def _sorted(layers: Collection[int]) -> Layers:
    return tuple(sorted(layers))


def _checked_start(start: Sequence[Edit], n_layers: int, free: Collection[int], wanted: int) -> list[Layers]:
    """Return the different masks to start from, as the layers they drop."""
    for mask in start:
        if mask.n_layers != n_layers or mask.budget != wanted or not set(mask.dropped) <= set(free):
            raise MaskError(
                f"The search cannot start from a mask of layers {list(mask.dropped)} of {mask.n_layers}: expected {wanted} of the "
                f"layers that may go of {n_layers}. Make it anew for this budget."
            )
    return list(dict.fromkeys(mask.dropped for mask in start))


def _check(**settings: tuple[int, int]) -> None:
    for name, (value, least) in settings.items():
        if not is_whole(value) or value < least:
            raise MaskError(
                f"The search cannot begin: expected {name} to be a whole number of at least {least}, got {value!r}. Raise it."
            )
