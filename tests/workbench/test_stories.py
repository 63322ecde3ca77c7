"""The demo as a call: what it keeps, and that its report is the page's; stories of version 0.1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from saved import SAVED

from vlm_analysis import Comparison, Recording
from vlm_analysis.errors import EvaluationError, WorkspaceError
from vlm_analysis.export.story import open_story, story_sections
from vlm_analysis.export.story_forms import story_html, story_text
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.stories import demo, open_saved_story, stories
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
    assert shelf.items("comparisons") == stories(shelf) == [item]
    assert isinstance(open_item(item), Comparison)
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


def test_a_story_names_the_prompts_that_were_set_aside(told: tuple[Workspace, Item]) -> None:
    shelf, item = told
    story = open_saved_story(shelf, item)
    odd = replace(story, dense=replace(story.dense, set_aside={"odd": "Prompt 'odd' is too flat."}))
    last = story_sections(odd)[-1]
    assert (last.heading, last.text) == (
        "What could not be asked",
        "1 of 5 prompts was set aside:\n\nPrompt 'odd' is too flat.",
    )
    assert "Prompt 'odd' is too flat." in story_text(odd)
    assert "What could not be asked" not in story_text(story)


def test_without_its_recording_a_story_does_not_open(told: tuple[Workspace, Item], tmp_path) -> None:
    _, item = told
    with pytest.raises(WorkspaceError, match="was deleted"):
        open_saved_story(Workspace(tmp_path), item)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_story_of_version_0_1_that_was_cut_short_is_refused_in_words(told, tmp_path: Path, share: float) -> None:
    shelf, item = told
    (path,) = (SAVED / "home" / "stories").glob("*[0-9a-f].json")
    data, recording = path.read_bytes(), open_item(shelf.find("recordings", item.details["recordings"]))
    assert isinstance(recording, Recording)
    (tmp_path / "story.json").write_bytes(data[: int(share * len(data))])
    with pytest.raises(EvaluationError, match="Run the demo again"):
        open_story(tmp_path / "story.json", recording)
