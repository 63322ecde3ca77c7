"""Evolutionary search on measured damage: masks of one budget that swap and cross layers; the best survive. Our choice."""

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
from vlm_analysis.selection.search.search import Judge, Layers, Measure, layers_to_go, mask_of, step_progress

CROSSED = 0.5  # share of children of two parents; the others are swaps
TWICE = 0.25  # share of swaps of two layers
TRIES = 20  # draws per new mask before the search for untried masks gives up


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
    beside: Edit | None = None,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the best mask found from `start` and random masks over generations; never worse than the best of `start`.

    Each generation has up to `population` children of the best masks so far. Some swap one dropped layer for a kept one, sometimes
    two; others drop the layers that both parents drop and fill up with layers drawn from those that one of them drops. No mask is
    measured twice.

    Args:
        measure, budget, n_layers, locks, protected, locked, objective, beside, on_progress: as in `greedy`; called once a generation.
        population: number of masks in a generation, and of parents, at least 1.
        generations: number of generations after the first masks, at least 0.
        seed: of the random draws.
        start: masks of the budget to start from, such as those of criteria; random masks fill up the population.

    Raises:
        MaskError: a start that is not of the budget or drops a layer that stays, settings below their minimum, or as in
            `greedy`.
    """
    _check(population=(population, 1), generations=(generations, 0), seed=(seed, 0))
    progress, rng = on_progress or no_progress, np.random.default_rng(seed)
    free = Locks.given(n_layers, locks, protected, locked).free
    judge, n_dropped = Judge(measure, objective, n_layers, beside), layers_to_go(budget, n_layers, free)
    first = _checked_start(start, n_layers, free, n_dropped)
    parents: list[Rank] = []
    history: set[Layers] = set()
    steps: list[dict[str, Any]] = []
    for generation in range(generations + 1 if n_dropped else 0):
        progress(*step_progress(generation, generations + 1, "round", parents[0][0] if parents else None))
        if generation:
            new = _untried(_children(parents, free, rng), population, history)
        else:
            new = first + _untried(_random(free, n_dropped, rng), population - len(first), first)
        if not new:
            break
        history |= {*new}
        parents = judge.best(new, parents)[:population]
        steps.append({"layers": list(parents[0][2]), "harm": parents[0][0], "tried": len(new)})
    settings = {
        "population": population,
        "generations": generations,
        "seed": seed,
        "start": [list(one) for one in first],
    }
    best = parents[0][2] if parents else ()
    return mask_of("evolutionary", n_layers, best, objective, budget, steps, beside, **settings)


def _random(free: Sequence[int], n_dropped: int, rng: np.random.Generator) -> Iterator[Layers]:
    while True:
        yield _sample(free, n_dropped, rng)


def _children(parents: Sequence[Rank], free: Sequence[int], rng: np.random.Generator) -> Iterator[Layers]:
    """Yield the layers that children of good parents drop; some may have been measured before."""
    while True:
        one, other = (parents[rng.integers(len(parents), size=2).min()][2] for _ in range(2))  # the better of two drawn
        yield _crossed(one, other, rng) if rng.random() < CROSSED else _swapped(one, free, rng)


def _crossed(one: Layers, other: Layers, rng: np.random.Generator) -> Layers:
    """Return the layers that both drop, filled up with layers drawn from those that one of them drops."""
    both, either = set(one) & set(other), sorted(set(one) ^ set(other))
    return _sorted([*both, *_sample(either, len(one) - len(both), rng)])


def _swapped(one: Layers, free: Sequence[int], rng: np.random.Generator) -> Layers:
    """Return the mask with one dropped layer, sometimes two, in exchange for kept ones."""
    candidates = [layer for layer in free if layer not in one]
    number = min(2 if rng.random() < TWICE else 1, len(one), len(candidates))
    return _sorted([*(set(one) - set(_sample(one, number, rng))), *_sample(candidates, number, rng)])


def _untried(draws: Iterator[Layers], number: int, history: Collection[Layers]) -> list[Layers]:
    """Return up to `number` different draws that are not in `history`; fewer where none are found."""
    new: dict[Layers, None] = {}
    for layers in islice(draws, TRIES * max(0, number)):
        if layers not in history:
            new[layers] = None
        if len(new) == number:
            break
    return list(new)


def _sample(layers: Sequence[int], number: int, rng: np.random.Generator) -> Layers:
    return _sorted([layers[index] for index in rng.choice(len(layers), number, replace=False)])


def _sorted(layers: Collection[int]) -> Layers:
    return tuple(sorted(layers))


def _checked_start(start: Sequence[Edit], n_layers: int, free: Collection[int], n_dropped: int) -> list[Layers]:
    """Return the different masks to start from, as the layers they drop."""
    for mask in start:
        if mask.n_layers != n_layers or mask.budget != n_dropped or not set(mask.dropped) <= set(free):
            raise MaskError(
                f"The search cannot start from a mask of layers {list(mask.dropped)} of {mask.n_layers}: expected {n_dropped} of the "
                f"layers that may go of {n_layers}. Make it anew for this budget."
            )
    return list(dict.fromkeys(mask.dropped for mask in start))


def _check(**settings: tuple[int, int]) -> None:
    for name, (value, least) in settings.items():
        if not is_whole(value) or value < least:
            raise MaskError(
                f"The search cannot begin: expected {name} to be a whole number of at least {least}, got {value!r}. Raise it."
            )
