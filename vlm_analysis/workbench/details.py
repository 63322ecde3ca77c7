"""The details of saved things: what a sidecar tells so that pages need not open the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_TOLD = 100  # domains named in a sidecar: as many as its limit takes, however long and foreign their names are
_MOST = 1_000_000
_COUNTS = ("n", "n_layers", "n_masks", "n_domains")


def domain_details(domains: Sequence[str]) -> dict[str, Any]:
    """Return what a sidecar tells of domains: how many they are, and the first 100 names."""
    return {"domains": list(domains[:MOST_TOLD]), "n_domains": len(domains)}


def count_domains(details: dict[str, Any]) -> int:
    """Return the number of domains; sidecars that do not tell it name all of them."""
    return int(details.get("n_domains", len(details.get("domains", ()))))


def check_details(details: dict[str, Any]) -> None:
    """Refuse known details of another form; what is missing or unknown is let pass.

    Raises:
        ValueError: a count that is none, domains that are no list of texts, or dropped layers that are no layers of `n_layers`.
    """
    for name in _COUNTS:
        if name in details and not _is_index(details[name], _MOST):
            raise ValueError(f"details '{name}' is no whole number in 0..{_MOST}")
    domains, dropped = details.get("domains", []), details.get("dropped", [])
    if not isinstance(domains, list) or not all(isinstance(name, str) for name in domains):
        raise ValueError("details 'domains' is no list of names")
    n_layers = details.get("n_layers", _MOST)
    if not isinstance(dropped, list) or not all(_is_index(layer, n_layers - 1) for layer in dropped):
        raise ValueError("details 'dropped' is no list of layers")
    if len(set(dropped)) != len(dropped) or len(dropped) >= max(1, n_layers):
        raise ValueError("details 'dropped' names a layer twice, or all layers")


def _is_index(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
