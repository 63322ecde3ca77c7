"""Comparisons that tell a story: the demo and the same on any model, saved with their parts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.opening import open_prompts
from vlm_analysis.prompts.prompts import PromptSet
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
"""The kinds of a story's parts; its item's details have their ids."""
DEMO_PACKS = ("general", "math")
DEMO_PROMPTS = "Bundled packs: general, math"


def demo(slot: ModelSlot, shelf: Workspace, on_progress: Progress, *, first: int | None = None) -> Item:
    """Load the bundled model if needed and compare on the packs; return the Item of the comparison.

    `first` limits the prompts of each pack.
    """
    on_progress(0, 1, "loading Pocket-VL (the first time, PyTorch takes some seconds)")
    from vlm_analysis.models.source import BUNDLED_FOLDER

    if slot.info is None or slot.loaded.source != str(BUNDLED_FOLDER):
        slot.load("pocket-vl", {}, lambda done, total, message: on_progress(0, 1, message))
    general, math = (open_prompts(pack)[:first] for pack in DEMO_PACKS)
    prompts, about = general + math, DEMO_PROMPTS if first is None else f"{DEMO_PROMPTS}, the first {first} of each"
    return tell_story(slot, shelf, prompts, keep_prompts(shelf, prompts, about), on_progress)


def tell_story(
    slot: ModelSlot, shelf: Workspace, prompts: PromptSet, prompts_item: Item, on_progress: Progress
) -> Item:
    """Compare criteria on the loaded model, save the comparison and its parts, and return its Item.

    `prompts_item` is the saved item of the prompts. An interrupted comparison continues where it stopped.
    """
    from vlm_analysis.export.story import story_of
    from vlm_analysis.workbench.pipeline import compare_first_k

    loaded = slot.loaded
    rows, scores = (
        unfinished_folder(shelf, loaded.fingerprint, prompts_item, {"story": True}),
        scores_folder(shelf, loaded, prompts),
    )
    comparison, recording = compare_first_k(loaded, prompts, rows=rows, scores=scores, on_progress=on_progress)
    slot.dense[prompts.fingerprint] = comparison.dense
    pruned = story_of(comparison, recording).pruned
    if (
        CHOICE_METRICS[0] in comparison.scores
    ):  # a comparison has only the scores of choices, the evaluation also the choices
        pruned = scorer(Desk(slot, shelf, loaded.fingerprint), prompts_item, on_progress)([pruned.edit])[0]
    item = _keep(shelf, comparison, recording, pruned, prompts_item)
    shutil.rmtree(rows, ignore_errors=True)
    return item


def _keep(shelf: Workspace, comparison: Comparison, recording: Recording, pruned: Evaluation, prompts: Item) -> Item:
    """Save a comparison, its recording, the mask of its story and both evaluations."""
    about, mask = f"{recording.model.name} on {prompts.name}", pruned.edit
    saved_recording = keep_recording(shelf, recording, about)
    saved_mask = keep_mask(shelf, mask)
    keep_dense(shelf, comparison.dense, prompts.name)
    evaluation = keep_evaluation(shelf, pruned, f"{mask.name} on {prompts.name}")
    parts = {
        "prompts": prompts.id,
        "recordings": saved_recording.id,
        "masks": saved_mask.id,
        "evaluations": evaluation.id,
    }
    return keep_comparison(shelf, comparison, about, **parts)


def stories(shelf: Workspace) -> list[Item]:
    """Return the saved comparisons that tell a story and the stories of version 0.1, newest first."""
    comparisons = [item for item in shelf.items("comparisons") if PARTS[0] in item.details]
    return sorted([*comparisons, *shelf.items("stories")], key=lambda item: item.id, reverse=True)


def open_saved(shelf: Workspace, item: Item) -> Any:
    """Return the value behind a saved item of any kind: a Story for one of version 0.1, else what `open_item` returns.

    Raises:
        StrataError: its file, or the recording of a story, is missing or damaged.
    """
    return open_saved_story(shelf, item) if item.kind == "stories" else open_item(item)


def open_saved_story(shelf: Workspace, item: Item) -> Story:
    """Return the story that a saved comparison tells, or one of version 0.1; raises StrataError if it or its recording is missing."""
    from vlm_analysis.export.story import open_story, story_of

    recording_item = shelf.find("recordings", str(item.details.get("recordings")))
    if recording_item is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    recording = open_item(recording_item)
    return open_story(item.path, recording) if item.kind == "stories" else story_of(open_item(item), recording)
