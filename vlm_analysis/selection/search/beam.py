"""Beam search on measured damage: greedy pruning that keeps several masks in the running. Our choice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.selection.search.objective import BY_KL, Objective
from vlm_analysis.selection.search.search import Judge, Layers, Measure, layers_to_go, made_mask, told


def beam(
    measure: Measure,
    budget: int | float,
    *,
    n_layers: int,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    objective: Objective = BY_KL,
    width: int = 4,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the best mask found by dropping one layer more at a time from each of the `width` best masks of the step before.

    Masks are sets: one that is reached in two ways is measured once and kept once. A width of 1 is `greedy`.

    Args:
        measure, budget, n_layers, locks, protected, locked, objective, on_progress: as in `greedy`.
        width: how many masks go on from each step, at least 1.

    Raises:
        MaskError: a width below 1, or what `greedy` refuses.
    """
    if not is_whole(width) or width < 1:
        raise MaskError(f"No beam can be kept: expected a width of at least 1, got {width!r}. Widen it.")
    report = on_progress or no_progress
    free = Locks.given(n_layers, locks, protected, locked).free
    judge, wanted = Judge(measure, objective, n_layers), layers_to_go(budget, n_layers, free)
    kept: list[Layers] = [()]
    steps: list[dict[str, Any]] = []
    for step in range(wanted):
        report(*told(step, wanted, "step", steps[-1]["harm"] if steps else None))
        wider = sorted({tuple(sorted((*one, layer))) for one in kept for layer in free if layer not in one})
        ranks = judge.best(wider)[:width]
        kept = [layers for _, _, layers in ranks]
        steps.append({"layers": list(kept[0]), "harm": ranks[0][0], "tried": len(wider)})
    return made_mask("beam", n_layers, kept[0], objective, budget, steps, width=width)
