"""The user's own locks: layers to keep, told in the provenance of a mask, so that they are saved with it and never enter its key."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit

OWN_LOCKS = "own_locks"


def own_locks(edit: Edit) -> tuple[int, ...] | None:
    """Return the layers that the edit's maker wants to keep, ascending; None where it tells of no locks.

    What its provenance may hold beside layers that the edit keeps is left out: others can write it.
    """
    told = edit.provenance.get(OWN_LOCKS)
    if not isinstance(told, list | tuple):
        return None
    return tuple(layer for layer in edit.kept if any(is_whole(one) and one == layer for one in told))


def with_own_locks(provenance: Mapping[str, Any], layers: Collection[int]) -> dict[str, Any]:
    """Return the provenance with these own locks and no others."""
    plain = {name: value for name, value in provenance.items() if name != OWN_LOCKS}
    return plain | ({OWN_LOCKS: sorted(layers)} if layers else {})
