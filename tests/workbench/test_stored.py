"""Saved values: what is opened is what was saved, and never another's file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tables import RED

from vlm_analysis import Cost, Evaluation, LoadedModel, Prompt, PromptSet, PruneMask, evaluate, record
from vlm_analysis.errors import WorkspaceError
from vlm_analysis.workbench.shelf import (
    keep_cost,
    keep_evaluation,
    keep_mask,
    keep_prompts,
    keep_recording,
    keep_sweep,
    open_item,
    open_whole,
)
from vlm_analysis.workbench.workspace import Item, Workspace

MASK = PruneMask(16, (5, 9))


@pytest.fixture
def shelf(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, few: PromptSet) -> Evaluation:
    return evaluate(loaded, few[:2])


def swap(one: Item, other: Item) -> None:
    """Put the file of `other` in the place of that of `one`."""
    if one.path.is_dir():
        shutil.rmtree(one.path)
        shutil.copytree(other.path, one.path)
    else:
        shutil.copy(other.path, one.path)


def cost(evaluation: Evaluation) -> Cost:
    halves = [[0.01] * 16] * 2
    return Cost(
        evaluation.mask, evaluation.model, "cpu", 1, 1, 9.0, 4, (9, 8), (36, 32), [[2.0], [1.0]], [[1.0], [2.0]], halves
    )


Keep = Callable[[Workspace, Evaluation], Item]
KEEPS: dict[str, Keep] = {
    "mask": lambda shelf, one: keep_mask(shelf, replace(one.mask, model=one.model)),
    "evaluation": lambda shelf, one: keep_evaluation(shelf, one, "one"),
    "sweep": lambda shelf, one: keep_sweep(shelf, [one], "one"),
    "cost": lambda shelf, one: keep_cost(shelf, cost(one), "one"),
}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("mask", "model"),
        ("mask", "edit"),
        ("evaluation", "model"),
        ("evaluation", "prompts"),
        ("evaluation", "edit"),
        ("sweep", "model"),
        ("sweep", "prompts"),
        ("cost", "model"),
        ("cost", "edit"),
    ],
)
def test_a_file_in_the_place_of_anothers_is_damaged(shelf: Workspace, dense: Evaluation, kind: str, what: str) -> None:
    pruned = replace(dense, edit=MASK)
    other = {
        "model": replace(pruned, model=replace(dense.model, fingerprint="0" * 64)),
        "prompts": replace(pruned, prompts="0" * 64),
        "edit": replace(pruned, edit=PruneMask(16, (3,))),
    }[what]
    mine, theirs = KEEPS[kind](shelf, pruned), KEEPS[kind](shelf, other)
    assert open_whole(mine) is not None
    swap(mine, theirs)
    assert open_whole(mine) is None
    with pytest.raises(WorkspaceError, match=f"is damaged: expected the {what} it was saved with"):
        open_item(mine)


def test_a_recording_of_other_prompts_is_damaged(shelf: Workspace, loaded: LoadedModel, few: PromptSet) -> None:
    mine, theirs = (keep_recording(shelf, record(loaded, part), "one") for part in (few[:1], few[1:2]))
    swap(mine, theirs)
    with pytest.raises(WorkspaceError, match="expected the prompts"):
        open_item(mine)


def test_prompts_of_very_many_domains_with_long_names_are_saved(shelf: Workspace) -> None:
    name = "\N{GRINNING FACE}" * 190
    many = PromptSet(Prompt((RED,), "what?", f"{name} {number}") for number in range(300))
    item = keep_prompts(shelf, many, "many")
    assert item.details["n_domains"] == 300
    assert shelf.items("prompts") == [item]
    assert open_item(item).domains == many.domains
