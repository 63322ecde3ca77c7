"""The job that evaluates the model without each layer, and the measuring of many masks it shares with the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.work import Work, dense_evaluation
from vlm_analysis.workbench.shelf import keep_sweep, open_item, open_whole, scores_folder
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

LEAVE_ONE_OUT = "leave-one-out"


def damage_work(prompts: Item) -> Work:
    """Evaluate the loaded model without each layer that may go, one at a time; keeps the sweep, returns how many layers it has.

    What was evaluated is kept as it comes: a job that was cancelled or broke off is taken up where it stopped.
    """
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> int:
        from vlm_analysis.edits.apply import why_not

        loaded = slot.expected(model)
        measured = measurer(slot, shelf, loaded, prompts, progress)
        masks = [PruneMask(loaded.n_layers, (layer,)) for layer in range(loaded.n_layers)]
        found = measured([Edit(loaded.n_layers), *(mask for mask in masks if not why_not(loaded.model, mask))])
        keep_sweep(shelf, found, f"each layer left out on {prompts.name}", sweep=LEAVE_ONE_OUT)
        return len(found) - 1

    return work


def find_damage(model: str | None, prompts: str | None) -> list[Evaluation]:
    """Return the newest leave-one-out evaluations of a model on a prompt set, the dense one first; none where not measured."""
    found = (
        item
        for item in workspace().items("sweeps")
        if item.model == model and item.prompts == prompts and item.details.get("sweep") == LEAVE_ONE_OUT
    )
    opened = (open_whole(item) for item in found)
    return next((evaluations for evaluations in opened if evaluations is not None), [])


def measurer(
    slot: ModelSlot, shelf: Workspace, loaded: LoadedModel, prompts: Item, progress: Progress
) -> Callable[[Sequence[Edit]], list[Evaluation]]:
    """Return what evaluates masks on the prompts: inputs are prepared once, and scores are kept for good as they come."""
    from vlm_analysis.evaluation.run.evaluate import batch_for, evaluation_of, prepare
    from vlm_analysis.evaluation.run.sweep import open_scores, sweep_prepared

    prompt_set = open_item(prompts)
    dense = dense_evaluation(slot, shelf, prompt_set, prompts.name, progress)
    ready = prepare(loaded, prompt_set, dense, on_progress=lambda *_: progress(0, 1, "preparing the prompts"))
    batch = batch_for(loaded)
    store = open_scores(ready, batch, scores_folder(shelf, loaded, prompt_set))

    def measured(edits: Sequence[Edit]) -> list[Evaluation]:
        changed = [edit for edit in edits if not edit.is_dense]
        log_probs = dense.dense_log_probs
        sweep_prepared(ready, changed, log_probs, store=store, batch_size=batch, on_progress=progress)
        return [dense if edit.is_dense else evaluation_of(ready, edit, store.of(edit.key)) for edit in edits]

    return measured
