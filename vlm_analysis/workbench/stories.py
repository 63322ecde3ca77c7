"""Comparisons that tell a story, with memory: the demo and the same on any model, kept with all that it made."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet, open_prompts
from vlm_analysis.selection.compared.comparison import CHOICE_METRICS, Comparison
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import scorer
from vlm_analysis.workbench.shelf import (
    keep_comparison,
    keep_dense,
    keep_evaluation,
    keep_mask,
    keep_prompts,
    keep_recording,
    open_item,
    scores_folder,
    unfinished_folder,
)
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation
    from vlm_analysis.export.story import Story
    from vlm_analysis.recording.recording import Recording

PARTS = ("recordings", "prompts", "masks", "evaluations")
"""The kinds of what a story was made of or made; its item's details have their ids."""
DEMO_PACKS = ("general", "math")
DEMO_PROMPTS = "Bundled packs: general, math"


def demo(slot: ModelSlot, shelf: Workspace, on_progress: Progress, *, first: int | None = None) -> Item:
    """Load the bundled model where it is not there, take the packs, compare; returns the Item of the comparison.

    With `first`, only so many prompts of each pack are taken.
    """
    on_progress(0, 1, "loading Pocket-VL (the first time, PyTorch takes some seconds)")
    from vlm_analysis.models.source import BUNDLED_FOLDER

    if slot.info is None or slot.loaded.source != str(BUNDLED_FOLDER):
        slot.load("pocket-vl", {}, lambda done, total, message: on_progress(0, 1, message))
    general, math = (open_prompts(pack)[:first] for pack in DEMO_PACKS)
    prompts, about = general + math, DEMO_PROMPTS if first is None else f"{DEMO_PROMPTS}, the first {first} of each"
    return tell_story(slot, shelf, prompts, keep_prompts(shelf, prompts, about), on_progress)


def tell_story(slot: ModelSlot, shelf: Workspace, prompts: PromptSet, kept: Item, on_progress: Progress) -> Item:
    """Compare the rankings on the loaded model and keep that, the dense evaluation ready for later masks; returns the comparison's Item.

    `kept` is the saved item of the prompts. An interrupted one continues where it stopped.
    """
    from vlm_analysis.export.story import story_of
    from vlm_analysis.workbench.pipeline import compare_rankings

    loaded = slot.loaded
    rows, scores = (
        unfinished_folder(shelf, loaded.fingerprint, kept, {"story": True}),
        scores_folder(shelf, loaded, prompts),
    )
    made, recording = compare_rankings(loaded, prompts, rows=rows, scores=scores, on_progress=on_progress)
    slot.dense[prompts.fingerprint] = made.dense
    pruned = story_of(made, recording).pruned
    if CHOICE_METRICS[0] in made.scores:  # a comparison keeps how well the model chose, its evaluation also what
        pruned = scorer(Desk(slot, shelf, loaded.fingerprint), kept, on_progress)([pruned.edit])[0]
    item = _keep(shelf, made, recording, pruned, kept)
    shutil.rmtree(rows, ignore_errors=True)
    return item


def _keep(shelf: Workspace, made: Comparison, recording: Recording, pruned: Evaluation, prompts: Item) -> Item:
    """Save a comparison and what other pages can go on with: its recording, the mask of its story and both evaluations."""
    about, mask = f"{recording.model.name} on {prompts.name}", pruned.edit
    kept = keep_recording(shelf, recording, about)
    kept_mask = keep_mask(shelf, mask)
    keep_dense(shelf, made.dense, prompts.name)
    evaluation = keep_evaluation(shelf, pruned, f"{mask.name} on {prompts.name}")
    parts = {"prompts": prompts.id, "recordings": kept.id, "masks": kept_mask.id, "evaluations": evaluation.id}
    return keep_comparison(shelf, made, about, **parts)


def stories(shelf: Workspace) -> list[Item]:
    """Return the saved comparisons that tell a story and the stories of version 0.1, newest first."""
    told = [item for item in shelf.items("comparisons") if PARTS[0] in item.details]
    return sorted([*told, *shelf.items("stories")], key=lambda item: item.id, reverse=True)


def open_saved_story(shelf: Workspace, item: Item) -> Story:
    """Return the story that a saved comparison tells, or one of version 0.1; raises StrataError where it or its recording is gone."""
    from vlm_analysis.export.story import open_story, story_of

    kept = shelf.find("recordings", str(item.details.get("recordings")))
    if kept is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    recording = open_item(kept)
    return open_story(item.path, recording) if item.kind == "stories" else story_of(open_item(item), recording)
