"""Short fine-tuning with memory: unfinished work goes on, and a finished one is opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import NothingLearntError
from vlm_analysis.files import discard
from vlm_analysis.progress import Cancelled, Progress
from vlm_analysis.recovery.tunings import tuning_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.recipes import keep_made, made_by, recipe_of, seconds_of
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item

UNFINISHED = "unfinished_recipe"  # the entry in a sidecar of the best state of work that was stopped


def tune_edit(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    how: str,
    progress: Progress,
    *,
    name: str = "",
    on_partial: Callable[[Edit], None] | None = None,
    **options: Any,
) -> Item:
    """Tune an edit (see `vlm_analysis.finetune`); return its Item, that of the same work where it is saved already.

    When the work is cancelled, the best edit so far is kept under a name that says so, until the same work is finished.

    Raises:
        NothingLearntError: no state was better than the edit as it is.
        EditError: as `finetune`.
    """
    from vlm_analysis.recovery.finetune.finetune import FINETUNE, finetune

    recipe = recipe_of(desk, prompts, edit, {"how": how, **tuning_of(how, options).to_json()})
    if known := made_by(desk, recipe):
        return known[0]
    best: list[Edit] = []
    begun = time.monotonic() - sum(seconds_of(item) or 0 for item in made_by(desk, recipe, UNFINISHED))

    def better(found: Edit) -> None:
        best[:] = [found]
        if on_partial is not None:
            on_partial(found)

    folder, asked = desk.shelf.root / "unfinished" / f"tuning-{recipe}", open_item(prompts)
    callbacks: dict[str, Any] = {"on_partial": better, "on_progress": progress}
    try:
        tuned = finetune(desk.loaded, edit, asked, how, folder=folder, **callbacks, **options)
    except Cancelled:
        if best:
            unfinished = replace(best[0], name=f"{name or best[0].name}, unfinished")
            _replace_unfinished(desk, recipe, unfinished, time.monotonic() - begun)
        raise
    if tuned == edit:
        nll = tuned.provenance[FINETUNE]["held_out_nll"][0]
        raise NothingLearntError(
            f"Nothing was learnt: expected a state with a lower held-out answer NLL than {nll:.3f}, got none. Take more prompts or a lower "
            "learning_rate, or keep the edit as it is."
        )
    item = keep_made(desk, replace(tuned, name=name or tuned.name), recipe, time.monotonic() - begun)
    _replace_unfinished(desk, recipe, None)
    discard(folder)
    return item


def _replace_unfinished(desk: Desk, recipe: str, edit: Edit | None, seconds: float = 0.0) -> None:
    """Keep the best edit of unfinished work in place of what was kept of it before; with None only remove that."""
    before = made_by(desk, recipe, UNFINISHED)
    if edit is not None:
        keep_made(desk, edit, recipe, seconds, UNFINISHED)
    for item in before:
        desk.shelf.delete(item)
