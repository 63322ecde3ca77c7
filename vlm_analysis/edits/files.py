"""Edit files: an Edit as JSON, with its model and where it came from. A prune mask has a form of its own, that of version 0.1."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit, PruneMask, changes_from_json, changes_to_json, only_mask
from vlm_analysis.edits.foreign.recognise import MOST_BYTES, foreign_mask
from vlm_analysis.edits.learnt import ENDING, with_tensors, write_tensors
from vlm_analysis.errors import EditError, MaskError
from vlm_analysis.files import read_bytes, write_atomically
from vlm_analysis.guard.schema import fields, maybe, table, text, whole
from vlm_analysis.model_info import MOST_LAYERS, ModelInfo
from vlm_analysis.saved import Form, plain

MASK, EDIT = "strata-mask", "strata-edit"
_MODEL = fields(
    {"name": text(1000), "fingerprint": text(200), "n_layers": whole(1, MOST_LAYERS)},
    {"revision": maybe(text(1000)), "config_hash": maybe(text(200))},
)
SCHEMA = fields(
    {}, {"name": maybe(text()), "notes": maybe(text()), "model": maybe(_MODEL), "provenance": maybe(table())}
)
FORM = Form((MASK, EDIT), 1, "mask", "Save it again.", MaskError, SCHEMA)


def edit_to_json(edit: Edit) -> str:
    """Return the file's text (see `edit_content`)."""
    return json.dumps(edit_content(edit), indent=2, ensure_ascii=False, default=plain) + "\n"


def edit_content(edit: Edit) -> dict[str, Any]:
    """Return what the file says: schema version, numbering from 0, what is done, model and provenance.

    An edit that is a prune mask has the kind `strata-mask` and its layers in `dropped`, as version 0.1 writes and opens it; any other
    has the kind `strata-edit` and its `changes`. The model is identified by `source` (hub id, or the folder's name without the way to it),
    `revision` (of a hub id), `config_hash` (see `ModelInfo`), `fingerprint` and `n_layers`; whatever is not known is null.
    """
    what = {"dropped": list(edit.dropped)} if edit.is_mask else {"changes": changes_to_json(edit)}
    payload = {
        "kind": MASK if edit.is_mask else EDIT,
        "numbering": 0,
        "n_layers": edit.n_layers,
        **what,
        "name": edit.name,
        "notes": edit.notes,
        "model": None if edit.model is None else _model_to_json(edit.model),
        "provenance": edit.provenance,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return FORM.content(payload)


def _model_to_json(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "source": model.name,
        "revision": model.revision,
        "config_hash": model.config_hash,
        "fingerprint": model.fingerprint,
        "n_layers": model.n_layers,
    }


def save_edit(edit: Edit, path: Path) -> Path:
    """Write the edit as JSON; the file appears whole or not at all. Returns the path.

    What was learnt is written before, into a safetensors file of the same name beside it: `repaired.safetensors` beside `repaired.json`.

    Raises:
        EditError: it is no edit, its learnt tensors are not here, or the file would have their file's name.
    """
    if not isinstance(edit, Edit):
        raise EditError(f"There is no edit to save: expected an Edit, got a {type(edit).__name__}.")
    text, path = edit_to_json(edit), Path(path)
    if path.suffix == ENDING:
        raise EditError(
            f"The edit cannot be saved as {path.name}: expected a name for JSON, got that of its tensors. Name it {path.stem}.json."
        )
    write_tensors(edit.changes, path.with_suffix(ENDING))
    return write_atomically(Path(path), lambda part: part.write_text(text, "utf-8") and None)


def save_mask(mask: Edit, path: Path) -> Path:
    """Write a prune mask as JSON; the file appears whole or not at all. Returns the path.

    Raises:
        MaskError: the edit does more than drop layers.
    """
    return save_edit(only_mask(mask, "It cannot be saved as a mask"), path)


def open_edit(path: Path, *, n_layers: int | None = None, model: ModelInfo | None = None) -> Edit:
    """Open an edit written by `save_edit` or `save_mask`, masks of version 0.1 included, or a mask of another tool.

    Of other tools these are known by their fields: lists of optipfair, the flag `--prune-layers` of llama.cpp, configurations of
    Puzzletron and LLM-Drop, and histories of Torch-Pruning that take MLP neurons. What Strata has no change for is refused with the reason.

    Learnt tensors are read from the safetensors file of the same name beside it, and checked against their hash.

    Args:
        path: of the file.
        n_layers: decoder layers of the unpruned model, for files that do not say it; Strata's own and configurations do.
        model: that model (`loaded.info`), for histories of Torch-Pruning, which need its widths too.

    Raises:
        EditError: the file is missing, of no known form, of another kind or version, or names layers that do not exist; or
            its tensors are missing or others.
    """
    path = Path(path)
    try:
        text = read_bytes(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        edit = FORM.open(path, _edit_of)  # says what is wrong, or opens a longer edit
    else:
        edit = edit_from_json(text, path.name, n_layers=n_layers, model=model)
    return with_learnt(edit, path)


def with_learnt(edit: Edit, path: Path) -> Edit:
    """Return an edit whose file is at `path`, with what it learnt from the file beside that.

    Raises:
        EditError: tensors are missing there, or others.
    """
    return edit if edit.is_mask else replace(edit, changes=with_tensors(edit.changes, path.with_suffix(ENDING)))


def open_mask(path: Path, *, n_layers: int | None = None) -> Edit:
    """Open a prune mask written by `save_mask`, by version 0.1 or by another tool (see `open_edit`).

    Raises:
        MaskError: as `open_edit` raises, or the edit does more than drop layers.
    """
    return only_mask(open_edit(path, n_layers=n_layers), f"{Path(path).name} is no mask")


def edit_from_json(
    text: str, name: str = "The text", *, n_layers: int | None = None, model: ModelInfo | None = None
) -> Edit:
    """Return the edit of a file's text (see `open_edit`)."""
    mask = foreign_mask(text, name, n_layers, model)
    return FORM.read(text, name, _edit_of) if mask is None else mask


def edit_of(content: Any) -> Edit:
    """Return the edit of a content made by `edit_content`, from another file (see `Form.part`)."""
    return FORM.part(content, _edit_of, "The mask in it")


def edit_for(content: Any, model: ModelInfo) -> Edit:
    """Return the edit of a content, as `edit_of` does; raises ValueError where it is of another number of layers than the model."""
    edit = edit_of(content)
    if edit.n_layers != model.n_layers:
        raise ValueError(f"expected an edit of its model's {model.n_layers} layers, got one of {edit.n_layers}")
    return edit


def _edit_of(content: dict[str, Any]) -> Edit:
    """Return the edit; a mask that declares `numbering` 1 is converted, once."""
    first, is_mask = content.get("numbering"), content["kind"] == MASK
    if not is_whole(first) or first not in ((0, 1) if is_mask else (0,)):
        raise MaskError(
            f"The mask cannot be read: expected numbering {'0 or 1' if is_mask else '0'}, got {first!r}. Update Strata."
        )
    model = content.get("model")
    if model is not None and model["n_layers"] != content.get("n_layers"):
        raise ValueError(
            f"expected a mask of its model's {model['n_layers']} layers, got one of {content.get('n_layers')!r}"
        )
    about: dict[str, Any] = {
        "name": content.get("name") or "",
        "notes": content.get("notes") or "",
        "model": None if model is None else _model_from_json(model),
        "provenance": content.get("provenance") or {},
    }
    if not is_mask:
        return Edit(content.get("n_layers"), changes_from_json(content.get("changes")), **about)  # type: ignore[arg-type]
    dropped = content.get("dropped")
    if not isinstance(dropped, list):
        raise MaskError(f"The mask is damaged: expected a list of layers in 'dropped', got {dropped!r}. {FORM.advice}")
    layers = tuple(layer - first if is_whole(layer) else layer for layer in dropped)
    return PruneMask(content.get("n_layers"), layers, **about)  # type: ignore[arg-type]  # checked by Edit


def _model_from_json(model: dict[str, Any]) -> ModelInfo:
    known = ("name", "fingerprint", "n_layers", "revision", "config_hash")
    return ModelInfo(**{key: model[key] for key in known if model.get(key) is not None})
