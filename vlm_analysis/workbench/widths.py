"""Width scores with memory: measured once for each model, prompt set and windows, and the part of the Bench that has them."""

from __future__ import annotations

import shutil
from typing import Any

from vlm_analysis.evaluation.pivots import EACH, WINDOW
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.width.scores import EXACT, FAST, WidthScores
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.recordings import known_recording
from vlm_analysis.workbench.shelf import keep, open_item, unfinished_folder, whole_items
from vlm_analysis.workbench.workspace import Item, Workspace

RECORDED = (
    {"attention": False, "token_maps": False, "batch_size": 1},
    {"attention": True, "token_maps": False, "batch_size": 1},
)


def measure_width(desk: Desk, prompts: Item, progress: Progress, *, name: str = "", **options: Any) -> Item:
    """Score the width on the prompts and return the Item of the scores; a saved recording of the prompts is not made again.

    What was added up is kept until the scores are saved: a scoring that was cancelled or interrupted goes on.
    """
    from vlm_analysis.selection.width.scoring import score_width

    found = (known_recording(desk, prompts, one) for one in RECORDED)
    recording: Recording | None = next((one for one in found if one is not None), None)
    folder = unfinished_folder(desk.shelf, desk.model, prompts, {"width": sorted(options.items())})
    scores = score_width(
        desk.loaded, desk.open_prompts(prompts), recording=recording, folder=folder, on_progress=progress, **options
    )
    item = keep(desk.shelf, "widths", scores, name or f"width of {desk.loaded.name} on {prompts.name}")
    shutil.rmtree(folder, ignore_errors=True)
    return item


def find_width(
    shelf: Workspace, model: str | None, prompts: str | None, *, window: int, sides: str, fast: bool, seed: int | None
) -> Item | None:
    """Return the Item of the newest whole scores of a model on a prompt set with these windows, by their fingerprints; needs no model."""
    asked = (FAST if fast else EXACT, window, sides)
    for item, scores in whole_items(
        one for one in shelf.items("widths") if (one.model, one.prompts) == (model, prompts)
    ):
        if (scores.how, scores.window, scores.sides) == asked and seed in (None, scores.seed):
            return item
    return None


class Widths(AtDesk):
    """Width scores with memory (see `bench.Bench`)."""

    def score_width(
        self,
        prompts: PromptSet | Item,
        *,
        window: int = WINDOW,
        sides: str = EACH,
        fast: bool = False,
        seed: int | None = None,
        on_progress: Progress = no_progress,
    ) -> WidthScores:
        """Return the scores of each MLP neuron and attention group (see `vlm_analysis.score_width`).

        Raises:
            EditError: no unit of this model can be cut.
        """
        desk, item = self._at(prompts, on_progress)
        options: dict[str, Any] = {"window": window, "sides": sides, "fast": fast, "seed": seed}
        known = find_width(desk.shelf, desk.model, item.prompts, **options)
        scores: WidthScores = open_item(known or measure_width(desk, item, on_progress, **options))
        return scores

    def measure_width(
        self,
        prompts: PromptSet | Item,
        name: str = "",
        *,
        window: int = WINDOW,
        sides: str = EACH,
        fast: bool = False,
        seed: int | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save new scores."""
        desk, item = self._at(prompts, on_progress)
        options: dict[str, Any] = {"window": window, "sides": sides, "fast": fast, "seed": seed}
        return measure_width(desk, item, on_progress, name=name, **options)
