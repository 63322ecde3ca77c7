"""Lists of thousands of saved items: a sidecar is looked at again only where a folder has changed, and no change is missed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from writing import text

from vlm_analysis import Edit, PruneMask
from vlm_analysis.edits.edit import mask_key
from vlm_analysis.workbench.listing import SETTLED_NS
from vlm_analysis.workbench.workspace import Item, Workspace


def settle(folder: Path) -> None:
    """Make the folder as old as one that nothing has changed for a while."""
    then = time.time_ns() - 2 * SETTLED_NS
    os.utime(folder, ns=(then, then))


@pytest.fixture
def saved(workspace: Workspace) -> list[Item]:
    """Three masks in a folder that has settled, listed once since a page began."""
    items = [workspace.save("masks", f"mask {number}", text()) for number in range(3)]
    settle(items[0].path.parent)
    workspace.look_again()
    assert workspace.items("masks") == items[::-1]
    return items


def test_what_others_save_rename_and_delete_is_seen_at_once(workspace: Workspace, saved: list[Item]) -> None:
    other = Workspace(workspace.root)
    new = other.save("masks", "a new one", text())
    assert workspace.items("masks")[0] == new
    settle(new.path.parent)
    assert len(workspace.items("masks")) == 4
    other.rename(saved[1], "renamed")
    assert [item.name for item in workspace.items("masks")] == ["a new one", "mask 2", "renamed", "mask 0"]
    settle(new.path.parent)
    assert len(workspace.items("masks")) == 4
    other.delete(saved[2])
    assert [item.name for item in workspace.items("masks")] == ["a new one", "renamed", "mask 0"]


def test_a_change_right_after_a_look_is_seen_though_the_folder_has_the_same_time(workspace: Workspace) -> None:
    folder = workspace.save("masks", "first", text()).path.parent
    workspace.look_again()
    now = time.time_ns()
    os.utime(folder, ns=(now, now))
    assert len(workspace.items("masks")) == 1
    workspace.save("masks", "second", text())
    os.utime(folder, ns=(now, now))
    assert len(workspace.items("masks")) == 2


def test_a_sidecar_that_is_written_over_is_seen_when_the_next_page_begins(
    workspace: Workspace, saved: list[Item]
) -> None:
    sidecar = saved[0].path.parent / f"{saved[0].id}.item.json"
    sidecar.write_text(sidecar.read_text().replace("mask 0", "by hand"))
    assert workspace.items("masks")[-1].name == "mask 0"  # nothing was looked at again
    workspace.look_again()
    assert workspace.items("masks")[-1].name == "by hand"


def test_a_list_that_a_caller_changes_is_its_own(workspace: Workspace, saved: list[Item]) -> None:
    workspace.items("masks").clear()
    assert len(workspace.items("masks")) == len(saved)


@given(st.integers(2, 80).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=n - 1))))
def test_the_key_of_a_saved_mask_is_that_of_the_edit(mask: tuple[int, set[int]]) -> None:
    n_layers, dropped = mask
    assert mask_key(n_layers, list(dropped)) == PruneMask(n_layers, dropped).key
    assert dropped or mask_key(n_layers, ()) == Edit(n_layers).key
