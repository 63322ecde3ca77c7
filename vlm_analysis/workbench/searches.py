"""Searches on measured damage; the resulting mask and every score on the way are saved."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.ownlocks import with_own_locks
from vlm_analysis.errors import MaskError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.selection.search.beam import beam
from vlm_analysis.selection.search.evolve import evolve
from vlm_analysis.selection.search.greedy import greedy
from vlm_analysis.selection.search.objective import Objective
from vlm_analysis.words import METRIC_TITLES, counted
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import Scorer, scorer
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

SEARCHES: dict[str, Callable[..., Edit]] = {"greedy": greedy, "beam": beam, "evolutionary": evolve}
PARTS = 1000  # of a step, in the progress


def search_mask(
    desk: Desk,
    prompts: Item,
    strategy: str,
    budget: int,
    objective: Objective,
    progress: Progress,
    *,
    name: str = "",
    unprotect: bool = False,
    keep: Collection[int] = (),
    **settings: Any,
) -> Item:
    """Search for the mask of `budget` layers with the least damage; return its Item.

    Scores are kept as they come, for all searches on the same model and prompts: a cancelled one continues from there.

    Args:
        strategy: a key of `SEARCHES`; `settings` are the other arguments of its function, `beside` among them.
        unprotect: whether protected layers may go too.
        keep: layers that the user wants to keep; they are noted with the mask.

    Raises:
        MaskError: there is no such search.
        EditError: the model has no such layers to keep.
    """
    if strategy not in SEARCHES:
        raise MaskError(
            f"There is no such search: expected one of {', '.join(SEARCHES)}, got {strategy!r}. Choose one."
        )
    loaded, steps = desk.loaded, Steps(progress)
    locks = loaded.locks.keeping(keep, unprotect=unprotect)
    set_aside: dict[str, str] = {}
    mask = SEARCHES[strategy](
        runnable(loaded, scorer(desk, prompts, steps.within, steps.wait), set_aside),
        budget,
        n_layers=loaded.n_layers,
        locks=locks,
        objective=objective,
        on_progress=steps.begin,
        **settings,
    )
    skips = [settings["beside"].words()] if settings.get("beside") else []
    told = [f"{strategy} by {objective_words(objective)}", counted(budget, "layer"), *skips, f"on {prompts.name}"]
    name = name or ", ".join(told)
    provenance = {**mask.provenance, "prompts": prompts.prompts, **({"set_aside": set_aside} if set_aside else {})}
    provenance = with_own_locks(provenance, locks.own)
    return keep_mask(desk.shelf, replace(mask, name=name, model=loaded.info, provenance=provenance))


def objective_words(objective: Objective) -> str:
    """Return a score and whose answers count, in words: "KL to dense of the worst domain"."""
    whose = "the worst domain" if objective.worst else objective.target or "all domains"
    return f"{METRIC_TITLES[objective.score]} of {whose}"


def runnable(
    loaded: LoadedModel, score: Scorer, set_aside: dict[str, str]
) -> Callable[[list[Edit]], list[Evaluation | None]]:
    """Return a function that scores masks; those that the model cannot run give None. Prompts that it refuses are added to `set_aside`."""
    from vlm_analysis.edits.apply import why_not

    def measure(masks: list[Edit]) -> list[Evaluation | None]:
        can_run = [mask for mask in masks if not why_not(loaded.model, mask)]
        evaluations = dict(zip(can_run, score(can_run), strict=True))
        for evaluation in evaluations.values():
            set_aside.update(evaluation.set_aside)
        return [evaluations.get(mask) for mask in masks]

    return measure


class Steps:
    """Progress over the steps of a search, and within each step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step, self._steps, self._words = 0, 1, ""

    def begin(self, step: int, steps: int, words: str) -> None:
        self._step, self._steps, self._words = step, steps, f"{words}: "
        self.within(0, 1, "preparing")

    def wait(self, done: int, total: int, words: str) -> None:
        """Report work that does not belong to the step."""
        self.within(0, 1, words)

    def within(self, done: int, total: int, words: str) -> None:
        part = PARTS * min(done, total) // total if total else 0
        self._progress(PARTS * self._step + part, PARTS * self._steps, f"{self._words}{words}")
