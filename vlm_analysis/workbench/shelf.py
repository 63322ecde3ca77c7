"""What the workspace keeps, as values: each kind is written and opened by the module that owns it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import open_edit, save_edit
from vlm_analysis.errors import EvaluationError, PromptError, StrataError, WorkspaceError
from vlm_analysis.evaluation.cost import Cost, open_cost, save_cost
from vlm_analysis.evaluation.evaluation import Evaluation, open_evaluation, save_evaluation
from vlm_analysis.evaluation.scores import FOLDER_VERSION
from vlm_analysis.prompts.prompts import PromptSet, open_prompts, write_prompts
from vlm_analysis.recording.recording import Recording, open_recording, save_recording
from vlm_analysis.selection.compared.comparison import Comparison, open_comparison, save_comparison
from vlm_analysis.workbench.details import domain_details, edit_details, edit_key, is_dense
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel


def keep_prompts(workspace: Workspace, prompts: PromptSet, name: str) -> Item:
    """Save a prompt set; the same prompts saved before under this name come back as that item."""
    for item in workspace.items("prompts"):
        if item.prompts == prompts.fingerprint and item.name == name and is_whole(item):
            return item
    details = {"n": len(prompts), **domain_details(prompts.domains)}

    def write(path: Path) -> None:
        write_prompts(prompts, path)

    return workspace.save("prompts", name, write, prompts=prompts.fingerprint, details=details)


def keep_recording(workspace: Workspace, recording: Recording, name: str) -> Item:
    """Save a recording under the fingerprints of its model and prompts."""
    details = {"n_layers": recording.n_layers, "n": recording.n_prompts, **domain_details(recording.domain_names)}

    def write(path: Path) -> None:
        save_recording(recording, path)

    belongs = {"model": recording.model.fingerprint, "model_name": recording.model.name, "prompts": recording.prompts}
    return workspace.save("recordings", name, write, details=details, **belongs)


def keep_mask(workspace: Workspace, mask: Edit) -> Item:
    """Save a mask under its own name and the fingerprint of the model it was made for."""
    details = edit_details(mask) | {"notes": mask.notes[:500]}

    def write(path: Path) -> None:
        save_edit(mask, path)

    model = mask.model
    belongs = {} if model is None else {"model": model.fingerprint, "model_name": model.name}
    return workspace.save("masks", mask.name or "unnamed mask", write, details=details, **belongs)


def keep_evaluation(workspace: Workspace, evaluation: Evaluation, name: str) -> Item:
    """Save an evaluation under the fingerprints of its model and prompts."""
    details = edit_details(evaluation.edit)

    def write(path: Path) -> None:
        save_evaluation(evaluation, path)

    belongs = {
        "model": evaluation.model.fingerprint,
        "model_name": evaluation.model.name,
        "prompts": evaluation.prompts,
    }
    return workspace.save("evaluations", name, write, details=details, **belongs)


def keep_dense(shelf: Workspace, dense: Evaluation, name: str) -> None:
    """Save a dense evaluation unless a whole one with as much in it is there; any other makes room."""
    item = find_dense(shelf, dense.model.fingerprint, dense.prompts)
    there = None if item is None else open_whole(item)
    if there is not None and set(dense.by_prompt) <= set(there.by_prompt):
        return
    keep_evaluation(shelf, dense, f"dense model on {name}")
    if item is not None:
        shelf.delete(item)


def find_dense(shelf: Workspace, model: str | None, prompts: str | None) -> Item | None:
    """Return the saved dense evaluation of a model on a prompt set, by their fingerprints."""
    found = (
        item
        for item in shelf.items("evaluations")
        if item.model == model and item.prompts == prompts and is_dense(item.details)
    )
    return next(found, None)


def find_evidence(shelf: Workspace, mask: Edit, model: str) -> tuple[Evaluation | None, Evaluation | None]:
    """Return the newest whole evaluation of a mask on a model, and the dense one on its prompts; None where there is none."""
    items = (i for i in shelf.items("evaluations") if i.model == model and edit_key(i.details) == mask.key)
    opened = (open_whole(item) for item in items)
    evidence = next((evaluation for evaluation in opened if evaluation is not None), None)
    dense = None if evidence is None else find_dense(shelf, model, evidence.prompts)
    return evidence, None if dense is None else open_whole(dense)


def keep_sweep(workspace: Workspace, evaluations: Sequence[Evaluation], name: str, **details: Any) -> Item:
    """Save evaluations of many masks on one model and prompt set, in their order, as one item."""
    first = evaluations[0]

    def write(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for number, evaluation in enumerate(evaluations):
            save_evaluation(evaluation, folder / f"{number:05d}.json")

    belongs = {"model": first.model.fingerprint, "model_name": first.model.name, "prompts": first.prompts}
    return workspace.save("sweeps", name, write, details={"n": len(evaluations), **details}, **belongs)


def keep_comparison(workspace: Workspace, comparison: Comparison, name: str, **parts: str) -> Item:
    """Save a comparison under the fingerprints of its model and of the prompts it reports on; `parts` are ids of items, by kind."""
    model = comparison.dense.model
    counts = {"n_masks": len(comparison.masks), "n": len(comparison.dense.by_prompt), "n_layers": model.n_layers}
    details = {**counts, **parts}

    def write(path: Path) -> None:
        save_comparison(comparison, path)

    belongs = {"model": model.fingerprint, "model_name": model.name, "prompts": comparison.dense.prompts}
    return workspace.save("comparisons", name, write, details=details, **belongs)


def open_sweep(folder: Path) -> list[Evaluation]:
    """Return the evaluations of a saved sweep, in their order.

    Raises:
        EvaluationError: there is none, or one is damaged.
    """
    found = [open_evaluation(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        raise EvaluationError(f"No evaluations lie in {folder.name}. Measure again.")
    return found


def keep_cost(workspace: Workspace, cost: Cost, name: str, prompts: str | None = None) -> Item:
    """Save a Cost under the fingerprint of its model, and that of the prompts where given."""
    details = edit_details(cost.edit)

    def write(path: Path) -> None:
        save_cost(cost, path)

    belongs = {"model": cost.model.fingerprint, "model_name": cost.model.name}
    return workspace.save("costs", name, write, prompts=prompts, details=details, **belongs)


def unfinished_folder(shelf: Workspace, model: str, prompts: Item, options: Mapping[str, Any]) -> Path:
    """Return where the rows of a recording lie until it is finished: its own for each model, prompt set and choice of options."""
    told = json.dumps([model, prompts.prompts, sorted(options.items())])
    return shelf.root / "unfinished" / hashlib.sha256(told.encode()).hexdigest()[:16]


def scores_folder(shelf: Workspace, loaded: LoadedModel, prompts: PromptSet) -> Path:
    """Return where scores of masks are kept for good: what was measured once on a model and prompts is not measured again."""
    from vlm_analysis.evaluation.run.evaluate import batch_for
    from vlm_analysis.evaluation.run.sweep import score_header

    told = json.dumps([FOLDER_VERSION, score_header(loaded, prompts, batch_for(loaded))], sort_keys=True)
    return shelf.root / "scores" / hashlib.sha256(told.encode()).hexdigest()[:16]


def is_whole(item: Item) -> bool:
    """Return whether the file behind a saved item can be opened."""
    return open_whole(item) is not None


def open_whole(item: Item) -> Any:
    """Return what `open_item` does; None where the file behind the item is missing or damaged."""
    try:
        return open_item(item)
    except StrataError:
        return None


def _open_saved_prompts(item: Item) -> PromptSet:
    prompts = open_prompts(item.path)
    if prompts.fingerprint != item.prompts:
        lost = "; ".join(f"row {problem.row}: {problem.message}" for problem in prompts.problems[:3])
        raise PromptError(
            f"The saved prompt set {item.name!r} is damaged: expected {item.details.get('n', '?')} prompts as they were saved, "
            f"got {len(prompts)} that differ. {lost} Save it again from its source."
        )
    return prompts


_OPENERS = {
    "recordings": open_recording,
    "masks": open_edit,
    "evaluations": open_evaluation,
    "sweeps": open_sweep,
    "comparisons": open_comparison,
    "costs": open_cost,
}


def open_item(item: Item) -> Any:
    """Return the PromptSet, Recording, Edit, Evaluation or Cost behind a saved item.

    Raises:
        StrataError: the file behind it is missing, damaged or another item's.
    """
    if item.kind == "prompts":
        return _open_saved_prompts(item)
    made: Any = _OPENERS[item.kind](item.path)
    for part in made if item.kind == "sweeps" else [made]:
        _check_belongs(item, part)
    return made


def _check_belongs(item: Item, made: Any) -> None:
    """Refuse a file that was put in the place of another's, as far as it and the sidecar tell."""
    about = made.dense if item.kind == "comparisons" else made
    edit = made if item.kind == "masks" else getattr(about, "edit", None)
    told = {
        "model": (item.model, getattr(about.model, "fingerprint", None)),
        "prompts": (item.prompts, getattr(about, "prompts", None)),
        "edit": (edit_key(item.details), None if edit is None else edit.key),
    }
    for what, (expected, got) in told.items():
        if expected is not None and got is not None and expected != got:
            raise WorkspaceError(
                f"The file of {item.name!r} is damaged: expected the {what} it was saved with, got other {what}. "
                "Put its own file back, or make it again."
            )
