"""Recovery with memory: a repaired or tuned edit is kept under the recipe it was made by, and made once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import NothingLearntError
from vlm_analysis.progress import Progress
from vlm_analysis.recovery.solving import Options
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.recovery.ways import check_options, options_of, steps_of
from vlm_analysis.words import some_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.recipes import keep_made, made_by, recipe_of
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.tunings import tune_edit
from vlm_analysis.workbench.workspace import Item


def recover_edit(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    way: str,
    progress: Progress,
    *,
    name: str = "",
    on_partial: Callable[[Edit], None] | None = None,
    **options: Any,
) -> Item:
    """Return the Item of the edit, repaired (see `vlm_analysis.repair`), tuned (see `vlm_analysis.finetune`), or both in turn.

    One of the same recipe comes back as it is. Of both, the repaired edit is saved too.

    Raises:
        NothingLearntError: nothing was repaired or learnt, with the reasons.
        EditError: there is no such way; or as `repair` and `finetune`.
    """
    first, *rest = steps_of(way)
    check_options([way], options)
    item = take_step(desk, prompts, edit, first, progress, "" if rest else name, on_partial, options)
    for step in rest:
        item = take_step(desk, prompts, open_item(item), step, progress, name, on_partial, options)
    return item


def take_step(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    step: str,
    progress: Progress,
    name: str,
    on_partial: Callable[[Edit], None] | None,
    options: dict[str, Any],
) -> Item:
    """Return the Item of an edit after one step of a way; see `recover_edit`."""
    own = options_of(step, options)
    if step in TUNINGS:
        return tune_edit(desk, prompts, edit, step, progress, name=name, on_partial=on_partial, **own)
    return _repair_edit(desk, prompts, edit, step, progress, name, own)


def _repair_edit(
    desk: Desk, prompts: Item, edit: Edit, how: str, progress: Progress, name: str, options: dict[str, Any]
) -> Item:
    recipe = recipe_of(desk, prompts, edit, Options(how, **options).used)
    if known := made_by(desk, recipe):
        return known[0]
    from vlm_analysis.recovery.closed_form import repair, why_not_repaired

    begun = time.monotonic()
    found = repair(desk.loaded, edit, desk.open_prompts(prompts), how, **options, on_progress=progress)
    if found == edit:
        reasons = (f"{run}: {reason}" for run, reason in why_not_repaired(found).items())
        raise NothingLearntError(
            f"Nothing was repaired: expected a fold for a run of dropped layers, got none ({some_of(reasons, 5, between='; ')}). Keep the "
            "edit as it is, or leave out other layers."
        )
    return keep_made(desk, replace(found, name=name or found.name), recipe, time.monotonic() - begun)
