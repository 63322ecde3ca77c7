"""The jobs that pages start: each is one library call on the process-wide model, its result kept in the workspace.

A function here gathers what the job needs while the page runs and returns the work; the work itself never touches
Streamlit's session and imports torch only when it runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlm_analysis.evaluation import Evaluation, open_evaluation, save_evaluation
from vlm_analysis.masks import PruneMask
from vlm_analysis.progress import Progress
from vlm_analysis.prompts import Prompt, PromptSet
from vlm_analysis.stored import (
    is_whole,
    keep_evaluation,
    keep_mask,
    keep_recording,
    keep_sweep,
    open_item,
)
from vlm_analysis.ui.session import ModelSlot, model_slot, runner, workspace
from vlm_analysis.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.fit import FitEstimate
    from vlm_analysis.latency import Latency
    from vlm_analysis.models import LoadedModel

LEAVE_ONE_OUT = "leave-one-out"
SWEEP_BATCH = 32
SWEEP_MASKS = 64  # masks of one sweep: what a kill can lose
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


def damage_work(prompts: Item) -> Work:
    """Evaluate the loaded model without each layer that may go, one at a time; keeps the sweep, returns how many layers it has.

    What was evaluated is kept as it comes: a job that was cancelled or broke off is taken up where it stopped.
    """
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint
    folder = unfinished_folder(shelf, model, prompts, {"sweep": LEAVE_ONE_OUT})

    def work(progress: Progress) -> int:
        from vlm_analysis.prune import why_not

        loaded = slot.expected(model)
        measured = _measurer(slot, shelf, loaded, prompts, folder, progress)
        masks = [PruneMask(loaded.n_layers, (layer,)) for layer in range(loaded.n_layers)]
        found = measured([PruneMask(loaded.n_layers), *(mask for mask in masks if not why_not(loaded.model, mask))])
        keep_sweep(shelf, found, f"each layer left out on {prompts.name}", sweep=LEAVE_ONE_OUT)
        shutil.rmtree(folder, ignore_errors=True)
        return len(found) - 1

    return work


def find_damage(model: str | None, prompts: str | None) -> list[Evaluation]:
    """Return the newest leave-one-out evaluations of a model on a prompt set, the dense one first; none where not measured."""
    found = (
        item
        for item in workspace().items("sweeps")
        if item.model == model and item.prompts == prompts and item.details.get("sweep") == LEAVE_ONE_OUT
    )
    item = next((item for item in found if is_whole(item)), None)
    return [] if item is None else open_item(item)


def greedy_work(prompts: Item, budget: int, score: str, target: str | None, unprotect: bool = False) -> Work:
    """Drop the layer that harms least, measure again, and so on; returns the Item of the mask."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint
    folder = unfinished_folder(shelf, model, prompts, {"sweep": "greedy"})

    def work(progress: Progress) -> Item:
        from vlm_analysis.masks import greedy

        loaded = slot.expected(model)
        measured = _measurer(slot, shelf, loaded, prompts, folder, progress)
        kept = () if unprotect else loaded.protected_layers
        mask = greedy(
            measured,
            budget,
            n_layers=loaded.n_layers,
            protected=kept,
            locked=loaded.locked_layers,
            score=score,
            target=target,
        )
        item = keep_mask(shelf, replace(mask, name=f"greedy on {prompts.name}, {budget} layers", model=loaded.info))
        shutil.rmtree(folder, ignore_errors=True)
        return item

    return work


def _measurer(
    slot: ModelSlot, shelf: Workspace, loaded: LoadedModel, prompts: Item, folder: Path, progress: Progress
) -> Callable[[Sequence[PruneMask]], list[Evaluation]]:
    """Return what evaluates masks on the prompts: inputs are prepared once, and evaluations are kept in `folder` as they come."""
    from vlm_analysis.evaluate import prepare
    from vlm_analysis.sweep import sweep_prepared

    prompt_set = open_item(prompts)
    dense = dense_evaluation(slot, shelf, prompt_set, prompts.name, progress)
    ready = prepare(loaded, prompt_set, dense, on_progress=lambda *_: progress(0, 1, "preparing the prompts"))

    def place(mask: PruneMask) -> Path:
        return folder / f"{'-'.join(map(str, mask.dropped)) or 'dense'}.json"

    def measured(masks: Sequence[PruneMask]) -> list[Evaluation]:
        missing = [mask for mask in masks if mask.budget and not place(mask).exists()]
        for first in range(0, len(missing), SWEEP_MASKS):
            part = missing[first : first + SWEEP_MASKS]
            told = partial(_of_all, progress, len(masks) - len(missing) + first, len(part), len(masks))
            for evaluation in sweep_prepared(
                ready, part, dense.dense_log_probs, batch_size=SWEEP_BATCH, on_progress=told
            ):
                save_evaluation(evaluation, place(evaluation.mask))
        return [open_evaluation(place(mask)) if mask.budget else dense for mask in masks]

    return measured


def _of_all(progress: Progress, before: int, part: int, total: int, done: int, of: int, message: str) -> None:
    """Report masks of a whole measurement from the progress of one of its parts."""
    now = min(total, before + (part * done // of if of else 0))
    progress(now, total, f"mask {min(now + 1, total)} of {total}")


def latency_work(prompts: Item) -> Work:
    """Time each layer of the loaded model on some of the prompts; the slot keeps the Latency, which comes back too."""
    slot, model = model_slot(), model_slot().fingerprint

    def work(progress: Progress) -> Latency:
        from vlm_analysis.latency import measure_latency

        slot.latency = measure_latency(slot.expected(model), open_item(prompts), on_progress=progress)
        return slot.latency

    return work


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
