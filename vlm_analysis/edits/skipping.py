"""The edits of papers in which vision tokens skip layers: late entry, early exit, and layers in which they are frozen.

Late entry and early exit are those of "Skip-It?" (arXiv:2509.25584); VTW exits early (arXiv:2405.05803), ShortV freezes (arXiv:2504.00502).
"""

from __future__ import annotations

from collections.abc import Collection

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.vision import MASKED, Vision
from vlm_analysis.edits.shorthand import shortened
from vlm_analysis.errors import EditError, short

FULL, FROZEN, ABSENT = "full", "frozen", "absent"


def late_entry(n_layers: int, k: int, *, form: str = MASKED, deepstack: bool = True) -> Edit:
    """Return the Edit in which vision tokens enter at layer `k`: absent below it; with 0 the dense model.

    >>> late_entry(8, 2).words()
    'hides vision tokens in layers 0-1'

    Raises:
        EditError: `k` is no whole number in 0..n_layers.
    """
    return Edit(n_layers, (Vision(absent=range(_checked(n_layers, k)), form=form, deepstack=deepstack),))  # type: ignore[arg-type]


def early_exit(n_layers: int, k: int, *, form: str = MASKED, deepstack: bool = True) -> Edit:
    """Return the Edit in which vision tokens leave at layer `k`: absent from it on; with `n_layers` the dense model.

    >>> early_exit(8, 6).words()
    'hides vision tokens in layers 6-7'

    Raises:
        EditError: `k` is no whole number in 0..n_layers.
    """
    return Edit(n_layers, (Vision(absent=range(_checked(n_layers, k), n_layers), form=form, deepstack=deepstack),))  # type: ignore[arg-type]


def freeze(n_layers: int, layers: Collection[int], *, form: str = MASKED, deepstack: bool = True) -> Edit:
    """Return the Edit in which text sees vision tokens in these layers, and the layers do not update them.

    >>> freeze(8, [6, 7]).words()
    'freezes vision tokens in layers 6-7'

    Raises:
        EditError: a number that is no layer of the model.
    """
    return Edit(n_layers, (Vision(frozen=layers, form=form, deepstack=deepstack),))  # type: ignore[arg-type]


def vision_row(edit: Edit) -> tuple[str, ...]:
    """Return what vision tokens do in each layer: "full", "frozen" or "absent"; "full" also where the layer is dropped.

    >>> vision_row(late_entry(4, 1) + freeze(4, [3]))
    ('absent', 'full', 'full', 'frozen')
    """
    row = [FULL] * edit.n_layers
    for change in edit.changes:
        if isinstance(change, Vision):
            for word, layers in ((ABSENT, change.absent), (FROZEN, change.frozen)):
                for layer in layers:
                    row[layer] = word
    return tuple(row)


def in_short(edit: Edit) -> str:
    """Return what an edit does as a name for tables: "4, 7; absent 13-15; frozen 9"; in whole words what is neither.

    >>> in_short(early_exit(16, 13, form="sliced") + freeze(16, [9], form="sliced"))
    'absent 13-15; frozen 9'
    """
    if edit.is_dense:
        return "dense"
    parts = [", ".join(map(str, edit.dropped))] if edit.dropped else []
    for change in edit.changes:
        if isinstance(change, Vision):
            named = ((ABSENT, change.absent), (FROZEN, change.frozen))
            parts += [f"{word} {shortened(layers, ', ')}" for word, layers in named if layers]
            parts[-1] += (" (masked)" if change.form == MASKED else "") + ("" if change.deepstack else ", no DeepStack")
        elif not isinstance(change, Drop):
            parts.append(change.words())
    return "; ".join(parts)


def _checked(n_layers: int, k: int) -> int:
    if not is_whole(k) or not is_whole(n_layers) or not 0 <= k <= n_layers:
        raise EditError(
            f"Vision tokens cannot enter or leave there: expected a layer in 0..{short(n_layers, 20)}, got {short(repr(k), 80)}. "
            "Name a layer of the model."
        )
    return int(k)
