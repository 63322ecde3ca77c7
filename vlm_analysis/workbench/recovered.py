"""The masks of a comparison, each recovered in the same ways: every learnt edit is saved, so that unfinished work goes on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError
from vlm_analysis.progress import Progress
from vlm_analysis.recovery.ways import steps_of
from vlm_analysis.selection.compared.recovered import recovered_method, recovered_way
from vlm_analysis.selection.strategies.many import Way
from vlm_analysis.words import counted
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.recoveries import recover_edit
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item


def is_how(value: object) -> bool:
    """Return whether masks can be recovered so: a repair, a tuning, or both as "ridge+small"."""
    try:
        return bool(steps_of(str(value)))
    except EditError:
        return False


def recovered_ways(
    desk: Desk, prompts: Item, ways: Sequence[Way], hows: Sequence[str], progress: Progress
) -> tuple[list[Way], dict[str, str]]:
    """Return a way for each way and how, to its mask recovered so on the prompts; and by method why some are missing.

    Equal masks are recovered once, and those that were recovered so before are opened.
    """
    masks = list(dict.fromkeys(way.mask for way in ways if way.mask.dropped))
    found: dict[tuple[str, Edit], Edit] = {}
    reasons: dict[tuple[str, Edit], str] = {}
    total = len(hows) * len(masks)
    for number, (how, mask) in enumerate(product(hows, masks)):
        words = f"recovering {number + 1} of {counted(total, 'mask')} ({how})"
        try:
            own = _counted_on(progress, number, total, words)
            found[how, mask] = open_item(recover_edit(desk, prompts, mask, how, own))
        except EditError as error:
            reasons[how, mask] = str(error)
    made = [
        recovered_way(way, how, found[how, way.mask]) for how, way in product(hows, ways) if (how, way.mask) in found
    ]
    missing: dict[str, str] = {}
    for how, way in product(hows, ways):
        if reason := reasons.get((how, way.mask)):
            missing.setdefault(recovered_method(way.method, how), f"{counted(way.budget, 'layer')}: {reason}")
    return made, missing


def _counted_on(progress: Progress, number: int, total: int, words: str) -> Progress:
    """Return a progress of one mask of many."""
    return lambda _, __, message: progress(number, total, f"{words}: {message}")
