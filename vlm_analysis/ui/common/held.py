"""What of an edit the editor holds: layers that it drops, also of the vision encoder, those that vision tokens skip, and narrow ones."""

from __future__ import annotations

from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.edits.kinds.vision import SLICED, Vision
from vlm_analysis.evaluation.cost import Cost

HELD = frozenset(kind.kind for kind in (Drop, Vision, Narrow, Tower))
NO_VISION = Vision(form=SLICED)  # sliced is what saves time
WHOLE = Narrow()  # every layer keeps all its neurons and attention groups
NO_TOWER = Tower(1, ())  # no layer of a vision encoder is dropped


def vision_of(edit: Edit) -> Vision:
    """Return where vision tokens skip layers in an edit."""
    return next((change for change in edit.changes if isinstance(change, Vision)), NO_VISION)


def narrow_of(edit: Edit) -> Narrow:
    """Return which layers of an edit are narrow, and what they keep."""
    return next((change for change in edit.changes if isinstance(change, Narrow)), WHOLE)


def tower_of(edit: Edit) -> Tower:
    """Return which layers of the vision encoder an edit drops."""
    return next((change for change in edit.changes if isinstance(change, Tower)), NO_TOWER)


def untimed(edit: Edit, cost: Cost | None) -> str:
    """Return what of an edit is not in the layers' own times as a Cost of its model has them, in words; "" where all is."""
    is_timed = cost is not None and len(cost.encoder_shares) > 0
    parts = {
        "what narrow layers save": narrow_of(edit),
        "what vision tokens skip": vision_of(edit),
        "what layers of the vision encoder save": NO_TOWER if is_timed else tower_of(edit),
    }
    return next((words for words, change in parts.items() if not change.is_empty), "")


def narrow_key(narrow: Narrow, n_layers: int) -> str:
    """Return a short text that tells one choice of width from another; "" where all layers are whole."""
    return "" if narrow.is_empty else Edit(n_layers, (narrow,)).key[:16]


def why_not_narrow(edit: Edit) -> str:
    """Return why no stock class loads layers as narrow as an edit's; "" where one may, or all layers are whole."""
    return narrow_of(edit).unserved([layer for layer, _ in edit.steps.layers])


def fits_editor(edit: Edit) -> bool:
    """Return whether the editor can hold all that an edit does."""
    return all(change.kind in HELD for change in edit.changes)


def layers_of(edit: Edit) -> dict[str, Any]:
    """Return of which layers an edit is, for a provenance."""
    skipped, narrow = vision_of(edit), narrow_key(narrow_of(edit), edit.n_layers)
    told: dict[str, Any] = {"dropped": list(edit.dropped)}
    told |= {"tower": list(tower)} if (tower := tower_of(edit).dropped) else {}
    return told | ({} if skipped.is_empty else {"vision": skipped.to_json()}) | ({"narrow": narrow} if narrow else {})


def is_of(told: dict[str, Any], edit: Edit) -> bool:
    """Return whether a provenance tells of the layers of this edit."""
    now = layers_of(edit)
    return all(told.get(name) == now.get(name) for name in ("dropped", "vision", "narrow", "tower"))
