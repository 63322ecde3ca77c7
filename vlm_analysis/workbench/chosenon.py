"""On how many prompts an edit was chosen that it is measured on: their numbers flatter it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item, Workspace


def n_chosen_on(
    shelf: Workspace, edit: Edit, prompts: str, n_prompts: int, opened: Callable[[Item], Any] = open_item
) -> int:
    """Return how many prompts of a set an edit was chosen on, or share a picture with one that it was, as far as these are still saved.

    Args:
        prompts: the fingerprint of the set.
        n_prompts: how many prompts it has.
        opened: returns the value of an item.
    """
    names = edit.chosen_on
    if prompts in names:
        return n_prompts
    saved = {item.prompts: item for item in shelf.items("prompts")}
    if not names & set(saved) or prompts not in saved:
        return 0
    try:
        known = frozenset[str]().union(*(opened(saved[name]).groups.known for name in names & set(saved)))
        return n_shared(opened(saved[prompts]), known)
    except StrataError:
        return 0
