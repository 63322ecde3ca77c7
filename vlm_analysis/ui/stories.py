"""The jobs that tell a story: the demo and the same comparison on the user's own model, kept with all they made."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet, open_prompts
from vlm_analysis.ui.session import ModelSlot, model_slot, workspace
from vlm_analysis.ui.sweeps import scores_folder
from vlm_analysis.ui.work import Work, keep_dense, unfinished_folder
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, keep_recording, open_item
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.export.story import Story

DEMO_PROMPTS = "Bundled packs: general, math"


def demo_work() -> Work:
    """Load the bundled model where it is not there, take the packs, compare; returns the Item of the story."""
    slot, shelf = model_slot(), workspace()

    def work(progress: Progress) -> Item:
        progress(0, 1, "loading Pocket-VL (the first time, PyTorch takes some seconds)")
        from vlm_analysis.models.source import BUNDLED_FOLDER

        if slot.info is None or slot.loaded.source != str(BUNDLED_FOLDER):
            slot.load("pocket-vl", {}, lambda done, total, message: progress(0, 1, message))
        prompts = open_prompts("general") + open_prompts("math")
        kept = keep_prompts(shelf, prompts, DEMO_PROMPTS)
        return _tell(slot, shelf, prompts, kept, progress)

    return work


def story_work(prompts: Item) -> Work:
    """Tell the story of the loaded model on a prompt set; returns its Item."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Item:
        slot.expected(model)
        return _tell(slot, shelf, open_item(prompts), prompts, progress)

    return work


def _tell(slot: ModelSlot, shelf: Workspace, prompts: PromptSet, kept: Item, progress: Progress) -> Item:
    """Compare the rankings on the loaded model and keep the story, its dense evaluation ready for later masks."""
    from vlm_analysis.workbench.pipeline import compare

    loaded = slot.loaded
    rows = unfinished_folder(shelf, loaded.fingerprint, kept, {"story": True})
    story = compare(loaded, prompts, rows=rows, scores=scores_folder(shelf, loaded, prompts), on_progress=progress)
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
    from vlm_analysis.errors import WorkspaceError
    from vlm_analysis.export.story import open_story

    recording = shelf.find("recordings", str(item.details.get("recordings")))
    if recording is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    return open_story(item.path, open_item(recording))


def story_html(story: Story) -> bytes:
    """Return the story as one HTML file that opens offline."""
    from vlm_analysis.export.report import report_html
    from vlm_analysis.export.story import story_sections

    info = story.recording.model
    made = datetime.now(UTC).date().isoformat()
    footer = (
        f"Made by Strata on {made}. Model {info.name}, {info.fingerprint[:16]}; prompts {story.dense.prompts[:16]}."
    )
    if info.name == "pocket-vl":
        footer += (
            " Pocket-VL is a small model trained on drawn pictures: findings on it say nothing about large models."
        )
    return report_html(story.title, story_sections(story), footer=footer).encode("utf-8", errors="replace")
