"""The details of saved items: what pages show without opening the file, kept in a sidecar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from vlm_analysis.edits.edit import KEY_DIGITS, Edit, mask_key
from vlm_analysis.model_info import MOST_LAYERS

MOST_NAMES = 100  # domains named in a sidecar; they fit its size limit whatever their names
MOST_WORDS = 1000  # characters of what an edit does
MOST_NOTES = 2000  # characters of a mask's notes; version 0.1 kept 500
STARRED = "starred"  # of masks that the user wants to find again
_MOST = 1_000_000
_KEY = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}")
_COUNTS = ("n", "n_layers", "n_masks", "n_domains")


def domain_details(domains: Sequence[str]) -> dict[str, Any]:
    """Return the details of domains: their number, and the first 100 names."""
    return {"domains": list(domains[:MOST_NAMES]), "n_domains": len(domains)}


def count_domains(details: dict[str, Any]) -> int:
    """Return the number of domains; sidecars without it name all domains."""
    return int(details.get("n_domains", len(details.get("domains", ()))))


def edit_details(edit: Edit) -> dict[str, Any]:
    """Return the details of an edit."""
    return {
        "edit": edit.key,
        "what": edit.words()[:MOST_WORDS],
        "dropped": list(edit.dropped),
        "n_layers": edit.n_layers,
    }


def edit_key(details: dict[str, Any]) -> str | None:
    """Return the key of the edit in a sidecar, None where there is none; version 0.1 kept the dropped layers only."""
    if "edit" in details:
        return str(details["edit"])
    layers = details.get("n_layers"), details.get("dropped")
    return None if None in layers else mask_key(*layers)  # type: ignore[arg-type]


def is_dense(details: dict[str, Any]) -> bool:
    """Return whether a sidecar belongs to the dense model."""
    n_layers = details.get("n_layers")
    return n_layers is not None and edit_key(details) == Edit(n_layers).key


def is_mask(details: dict[str, Any]) -> bool:
    """Return whether a sidecar belongs to an edit that only drops layers."""
    layers = details.get("n_layers"), details.get("dropped")
    return None not in layers and edit_key(details) == mask_key(*layers)  # type: ignore[arg-type]


def check_details(details: dict[str, Any]) -> None:
    """Check the known details; missing and unknown ones are ignored.

    Raises:
        ValueError: a count is not a number, domains are not a list of texts, a key is invalid, or dropped layers are not among
            `n_layers`.
    """
    for name in _COUNTS:
        if name in details and not _is_index(details[name], _MOST):
            raise ValueError(f"details '{name}' is no whole number in 0..{_MOST}")
    if not 1 <= details.get("n_layers", 1) <= MOST_LAYERS:
        raise ValueError(f"details 'n_layers' is no number in 1..{MOST_LAYERS}")
    domains, dropped = details.get("domains", []), details.get("dropped", [])
    if not isinstance(domains, list) or not all(isinstance(name, str) for name in domains):
        raise ValueError("details 'domains' is no list of names")
    kinds = details.get("kinds", [])
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError("details 'kinds' is no list of kinds of changes")
    for name in ("what", "notes"):
        if not isinstance(details.get(name, ""), str):
            raise ValueError(f"details '{name}' is no text")
    if "edit" in details and not (isinstance(details["edit"], str) and _KEY.fullmatch(details["edit"])):
        raise ValueError("details 'edit' is no key of an edit")
    n_layers = details.get("n_layers", _MOST)
    if not isinstance(dropped, list) or not all(_is_index(layer, n_layers - 1) for layer in dropped):
        raise ValueError("details 'dropped' is no list of layers")
    if len(set(dropped)) != len(dropped) or len(dropped) >= max(1, n_layers):
        raise ValueError("details 'dropped' names a layer twice, or all layers")


def _is_index(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
