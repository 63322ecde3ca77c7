"""The jobs that pages start: each is one library call on the process-wide model, its result kept in the workspace.

A function here gathers what the job needs while the page runs and returns the work; the work itself never touches
Streamlit's session and imports torch only when it runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlm_analysis.evaluation import Evaluation
from vlm_analysis.masks import PruneMask
from vlm_analysis.progress import Progress
from vlm_analysis.prompts import Prompt, PromptSet, open_prompts
from vlm_analysis.stored import is_whole, keep_evaluation, keep_mask, keep_prompts, keep_recording, open_item
from vlm_analysis.ui.session import ModelSlot, model_slot, runner, workspace
from vlm_analysis.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.fit import FitEstimate
    from vlm_analysis.story import Story

DEMO_PROMPTS = "Bundled packs: general, math"
Work = Callable[[Progress], Any]


def load_work(source: str, options: dict[str, Any]) -> Work:
    """Load a model into the slot; returns its ModelInfo."""
    slot = model_slot()
    return lambda progress: slot.load(source, options, progress).info


def fit_work(source: str, options: dict[str, Any]) -> Work:
    """Estimate whether a model fits in the present one's place; returns what was asked and the FitEstimate."""
    slot = model_slot()

    def work(progress: Progress) -> tuple[Any, FitEstimate]:
        progress(0, 1, "reading the configuration (the first time, PyTorch takes some seconds)")
        from vlm_analysis.fit import estimate_fit

        here = slot.loaded if slot.info is not None else None
        fit = estimate_fit(
            source,
            revision=options.get("revision"),
            trust_remote_code=bool(options.get("trust_remote_code")),
            device=options["device"],
            given_back=here.n_bytes if here is not None else 0,
        )
        return (source, options), fit

    return work


def unload_work() -> Work:
    """Unload the model."""
    slot = model_slot()
    return lambda progress: slot.unload()


def record_work(prompts: Item, name: str, options: Mapping[str, Any] = MappingProxyType({})) -> Work:
    """Record the prompts, going on from what an unfinished or an earlier recording holds; returns the recording's Item."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint
    folder = unfinished_folder(shelf, model, prompts, options)

    def work(progress: Progress) -> Item:
        from vlm_analysis.record import extendable, record

        loaded, prompt_set = slot.expected(model), open_item(prompts)
        earlier = (open_item(item) for item in shelf.items("recordings") if item.model == model and is_whole(item))
        known = None if folder.exists() else extendable(earlier, loaded, prompt_set, **options)
        made = record(loaded, prompt_set, **options, known=known, folder=folder, on_progress=progress)
        item = keep_recording(shelf, made, name)
        shutil.rmtree(folder, ignore_errors=True)
        return item

    return work


def unfinished_folder(shelf: Workspace, model: str, prompts: Item, options: Mapping[str, Any]) -> Path:
    """Return where the rows of a recording lie until it is finished: its own for each model, prompt set and choice of options."""
    told = json.dumps([model, prompts.prompts, sorted(options.items())])
    return shelf.root / "unfinished" / hashlib.sha256(told.encode()).hexdigest()[:16]


def evaluate_work(mask: PruneMask, prompts: Item) -> Work:
    """Evaluate the dense model, where that was not done yet, and the mask; returns the Item of the mask's evaluation."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Item:
        from vlm_analysis.evaluate import evaluate

        loaded, prompt_set = slot.expected(model), open_item(prompts)
        dense = dense_evaluation(slot, shelf, prompt_set, prompts.name, progress)
        made = evaluate(loaded, prompt_set, mask, reference=dense, on_progress=progress)
        return keep_evaluation(shelf, made, f"{mask.name or 'unnamed mask'} on {prompts.name}")

    return work


def dense_evaluation(
    slot: ModelSlot, shelf: Workspace, prompts: PromptSet, name: str, progress: Progress
) -> Evaluation:
    """Return the dense evaluation on these prompts: made once per loaded model, and kept in the workspace."""
    from vlm_analysis.evaluate import evaluate

    known = slot.dense.get(prompts.fingerprint)
    if known is None:
        known = evaluate(slot.loaded, prompts, on_progress=progress)
        slot.dense[prompts.fingerprint] = known
        keep_dense(shelf, known, name)
    return known


def keep_dense(shelf: Workspace, dense: Evaluation, name: str) -> None:
    """Save a dense evaluation unless a whole one is there; a damaged one makes room."""
    item = find_dense(shelf, dense.model.fingerprint, dense.prompts)
    if item is not None:
        if is_whole(item):
            return
        shelf.delete(item)
    keep_evaluation(shelf, dense, f"dense model on {name}")


def find_dense(shelf: Workspace, model: str | None, prompts: str | None) -> Item | None:
    """Return the saved dense evaluation of a model on a prompt set, by their fingerprints."""
    found = (
        item
        for item in shelf.items("evaluations")
        if item.model == model and item.prompts == prompts and not item.details.get("dropped")
    )
    return next(found, None)


def export_work(mask: PruneMask, folder: Path) -> Work:
    """Export a checkpoint with what the workspace knows of the mask; returns the Manifest and the folder."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Any:
        from vlm_analysis.export import export_checkpoint

        evidence, reference = find_evidence(shelf, mask, model)
        manifest = export_checkpoint(
            slot.expected(model), mask, folder, on_progress=progress, evidence=evidence, reference=reference
        )
        return manifest, folder

    return work


def find_evidence(shelf: Workspace, mask: PruneMask, model: str) -> tuple[Evaluation | None, Evaluation | None]:
    """Return the newest whole evaluation of a mask on a model, and the dense one on its prompts; None where there is none."""
    about = {"dropped": list(mask.dropped), "n_layers": mask.n_layers}
    items = (i for i in shelf.items("evaluations") if i.model == model and i.details == about)
    evidence = next((open_item(item) for item in items if is_whole(item)), None)
    dense = None if evidence is None else find_dense(shelf, model, evidence.prompts)
    return evidence, open_item(dense) if dense is not None and is_whole(dense) else None


def ask_both(prompt: Prompt, mask: PruneMask) -> tuple[str, str]:
    """Return the dense and the pruned response to one prompt; a running job lets it in between two of its prompts."""
    slot, model = model_slot(), model_slot().fingerprint

    def call() -> tuple[str, str]:
        from vlm_analysis.evaluate import respond

        loaded = slot.expected(model)
        return respond(loaded, prompt), respond(loaded, prompt, mask)

    return runner().ask(call)


def see_prompt(prompt: Prompt) -> tuple[str, dict[str, int]]:
    """Return the text the model is given for a prompt, its template and placeholders included, and its tokens by group."""
    slot, model = model_slot(), model_slot().fingerprint

    def call() -> tuple[str, dict[str, int]]:
        from vlm_analysis.inputs import answer_tokens, encode, render_prompt

        loaded = slot.expected(model)
        encoded = encode(loaded, prompt, answer_tokens(loaded, prompt.answer))
        return render_prompt(loaded, prompt), encoded.token_counts()

    return runner().ask(call)


def demo_work() -> Work:
    """Load the bundled model where it is not there, take the packs, compare; returns the Item of the story."""
    slot, shelf = model_slot(), workspace()

    def work(progress: Progress) -> Item:
        progress(0, 1, "loading Pocket-VL (the first time, PyTorch takes some seconds)")
        from vlm_analysis.models import BUNDLED_FOLDER

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
    from vlm_analysis.pipeline import compare

    story = compare(slot.loaded, prompts, on_progress=progress)
    slot.dense[prompts.fingerprint] = story.dense
    return keep_story(shelf, story, kept)


def keep_story(shelf: Workspace, story: Story, prompts: Item) -> Item:
    """Save a story and what other pages can go on with: its recording, its mask and its two evaluations."""
    from vlm_analysis.story import save_story

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
    from vlm_analysis.story import open_story

    recording = shelf.find("recordings", str(item.details.get("recordings")))
    if recording is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    return open_story(item.path, open_item(recording))


def story_html(story: Story) -> bytes:
    """Return the story as one HTML file that opens offline."""
    from vlm_analysis.report import report_html
    from vlm_analysis.story import story_sections

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
