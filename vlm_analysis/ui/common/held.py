"""What of an edit the editor holds: the layers that it drops, and those that vision tokens skip."""

from __future__ import annotations

from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.vision import SLICED, Vision

NO_VISION = Vision(form=SLICED)  # sliced is what saves time


def vision_of(edit: Edit) -> Vision:
    """Return where vision tokens skip layers in an edit."""
    return next((change for change in edit.changes if isinstance(change, Vision)), NO_VISION)


def fits_editor(edit: Edit) -> bool:
    """Return whether the editor can hold all that an edit does."""
    return all(isinstance(change, Drop | Vision) for change in edit.changes)


def layers_of(edit: Edit) -> dict[str, Any]:
    """Return of which layers an edit is, for a provenance."""
    skipped = vision_of(edit)
    return {"dropped": list(edit.dropped)} | ({} if skipped.is_empty else {"vision": skipped.to_json()})


def is_of(told: dict[str, Any], edit: Edit) -> bool:
    """Return whether a provenance tells of the layers of this edit."""
    now = layers_of(edit)
    return all(told.get(name) == now.get(name) for name in ("dropped", "vision"))
