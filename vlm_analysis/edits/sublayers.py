"""Edits that leave parts of layers out, and what they leave out."""

from __future__ import annotations

from collections.abc import Collection

from vlm_analysis.edits.change import Change
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.drop_part import PARTS, DropPart


def drop_parts(n_layers: int, attention: Collection[int] = (), mlp: Collection[int] = ()) -> Edit:
    """Return the Edit without the attention of some layers and the MLP of others; a layer in both is dropped.

    >>> drop_parts(8, attention=[3, 5], mlp=[5, 6]).words()
    'drops layer 5 and leaves out the attention of layer 3 and the MLP of layer 6'

    Raises:
        EditError: a number that is no layer of the model, or is named twice.
    """
    parts = DropPart(attention), DropPart((), mlp)  # type: ignore[arg-type]  # any collection is taken
    both = {*parts[0].attention} & {*parts[1].mlp}
    changes: tuple[Change, ...] = (Drop(tuple(both)), *(part.without(both) for part in parts))
    return Edit(n_layers, changes)


def parts_left_out(edit: Edit) -> dict[int, str]:
    """Return by layer the part that is left out of it: "attention" or "mlp".

    >>> parts_left_out(drop_parts(8, [3], [6]))
    {3: 'attention', 6: 'mlp'}
    """
    found = [change for change in edit.changes if isinstance(change, DropPart)]
    return {layer: part for change in found for part in PARTS for layer in getattr(change, part)}
