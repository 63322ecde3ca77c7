"""Sidecars: what lists know of a saved item without opening it, beside its file as `<id>.item.json`."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm_analysis.errors import WorkspaceError, short
from vlm_analysis.files import read_bytes
from vlm_analysis.words import brief
from vlm_analysis.workbench import kinds
from vlm_analysis.workbench.details import check_details, is_mask
from vlm_analysis.workbench.ids import is_id

KINDS = {kind: row.ending for kind, row in kinds.KINDS.items()}
"""What a workspace keeps, and the ending of its files; the empty ending means a folder."""

NAME_LIMIT = 120
SIDECAR_LIMIT = 256 * 1024  # bytes; sidecars are read in bulk, so they stay small

_SCHEMA = 1
ENDING = ".item.json"
_STORED: dict[str, tuple[type, ...]] = {  # in a sidecar, beside kind and id
    "name": (str,),
    "created": (str,),
    "model": (str, type(None)),
    "prompts": (str, type(None)),
    "model_name": (str,),
    "details": (dict,),
}
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # would let one name pull apart the text around it


@dataclass(frozen=True)
class Item:
    """A saved item, as its sidecar describes it; `path` is its file or folder.

    `created` is ISO 8601 in UTC. `model` and `prompts` are fingerprints, None if the item depends on neither.
    """

    kind: str
    id: str
    name: str
    created: str
    path: Path
    model: str | None = None
    prompts: str | None = None
    model_name: str = ""
    details: dict[str, Any] = field(default_factory=dict, hash=False)

    @cached_property
    def is_mask(self) -> bool:
        """Return whether it belongs to an edit that only drops layers."""
        return is_mask(self.details)

    def __repr__(self) -> str:
        return brief(self, self.kind, repr(self.name), self.id, *([self.model_name] if self.model_name else []))


def clean_name(name: str) -> str:
    """Return the name for the screen: one line without control characters, 1 to 120 characters."""
    if name.isascii() and name.isprintable():  # nearly all are, and lists hold thousands
        return " ".join(name.split())[:NAME_LIMIT].strip() or "untitled"
    plain = (" " if c.isspace() else c for c in _REORDERING.sub("", name))  # before the other controls go
    visible = "".join(c for c in plain if unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(visible.split())[:NAME_LIMIT].strip() or "untitled"


def plain_details(details: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(details), parse_constant=lambda _: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"{what} failed: expected plain JSON details, got: {short(error)}. Simplify them."
        ) from error
    return plain


def sidecar_text(item: Item) -> str:
    fields = {key: getattr(item, key) for key in ("kind", "id", *_STORED)}
    text = json.dumps({"schema_version": _SCHEMA} | fields, indent=1)  # ASCII: a character is a byte
    if len(text) > SIDECAR_LIMIT:
        raise WorkspaceError(
            f"Saving '{item.name}' failed: expected details of at most {SIDECAR_LIMIT} characters, got {len(text)}. "
            "Put them into the saved file instead."
        )
    return text


def open_sidecar(folder: Path, kind: str, item_id: str) -> Item:
    """Read one sidecar.

    Raises:
        FileNotFoundError: There is none.
        WorkspaceError: It cannot be read, is cut short, or does not describe an item of this kind and id.
    """
    path = folder / (item_id + ENDING)
    try:
        return _parse(json.loads(read_bytes(path, SIDECAR_LIMIT)), folder, kind, item_id)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"Reading {path} failed: expected the description of a saved item, got a damaged file ({short(error)}). "
            "Restore the file or delete the item; nothing else is affected."
        ) from error


def _parse(value: Any, folder: Path, kind: str, item_id: str) -> Item:
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if value.get("schema_version") != _SCHEMA:
        raise ValueError(f"schema_version {value.get('schema_version')!r} instead of {_SCHEMA}")
    if not is_id(item_id) or (value.get("kind"), value.get("id")) != (kind, item_id):
        raise ValueError(f"kind {value.get('kind')!r} and id {value.get('id')!r} do not fit its path")
    for key, allowed in _STORED.items():
        if key not in value or not isinstance(value[key], allowed):
            raise ValueError(f"'{key}' is missing or of the wrong type")
    datetime.fromisoformat(value["created"])
    check_details(value["details"])
    known: dict[str, Any] = {key: value[key] for key in _STORED} | {"name": clean_name(value["name"])}
    return Item(kind=kind, id=item_id, path=folder / (item_id + KINDS[kind]), **known)
