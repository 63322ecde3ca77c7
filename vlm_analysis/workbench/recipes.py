"""Recipes: what a learnt edit was made of, so that the same is not learnt twice."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

from vlm_analysis import __version__
from vlm_analysis.edits.edit import Edit
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.shelf import keep, whole_items
from vlm_analysis.workbench.workspace import Item

RECIPE = "recipe"  # the entry in a sidecar
SECONDS = "seconds"  # the entry in a sidecar: how long it took to learn


def recipe_of(desk: Desk, prompts: Item, edit: Edit, options: dict[str, Any]) -> str:
    """Return a hash of all that decides what is learnt: edit, model, prompts, options and versions; 32 hexadecimal digits."""
    versions = [__version__, *(version(name) for name in ("torch", "transformers", "numpy", "peft"))]
    content = json.dumps([edit.key, desk.model, prompts.prompts, options, versions], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def made_by(desk: Desk, recipe: str, entry: str = RECIPE) -> list[Item]:
    """Return the saved edits of a recipe that can be opened, newest first."""
    saved = (item for item in desk.shelf.items("masks") if item.details.get(entry) == recipe)
    return [item for item, _ in whole_items(saved)]


def keep_made(desk: Desk, edit: Edit, recipe: str, seconds: float, entry: str = RECIPE) -> Item:
    """Save an edit with its recipe, and the seconds that it took."""
    return keep(desk.shelf, "masks", edit, edit.name or edit.words(), {entry: recipe, SECONDS: seconds})


def seconds_of(item: Item) -> float | None:
    """Return the seconds that learning a saved edit took; None where that is not known."""
    seconds = item.details.get(SECONDS)
    return float(seconds) if isinstance(seconds, (int, float)) and seconds >= 0 else None
