"""The demo as a call: what it keeps, and that its report is the page's."""

from __future__ import annotations

import pytest

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.export.story_forms import story_html
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.stories import demo, open_saved_story
from vlm_analysis.workbench.workspace import Item, Workspace


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Item]:
    """A workspace in which the demo ran on two prompts of each pack."""
    shelf, seen = Workspace(tmp_path_factory.mktemp("home")), []
    item = demo(ModelSlot(), shelf, lambda *report: seen.append(report), first=2)
    assert seen[0][2].startswith("loading Pocket-VL")
    assert seen[-1][0] == seen[-1][1] > 1
    return shelf, item


def test_the_demo_keeps_all_that_it_made_and_nothing_unfinished(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    assert shelf.items("stories") == [item]
    for kind in ("prompts", "recordings", "masks", "evaluations"):
        assert shelf.find(kind, item.details[kind]) is not None
    assert {tuple(kept.details["dropped"]) for kept in shelf.items("evaluations")} >= {()}
    assert not list((shelf.root / "unfinished").glob("*"))


def test_what_was_kept_opens_as_the_story(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    story = open_saved_story(shelf, item)
    assert len(story.dense.by_prompt) == 4
    page = story_html(story)
    assert story.title.encode() in page
    assert b"say nothing about large models" in page


def test_without_its_recording_a_story_does_not_open(told: tuple[Workspace, Item], tmp_path) -> None:
    _, item = told
    with pytest.raises(WorkspaceError, match="was deleted"):
        open_saved_story(Workspace(tmp_path), item)
