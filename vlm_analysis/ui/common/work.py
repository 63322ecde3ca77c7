"""The jobs that pages start: each is one library call on the process-wide model, its result kept in the workspace.

A function here gathers what the job needs while the page runs and returns the work; the work itself never touches
Streamlit's session and imports torch only when it runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common.session import live, model_slot, workspace
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import (
    find_dense,
    keep_dense,
    keep_evaluation,
    keep_recording,
    open_item,
    open_whole,
    unfinished_folder,
)
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.latency import Latency
    from vlm_analysis.models.fit import FitEstimate

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
        from vlm_analysis.models.fit import estimate_fit

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
        from vlm_analysis.recording.record import extendable, record

        loaded, prompt_set = slot.expected(model), open_item(prompts)
        opened = (open_whole(item) for item in shelf.items("recordings") if item.model == model)
        earlier = (recording for recording in opened if recording is not None)
        known = None if folder.exists() else extendable(earlier, loaded, prompt_set, **options)
        made = record(loaded, prompt_set, **options, known=known, folder=folder, on_progress=progress)
        item = keep_recording(shelf, made, name)
        shutil.rmtree(folder, ignore_errors=True)
        return item

    return work


def evaluate_work(mask: Edit, prompts: Item, responses: bool = False) -> Work:
    """Evaluate the dense model, where that was not done yet, and the mask; returns the Item of the mask's evaluation.

    The scores are on the live board before the responses are written.
    """
    slot, shelf, model, board = model_slot(), workspace(), model_slot().fingerprint, live()

    def work(progress: Progress) -> Item:
        from vlm_analysis.evaluation.run.evaluate import evaluate, write_responses

        board.pop("evaluate", None)
        loaded, prompt_set = slot.expected(model), open_item(prompts)
        dense = dense_evaluation(slot, shelf, prompt_set, prompts.name, progress)
        made = evaluate(loaded, prompt_set, mask, reference=dense, on_progress=progress)
        board["evaluate"] = made, dense
        if responses:
            dense_evaluation(slot, shelf, prompt_set, prompts.name, progress, responses)
            made = write_responses(loaded, prompt_set, made, on_progress=progress)
        board.pop("evaluate", None)
        return keep_evaluation(shelf, made, f"{mask.name or 'unnamed mask'} on {prompts.name}")

    return work


def dense_evaluation(
    slot: ModelSlot, shelf: Workspace, prompts: PromptSet, name: str, progress: Progress, responses: bool = False
) -> Evaluation:
    """Return the dense evaluation on these prompts: made once per loaded model, and kept in the workspace unless a whole one is there.

    Where responses are asked for and it has none, they are written and kept too.
    """
    from vlm_analysis.evaluation.run.evaluate import evaluate, write_responses

    known = slot.dense.get(prompts.fingerprint)
    if known is None:
        known = evaluate(slot.loaded, prompts, on_progress=progress)
        slot.dense[prompts.fingerprint] = known
    keep_dense(shelf, known, name)
    if responses and "response" not in known.by_prompt:
        known = write_responses(slot.loaded, prompts, known, on_progress=progress)
        slot.dense[prompts.fingerprint] = known
        keep_dense(shelf, known, name)
    return known


def latency_work(prompts: Item) -> Work:
    """Time each layer of the loaded model on some of the prompts; the slot keeps the Latency, which comes back too."""
    slot, model = model_slot(), model_slot().fingerprint

    def work(progress: Progress) -> Latency:
        from vlm_analysis.evaluation.run.latency import measure_latency

        slot.latency = measure_latency(slot.expected(model), open_item(prompts), on_progress=progress)
        return slot.latency

    return work


def export_work(mask: Edit, folder: Path) -> Work:
    """Export a checkpoint with what the workspace knows of the mask; returns the Manifest and the folder."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Any:
        from vlm_analysis.export.checkpoint import export_checkpoint

        evidence, reference = find_evidence(shelf, mask, model)
        manifest = export_checkpoint(
            slot.expected(model), mask, folder, on_progress=progress, evidence=evidence, reference=reference
        )
        return manifest, folder

    return work


def find_evidence(shelf: Workspace, mask: Edit, model: str) -> tuple[Evaluation | None, Evaluation | None]:
    """Return the newest whole evaluation of a mask on a model, and the dense one on its prompts; None where there is none."""
    items = (i for i in shelf.items("evaluations") if i.model == model and edit_key(i.details) == mask.key)
    opened = (open_whole(item) for item in items)
    evidence = next((evaluation for evaluation in opened if evaluation is not None), None)
    dense = None if evidence is None else find_dense(shelf, model, evidence.prompts)
    return evidence, None if dense is None else open_whole(dense)
