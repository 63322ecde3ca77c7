"""The comparison that tells a story, with memory: the demo and the same on any model, kept with all that it made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet, open_prompts
from vlm_analysis.workbench.shelf import (
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
    from vlm_analysis.export.story import Story

DEMO_PACKS = ("general", "math")
DEMO_PROMPTS = "Bundled packs: general, math"


def demo(slot: ModelSlot, shelf: Workspace, on_progress: Progress, *, first: int | None = None) -> Item:
    """Load the bundled model where it is not there, take the packs, compare; returns the Item of the story.

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
    """Compare the rankings on the loaded model and keep the story, its dense evaluation ready for later masks; returns its Item.

    `kept` is the saved item of the prompts. An interrupted one continues where it stopped.
    """
    from vlm_analysis.workbench.pipeline import compare

    loaded = slot.loaded
    rows = unfinished_folder(shelf, loaded.fingerprint, kept, {"story": True})
    story = compare(loaded, prompts, rows=rows, scores=scores_folder(shelf, loaded, prompts), on_progress=on_progress)
    slot.dense[prompts.fingerprint] = story.dense
    item = keep_story(shelf, story, kept)
    shutil.rmtree(rows, ignore_errors=True)
    return item


def keep_story(shelf: Workspace, story: Story, prompts: Item) -> Item:
    """Save a story and what other pages can go on with: its recording, its mask and its two evaluations."""
    from vlm_analysis.export.story import save_story

    about = f"{story.recording.model.name} on {prompts.name}"
    recording = keep_recording(shelf, story.recording, about)
    method, mask = story.shown
    kept_mask = keep_mask(shelf, replace(mask, name=f"{method}, {mask.budget} layers"))
    keep_dense(shelf, story.dense, prompts.name)
    evaluation = keep_evaluation(shelf, story.pruned, f"{method}, {mask.budget} layers on {prompts.name}")
    parts = {"prompts": prompts.id, "recordings": recording.id, "masks": kept_mask.id, "evaluations": evaluation.id}
    belongs = {
        "model": story.dense.model.fingerprint,
        "model_name": story.dense.model.name,
        "prompts": story.dense.prompts,
    }

    def write(path: Path) -> None:
        save_story(story, path, recording_id=recording.id)

    return shelf.save("stories", about, write, details=parts, **belongs)


def open_saved_story(shelf: Workspace, item: Item) -> Story:
    """Return the story behind a saved item; raises StrataError where it or its recording is gone."""
    from vlm_analysis.export.story import open_story

    recording = shelf.find("recordings", str(item.details.get("recordings")))
    if recording is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    return open_story(item.path, open_item(recording))
