"""Beam search on measured damage: greedy pruning that keeps several masks at each step. Our choice."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.selection.search.objective import BY_KL, Objective
from vlm_analysis.selection.search.search import Judge, Layers, Measure, layers_to_go, mask_of, step_progress


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
    beside: Edit | None = None,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the best mask found by dropping one layer more at a time from each of the `width` best masks of the step before.

    A mask that is reached in two ways is measured once and kept once. A width of 1 is `greedy`.

    Args:
        measure, budget, n_layers, locks, protected, locked, objective, beside, on_progress: as in `greedy`.
        width: number of masks kept at each step, at least 1.

    Raises:
        MaskError: a width below 1, or as in `greedy`.
    """
    if not is_whole(width) or width < 1:
        raise MaskError(f"No beam can be kept: expected a width of at least 1, got {width!r}. Widen it.")
    progress = on_progress or no_progress
    free = Locks.given(n_layers, locks, protected, locked).free
    judge, n_dropped = Judge(measure, objective, n_layers, beside), layers_to_go(budget, n_layers, free)
    beam_sets: list[Layers] = [()]
    steps: list[dict[str, Any]] = []
    for step in range(n_dropped):
        progress(*step_progress(step, n_dropped, "step", steps[-1]["harm"] if steps else None))
        wider = sorted({tuple(sorted((*one, layer))) for one in beam_sets for layer in free if layer not in one})
        ranks = judge.best(wider)[:width]
        beam_sets = [layers for _, _, layers in ranks]
        steps.append({"layers": list(beam_sets[0]), "harm": ranks[0][0], "tried": len(wider)})
    return mask_of("beam", n_layers, beam_sets[0], objective, budget, steps, beside, width=width)
