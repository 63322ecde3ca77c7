"""Save values in the workspace and open them; each kind is written and opened by the module that owns it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import save_edit
from vlm_analysis.errors import PromptError, StrataError, WorkspaceError
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.scores import FOLDER_VERSION
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.workbench.details import STARRED, edit_key, is_dense
from vlm_analysis.workbench.kinds import KINDS, open_kept_prompts
from vlm_analysis.workbench.stale import KINDS as MEASURED, KNOWN, is_stale
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel


def keep(
    workspace: Workspace,
    kind: str,
    value: Any,
    name: str,
    more: Mapping[str, Any] = MappingProxyType({}),
    prompts: str | None = None,
) -> Item:
    """Save a value under the fingerprints of its model and prompts; `more` is added to the details of its kind."""
    row = KINDS[kind]
    about = row.about(value)
    model = getattr(about, "model", None)
    belongs = {} if model is None else {"model": model.fingerprint, "model_name": model.name}

    def write(path: Path) -> None:
        assert row.save is not None  # other kinds are only opened
        row.save(value, path)

    prompts = prompts or getattr(about, "prompts", None)
    details = {**row.details(value), **more, **(KNOWN if kind in MEASURED else {})}
    return workspace.save(kind, name, write, prompts=prompts, details=details, **belongs)


def keep_prompts(workspace: Workspace, prompts: PromptSet, name: str, *, any_name: bool = False) -> Item:
    """Save a prompt set; returns the item if the same prompts in the same groups and tasks are saved under this name (or any) already.

    A prompt whose picture is gone or has other pixels by now is set aside with the reason.

    Raises:
        PromptError: no prompt is left, or they cannot be written.
    """
    prompts = prompts.readable()
    saved = _saved_prompts(workspace, prompts, name, any_name=any_name)
    if saved is not None:
        return saved
    try:
        return keep(workspace, "prompts", prompts, name, prompts=prompts.fingerprint)
    except PromptError:
        left = prompts.readable(again=True)
        if left is prompts:
            raise
    saved = _saved_prompts(workspace, left, name, any_name=any_name)
    return saved or keep(workspace, "prompts", left, name, prompts=left.fingerprint)


def _saved_prompts(workspace: Workspace, prompts: PromptSet, name: str, *, any_name: bool) -> Item | None:
    for item in workspace.items("prompts"):
        if item.prompts == prompts.fingerprint and (any_name or item.name == name):
            saved: PromptSet | None = open_whole(item)
            if saved is not None and (saved.groups, saved.tasks) == (prompts.groups, prompts.tasks):
                return item
    return None


def keep_recording(workspace: Workspace, recording: Recording, name: str) -> Item:
    """Save a recording."""
    return keep(workspace, "recordings", recording, name)


def keep_mask(workspace: Workspace, mask: Edit, *, starred: bool = False) -> Item:
    """Save a mask under its name, with a star or without."""
    return keep(workspace, "masks", mask, mask.name or "unnamed mask", {STARRED: True} if starred else {})


def write_notes(workspace: Workspace, item: Item, notes: str) -> Item:
    """Write notes into the file of a saved mask and into what lists know of it.

    Lists know the beginning of long notes only: where the file's go on behind it, what follows stays behind the new ones.

    Raises:
        StrataError: the file is missing or damaged, or the folder cannot be written.
    """
    mask: Edit = open_item(item)
    shown = str(item.details.get("notes", ""))
    rest = mask.notes[len(shown) :] if shown and mask.notes.startswith(shown) else ""
    changed = replace(mask, notes=notes + rest)
    save_edit(changed, item.path)
    return workspace.note(item, notes=KINDS["masks"].details(changed)["notes"])


def keep_evaluation(workspace: Workspace, evaluation: Evaluation, name: str) -> Item:
    """Save an evaluation."""
    return keep(workspace, "evaluations", evaluation, name)


def keep_dense(shelf: Workspace, dense: Evaluation, name: str) -> None:
    """Save a dense evaluation unless a whole one with the same columns and prompts is saved; replaces any other."""
    item = find_dense(shelf, dense.model.fingerprint, dense.prompts)
    saved = None if item is None else open_whole(item)
    if (
        saved is not None
        and set(dense.by_prompt) <= set(saved.by_prompt)
        and set(dense.by_prompt["id"]) <= set(saved.by_prompt["id"])
    ):
        return
    keep_evaluation(shelf, dense, f"dense model on {name}")
    if item is not None:
        shelf.delete(item)


def find_dense(shelf: Workspace, model: str | None, prompts: str | None) -> Item | None:
    """Return the saved dense evaluation of a model on a prompt set, by their fingerprints."""
    items = (
        item
        for item in shelf.items("evaluations")
        if item.model == model and item.prompts == prompts and is_dense(item.details) and not is_stale(shelf, item)
    )
    return next(items, None)


def find_evidence(shelf: Workspace, mask: Edit, model: str) -> tuple[Evaluation | None, Evaluation | None]:
    """Return the newest whole evaluation of a mask on a model, and the dense one on its prompts; None if there is none."""
    items = (i for i in shelf.items("evaluations") if i.model == model and edit_key(i.details) == mask.key)
    whole = whole_items(item for item in items if not is_stale(shelf, item))
    evidence: Evaluation | None = next((evaluation for _, evaluation in whole), None)
    dense = None if evidence is None else find_dense(shelf, model, evidence.prompts)
    return evidence, None if dense is None else open_whole(dense)


def keep_sweep(workspace: Workspace, evaluations: Sequence[Evaluation], name: str, **details: Any) -> Item:
    """Save evaluations of many masks on one model and prompt set, in their order, as one item."""
    return keep(workspace, "sweeps", evaluations, name, details)


def keep_comparison(workspace: Workspace, comparison: Comparison, name: str, **parts: str) -> Item:
    """Save a comparison; `parts` are ids of items, by kind."""
    return keep(workspace, "comparisons", comparison, name, parts)


def keep_cost(workspace: Workspace, cost: Cost, name: str, prompts: str | None = None, **details: Any) -> Item:
    """Save a Cost, under the fingerprint of the prompts if there is one; `details` are added to those of its edit."""
    return keep(workspace, "costs", cost, name, details, prompts)


def unfinished_folder(shelf: Workspace, model: str, prompts: Item, options: Mapping[str, Any]) -> Path:
    """Return the folder of an unfinished recording's rows: one for each model, prompt set and choice of options."""
    identity = json.dumps([model, prompts.prompts, sorted(options.items())])
    return shelf.root / "unfinished" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def scores_folder(shelf: Workspace, loaded: LoadedModel, prompts: PromptSet) -> Path:
    """Return the folder of the scores of masks on a model and prompts; it is kept for good."""
    from vlm_analysis.evaluation.run.evaluate import batch_for
    from vlm_analysis.evaluation.run.sweep import score_header

    return scores_at(shelf, score_header(loaded, prompts, batch_for(loaded)))


def scores_at(shelf: Workspace, belongs: Mapping[str, Any]) -> Path:
    """Return the folder of scores by what they belong to (see `sweep.score_header`)."""
    identity = json.dumps([FOLDER_VERSION, belongs], sort_keys=True)
    return shelf.root / "scores" / hashlib.sha256(identity.encode()).hexdigest()[:16]


def is_whole(item: Item) -> bool:
    """Return whether the file behind a saved item can be opened."""
    return open_whole(item) is not None


def open_whole(item: Item) -> Any:
    """Return the value of `open_item`; None if the file is missing or damaged."""
    try:
        return open_item(item)
    except StrataError:
        return None


def whole_items(items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
    """Yield those of the items whose file can be opened, each with its value, in their order; a file is opened when it is asked for."""
    for item in items:
        value = open_whole(item)
        if value is not None:
            yield item, value


def _open_saved_prompts(item: Item) -> PromptSet:
    prompts = open_kept_prompts(item.path)
    if prompts.fingerprint != item.prompts:
        lost = "; ".join(f"row {problem.row}: {problem.message}" for problem in prompts.problems[:3])
        raise PromptError(
            f"The saved prompt set {item.name!r} is damaged: expected {item.details.get('n', '?')} prompts as they were saved, "
            f"got {len(prompts)} that differ. {lost} Save it again from its source."
        )
    return prompts


def open_item(item: Item) -> Any:
    """Return the PromptSet, Recording, Edit, Evaluation or Cost behind a saved item.

    Raises:
        StrataError: the file behind it is missing, damaged or another item's.
    """
    if item.kind == "prompts":
        return _open_saved_prompts(item)
    opener = KINDS[item.kind].open
    if opener is None:
        raise WorkspaceError(
            f"{item.name!r} cannot be opened here: expected no story of version 0.1. Open it on the Overview."
        )
    value: Any = opener(item.path)
    for part in value if item.kind == "sweeps" else [value]:
        _check_belongs(item, part)
    return value


def _check_belongs(item: Item, value: Any) -> None:
    """Check that the file belongs to the item, by what both say of model, prompts and edit."""
    about = (
        value if item.kind == "sweeps" else KINDS[item.kind].about(value)
    )  # each evaluation of a sweep is checked on its own
    edit = value if item.kind == "masks" else getattr(about, "edit", None)
    pairs = {
        "model": (item.model, getattr(about.model, "fingerprint", None)),
        "prompts": (item.prompts, getattr(about, "prompts", None)),
        "edit": (edit_key(item.details), edit.key if isinstance(edit, Edit) else None),
    }
    for what, (expected, got) in pairs.items():
        if expected is not None and got is not None and expected != got:
            raise WorkspaceError(
                f"The file of {item.name!r} is damaged: expected the {what} it was saved with, got other {what}. "
                "Restore its file, or make it again."
            )
