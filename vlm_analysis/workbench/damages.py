"""Measured damage: evaluations of the model without one layer at a time, saved as a sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress
from vlm_analysis.selection.criteria.damage import Damage, read_damage
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import scorer
from vlm_analysis.workbench.shelf import keep_sweep, whole_items
from vlm_analysis.workbench.stale import is_stale
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel

LEAVE_ONE_OUT = "leave-one-out"


def measure_damage(desk: Desk, prompts: Item, progress: Progress) -> Item:
    """Evaluate the model without each layer that may go, one at a time; return the Item of the sweep.

    Scores are kept as they come: a measurement that was cancelled or interrupted continues where it stopped.
    """
    loaded = desk.loaded
    evaluations = scorer(desk, prompts, progress)([Edit(loaded.n_layers), *one_out(loaded)])
    return keep_sweep(desk.shelf, evaluations, f"each layer left out on {prompts.name}", sweep=LEAVE_ONE_OUT)


def one_out(loaded: LoadedModel) -> list[Edit]:
    """Return the masks that leave out one layer that may go, in the layers' order."""
    from vlm_analysis.edits.apply import why_not

    masks = [PruneMask(loaded.n_layers, (layer,)) for layer in range(loaded.n_layers)]
    return [mask for mask in masks if not why_not(loaded.model, mask)]


def known_damage(desk: Desk, prompts: Item) -> Damage | None:
    """Return the damage that was measured last; None if there is none."""
    evaluations = find_damage(desk.shelf, desk.model, prompts.prompts)
    return read_damage(evaluations, desk.loaded.info) if evaluations else None


def damage_of(desk: Desk, prompts: Item, progress: Progress) -> Damage | None:
    """Return the damage of each layer, measured if needed; None if no layer may go."""
    known = known_damage(desk, prompts)
    if known is not None:
        return known
    measure_damage(desk, prompts, progress)
    return known_damage(desk, prompts)


def find_damage(shelf: Workspace, model: str | None, prompts: str | None) -> list[Evaluation]:
    """Return the newest leave-one-out evaluations of a model on a prompt set, the dense one first; empty if not measured."""
    items = (
        item
        for item in shelf.items("sweeps")
        if item.model == model and item.prompts == prompts and item.details.get("sweep") == LEAVE_ONE_OUT
        if not is_stale(shelf, item)
    )
    return next((evaluations for _, evaluations in whole_items(items)), [])
