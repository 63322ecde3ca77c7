"""Learnt edits with memory: unfinished work goes on, its best state is kept, and a finished one is opened."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.files import discard
from vlm_analysis.progress import Cancelled
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.recipes import keep_made, made_by, seconds_of
from vlm_analysis.workbench.workspace import Item

UNFINISHED = "unfinished_recipe"  # the entry in a sidecar of the best state of work that was stopped


def learn_once(
    desk: Desk,
    recipe: str,
    learn: Callable[..., Edit],
    *,
    name: str = "",
    on_partial: Callable[[Edit], None] | None = None,
) -> Item:
    """Return the Item of a recipe, learnt if none is saved.

    When the work is cancelled, the best edit so far is kept under a name that says so, until the same work is finished.

    Args:
        learn: is called with the `folder` of unfinished work and `on_partial`, and returns the edit.
        on_partial: called with the best edit so far whenever there is a better one.
    """
    if known := made_by(desk, recipe):
        return known[0]
    best: list[Edit] = []
    begun = time.monotonic() - sum(seconds_of(item) or 0 for item in made_by(desk, recipe, UNFINISHED))

    def better(found: Edit) -> None:
        best[:] = [found]
        if on_partial is not None:
            on_partial(found)

    folder: Path = desk.shelf.root / "unfinished" / f"tuning-{recipe}"
    callbacks: dict[str, Any] = {"folder": folder, "on_partial": better}
    try:
        found = learn(**callbacks)
    except Cancelled:
        if best:
            unfinished = replace(best[0], name=f"{name or best[0].name}, unfinished")
            _replace_unfinished(desk, recipe, unfinished, time.monotonic() - begun)
        raise
    item = keep_made(desk, replace(found, name=name or found.name), recipe, time.monotonic() - begun)
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
