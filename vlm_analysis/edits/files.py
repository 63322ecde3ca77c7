"""Mask files: a prune mask as JSON, with its model and where it came from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import PruneMask, is_whole
from vlm_analysis.errors import MaskError
from vlm_analysis.files import write_atomically
from vlm_analysis.model_info import ModelInfo

SCHEMA_VERSION = 1


def mask_to_json(mask: PruneMask) -> str:
    """Return the mask file's text: schema version, numbering from 0, layers, model and provenance.

    The model is told by `source` (hub id, or the folder's name without the way to it), `revision` (of a hub id), `config_hash`
    (see `ModelInfo`), `fingerprint` and `n_layers`; whatever is not known is null.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "strata-mask",
        "numbering": 0,
        "n_layers": mask.n_layers,
        "dropped": list(mask.dropped),
        "name": mask.name,
        "notes": mask.notes,
        "model": None if mask.model is None else _model_to_json(mask.model),
        "provenance": mask.provenance,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, default=plain) + "\n"


def _model_to_json(model: ModelInfo) -> dict[str, Any]:
    return {
        "name": model.name,
        "source": model.name,
        "revision": model.revision,
        "config_hash": model.config_hash,
        "fingerprint": model.fingerprint,
        "n_layers": model.n_layers,
    }


def plain(value: Any) -> Any:
    """Return a numpy number as Python's, for `json.dumps(default=plain)`."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def save_mask(mask: PruneMask, path: Path) -> Path:
    """Write the mask as JSON; the file appears whole or not at all. Returns the path."""
    return write_atomically(Path(path), lambda part: part.write_text(mask_to_json(mask), "utf-8") and None)


def open_mask(path: Path) -> PruneMask:
    """Open a mask written by `save_mask`.

    Raises:
        MaskError: the file is missing, not JSON, of another kind or version, or names layers that do not exist.
    """
    path = Path(path)
    try:
        return mask_from_json(path.read_text("utf-8"), path.name)
    except (OSError, ValueError) as error:
        raise MaskError(f"No mask can be read at {path}: {error}.") from error


def mask_from_json(text: str, name: str = "The text") -> PruneMask:
    """Return the mask of a mask file's text (see `open_mask`); one that declares `numbering` 1 is converted, once."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(content, ensure_ascii=False).encode()  # half a character could never be written again
    except (ValueError, RecursionError) as error:
        raise MaskError(f"{name} is not a mask: expected JSON, got an error at {error}.") from error
    if not isinstance(content, dict) or content.get("kind") != "strata-mask":
        raise MaskError(f"{name} is not a mask: expected JSON with kind 'strata-mask'.")
    first = content.get("numbering")
    if content.get("schema_version") != SCHEMA_VERSION or not is_whole(first) or first not in (0, 1):
        got = f"version {content.get('schema_version')!r}, numbering {first!r}"
        raise MaskError(
            f"{name} cannot be read: expected schema version {SCHEMA_VERSION} and numbering 0 or 1, got {got}. Update Strata."
        )
    dropped, model, provenance = content.get("dropped"), content.get("model"), content.get("provenance")
    if not isinstance(dropped, list):
        raise MaskError(f"{name} is not a mask: expected a list of layers in 'dropped', got {dropped!r}.")
    return PruneMask(
        content.get("n_layers"),  # type: ignore[arg-type]  # checked by PruneMask
        tuple(layer - first if is_whole(layer) else layer for layer in dropped),
        name=str(content.get("name") or ""),
        notes=str(content.get("notes") or ""),
        model=_model_from_json(model, name),
        provenance=provenance if isinstance(provenance, dict) else {},
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _model_from_json(model: Any, name: str) -> ModelInfo | None:
    if model is None:
        return None
    try:
        known = {key: str(model[key]) for key in ("revision", "config_hash") if model.get(key) is not None}
        return ModelInfo(str(model["name"]), str(model["fingerprint"]), int(model["n_layers"]), **known)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise MaskError(f"{name} is not a mask: its 'model' lacks {error}.") from error
