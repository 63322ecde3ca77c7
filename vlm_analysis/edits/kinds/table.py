"""The table of all kinds of change, in the order in which they are applied."""

from __future__ import annotations

from vlm_analysis.edits.change import Change
from vlm_analysis.edits.kinds.adapt import Adapt
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.drop_part import DropPart
from vlm_analysis.edits.kinds.fold import Fold
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.replace import Replace
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.errors import EditError

KINDS: dict[str, type[Change]] = {
    kind.kind: kind for kind in (Tower, Replace, Drop, DropPart, Narrow, Fold, Adapt, Vision)
}


def kind_of(name: object) -> type[Change]:
    """Return the kind of this name.

    Raises:
        EditError: the name is unknown.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise EditError(
            f"Unknown kind of change: expected one of {', '.join(KINDS)}, got {str(name)[:200]!r}. "
            "Import the code that adds this kind to the table, or update Strata."
        )
    return KINDS[name]
