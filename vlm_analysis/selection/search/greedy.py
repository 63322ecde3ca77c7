"""Greedy pruning on measured damage: drop the layer that harms least, measure all remaining ones again, and so on.

SLEB (arXiv:2402.09025) does this with the likelihood of text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.selection.search.objective import BY_KL, Objective
from vlm_analysis.selection.search.search import Judge, Measure, layers_to_go, mask_of, step_progress


@dataclass(frozen=True)
class GreedyStep:
    """One step: the dropped layer, and the harm of dropping each candidate beside those dropped before; None where not finite."""

    layer: int
    harm: dict[int, float | None]


def greedy(
    measure: Measure,
    budget: int | float,
    *,
    n_layers: int,
    locks: Locks | None = None,
    protected: Collection[int] | None = None,
    locked: Collection[int] = (),
    objective: Objective = BY_KL,
    beside: Edit | None = None,
    on_progress: Progress | None = None,
) -> Edit:
    """Return the mask that drops, one at a time, the layer whose removal beside those before harms least.

    Args:
        measure: evaluates masks on one prompt set (see `Measure`); called for the dense model, then once a step.
        budget: layers to drop (int), or the ratio of all layers (float in [0, 1); the floor counts).
        n_layers: of the model.
        locks, protected, locked: as in `make_mask`.
        objective: what harm is; KL to the dense model over all prompts by default. A layer without a finite harm stays.
        beside: an edit that every mask is measured beside, as one in which vision tokens skip layers; the result holds it too.
        on_progress: called at each step; raising `Cancelled` in it, or in `measure`, stops the search.

    Raises:
        MaskError: a budget that cannot be met, an unknown target, or evaluations of other masks than `measure` was called with.
    """
    progress = on_progress or no_progress
    locks = Locks.given(n_layers, locks, protected, locked)
    n_dropped = layers_to_go(budget, n_layers, locks.free)
    steps: list[GreedyStep] = []
    step_iterator = greedy_steps(measure, n_layers=n_layers, locks=locks, objective=objective, beside=beside)
    while len(steps) < n_dropped:
        progress(*step_progress(len(steps), n_dropped, "step", steps[-1].harm[steps[-1].layer] if steps else None))
        steps.append(next(step_iterator))
    dropped = tuple(step.layer for step in steps)
    rows = [{"layer": step.layer, "harm": step.harm[step.layer], "tried": len(step.harm)} for step in steps]
    return mask_of("greedy", n_layers, dropped, objective, budget, rows, beside, drop_order=list(dropped))


def greedy_steps(
    measure: Measure,
    *,
    n_layers: int,
    locks: Locks | None = None,
    objective: Objective = BY_KL,
    beside: Edit | None = None,
) -> Iterator[GreedyStep]:
    """Yield the steps of `greedy` until no layer is left that may go; each is measured when it is requested."""
    judge = Judge(measure, objective, n_layers, beside)
    dropped: tuple[int, ...] = ()
    candidates = Locks.given(n_layers, locks).free
    while candidates and len(dropped) < n_layers - 1:
        ranks = dict(zip(candidates, judge.ranks([(*dropped, layer) for layer in candidates]).values(), strict=True))
        finite = {layer: rank for layer, rank in ranks.items() if rank is not None}
        if not finite:
            raise MaskError(
                f"No layer can go after {list(dropped)}: expected a finite {objective.score}, got none. Measure on other prompts."
            )
        best = min(finite, key=finite.__getitem__)
        yield GreedyStep(best, {layer: None if rank is None else rank[0] for layer, rank in ranks.items()})
        dropped = (*dropped, best)
        candidates.remove(best)
