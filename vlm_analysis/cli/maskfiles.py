"""What the command line says of masks, the tool whose file was opened and dropped layers that should stay, and how it keeps them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.cli.base import warn
from vlm_analysis.errors import short

if TYPE_CHECKING:
    from vlm_analysis.edits.edit import Edit
    from vlm_analysis.model_info import Locks, ModelInfo
    from vlm_analysis.workbench.workspace import Workspace


def tool_words(edit: Edit, path: Path) -> str:
    """Return what a file was read as, such as "optipfair's list"; "" for a file of Strata's own."""
    from vlm_analysis.edits.foreign.lists import FLAGS
    from vlm_analysis.saved import kind_in

    tool = edit.provenance.get("opened_from")
    if tool is None or kind_in(path):
        return ""
    return "a CSV of layers" if tool == "CSV" else f"{tool}'s {'list' if tool in FLAGS.values() else 'file'}"


def tell_locks(edit: Edit, model: ModelInfo) -> None:
    """Warn in one line of dropped layers that should stay, of the decoder or the vision encoder, with the reasons."""
    from vlm_analysis.edits.kinds.tower import tower_dropped

    _tell("Layers", model.locks, edit.gone)
    if model.tower is not None:
        _tell("Layers of the vision encoder", model.tower.locks, tower_dropped(edit.changes))


def _tell(what: str, locks: Locks, gone: Collection[int]) -> None:
    from vlm_analysis.words import by_reason, layers as layer_words

    if of_reason := by_reason({layer: reason for layer, reason in locks.reasons.items() if layer in gone}):
        told = "; ".join(f"{layer_words(layers)} ({short(reason)})" for reason, layers in of_reason.items())
        warn(f"{what} that should stay are dropped: {told}")


def keep_once(shelf: Workspace, edit: Edit) -> Any:
    """Save a mask unless the same one is saved under its name already; return its Item."""
    from vlm_analysis.workbench.details import edit_key
    from vlm_analysis.workbench.shelf import is_whole, keep_mask
    from vlm_analysis.workbench.workspace import clean_name

    owner = None if edit.model is None else edit.model.fingerprint
    identity = clean_name(edit.name), owner, edit.key, edit.notes[:500]
    for item in shelf.items("masks"):
        same = (item.name, item.model, edit_key(item.details), item.details.get("notes", "")) == identity
        if same and is_whole(item):
            return item
    return keep_mask(shelf, edit)


def mask_forms(edit: Edit, config: Path | None) -> dict[str, Callable[[Path], object]]:
    """Return by ending what writes an edit as a file; `config` is the dense model's config.json, for Puzzletron."""
    from vlm_analysis.edits.files import edit_to_json
    from vlm_analysis.edits.foreign.lists import mask_to_llama_cpp, mask_to_optipfair
    from vlm_analysis.edits.foreign.llm_drop import edit_to_llm_drop
    from vlm_analysis.edits.foreign.puzzletron import mask_to_puzzletron
    from vlm_analysis.edits.foreign.skipping import edit_to_fastv, edit_to_shortv, edit_to_vtw
    from vlm_analysis.edits.foreign.torch_pruning import edit_to_torch_pruning
    from vlm_analysis.export.dialects import mask_to_csv, mask_to_mergekit

    texts: dict[str, Callable[[], str]] = {
        ".json": lambda: edit_to_json(edit),
        ".yaml": lambda: mask_to_mergekit(edit),
        ".csv": lambda: mask_to_csv(edit),
        ".optipfair.json": lambda: mask_to_optipfair(edit),
        ".txt": lambda: mask_to_llama_cpp(edit),
        ".puzzletron.json": lambda: mask_to_puzzletron(edit, config),
        ".llm-drop.json": lambda: edit_to_llm_drop(edit),
        ".torch-pruning.json": lambda: edit_to_torch_pruning(edit),
        ".shortv.txt": lambda: edit_to_shortv(edit),
        ".vtw.txt": lambda: edit_to_vtw(edit),
        ".fastv.txt": lambda: edit_to_fastv(edit),
    }
    return {ending: functools.partial(_write, text) for ending, text in texts.items()}


def _write(text: Callable[[], str], path: Path) -> None:
    path.write_text(text(), "utf-8")
