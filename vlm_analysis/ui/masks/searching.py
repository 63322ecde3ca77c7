"""The job that searches for a mask on measured damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.selection.search.beam import beam
from vlm_analysis.selection.search.evolve import evolve
from vlm_analysis.selection.search.greedy import greedy
from vlm_analysis.selection.search.objective import Objective
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.sweeps import measurer
from vlm_analysis.ui.common.text import METRIC_TITLES
from vlm_analysis.ui.common.work import Work
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

SEARCHES: dict[str, Callable[..., Edit]] = {"greedy": greedy, "beam": beam, "evolutionary": evolve}
PARTS = 1000  # of a step, in what is reported


def search_work(
    prompts: Item, strategy: str, budget: int, objective: Objective, unprotect: bool = False, **settings: Any
) -> Work:
    """Search for the mask of `budget` layers that harms least; returns its Item.

    What was measured is kept as it comes, for all searches on the same model and prompts: a job that was cancelled goes on there.

    Args:
        strategy: a key of `SEARCHES`; `settings` are what its function takes beside.
        unprotect: whether protected layers may go too.
    """
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Item:
        loaded, steps = slot.expected(model), _Steps(progress)
        mask = SEARCHES[strategy](
            _runnable(loaded, measurer(slot, shelf, loaded, prompts, steps.within)),
            budget,
            n_layers=loaded.n_layers,
            locks=loaded.locks.unprotected() if unprotect else loaded.locks,
            objective=objective,
            on_progress=steps.begin,
            **settings,
        )
        name = f"{strategy} by {objective_words(objective)}, {budget} layers, on {prompts.name}"
        found = {**mask.provenance, "prompts": prompts.prompts}
        return keep_mask(shelf, replace(mask, name=name, model=loaded.info, provenance=found))

    return work


def objective_words(objective: Objective) -> str:
    """Return a score and whose answers count, in words: "KL to dense of the worst domain"."""
    whose = "the worst domain" if objective.worst else objective.target or "all domains"
    return f"{METRIC_TITLES[objective.score]} of {whose}"


def _runnable(
    loaded: LoadedModel, measured: Callable[[Sequence[Edit]], list[Evaluation]]
) -> Callable[[list[Edit]], list[Evaluation | None]]:
    """Return what measures the masks that the model can run; the others come back as None."""
    from vlm_analysis.edits.apply import why_not

    def measure(masks: list[Edit]) -> list[Evaluation | None]:
        can_run = [mask for mask in masks if not why_not(loaded.model, mask)]
        found = dict(zip(can_run, measured(can_run), strict=True))
        return [found.get(mask) for mask in masks]

    return measure


class _Steps:
    """Reports the masks of each step of a search as a part of the whole."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step, self._steps, self._words = 0, 1, ""

    def begin(self, step: int, steps: int, words: str) -> None:
        self._step, self._steps, self._words = step, steps, f"{words}: "
        self.within(0, 1, "preparing")

    def within(self, done: int, total: int, words: str) -> None:
        part = PARTS * min(done, total) // total if total else 0
        self._progress(PARTS * self._step + part, PARTS * self._steps, f"{self._words}{words}")
