"""The Overview's answer without a browser: a story of two halves moves with its slider; one of version 0.1 says what it lacks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from acting import words
from saved import SAVED

from vlm_analysis import LoadedModel, PromptSet, answer_of, headline
from vlm_analysis.progress import no_progress
from vlm_analysis.ui.common.session import live, runner
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.stories import tell_story
from vlm_analysis.workbench.workspace import Item, Workspace


@pytest.fixture(scope="module")
def told(small: LoadedModel, few: PromptSet, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    shelf = Workspace(tmp_path_factory.mktemp("told"))
    tell_story(ModelSlot.holding(small), shelf, keep_prompts(shelf, few[:2] + few[3:5], "four"), no_progress)
    return shelf


def story_in(shelf: Workspace) -> Item:
    return shelf.items("comparisons")[0]


def test_the_slider_changes_the_sentence_and_the_mask_and_it_can_be_edited(open_page, told, tmp_path: Path) -> None:
    shutil.copytree(told.root, tmp_path / "home")
    item = story_in(told)
    comparison = open_item(item)
    at = open_page("app.py")
    assert at.subheader[0].value == escaped(headline(answer_of(comparison)))
    assert at.button[0].label == "Edit this mask"
    assert not at.warning
    other = next(budget for budget in answer_of(comparison).budgets if budget != answer_of(comparison).budget)
    at.select_slider[0].set_value(other).run()
    assert not at.exception
    answer = answer_of(comparison, other)
    assert answer.edit.budget == other
    assert at.subheader[0].value == escaped(headline(answer))
    assert escaped(f"Drops {other} of 8 layers: {', '.join(map(str, answer.edit.dropped))}") in words(at)
    at.segmented_control(key="answer-unit").set_value("% smaller").run()
    assert at.select_slider[0].value == other
    assert at.subheader[0].value == escaped(headline(answer))
    at.button(key="answer-edit").click().run()
    assert at.session_state["mask"] == list(answer.edit.dropped)


def test_the_answer_is_drawn_while_responses_and_times_are_still_measured(open_page, told) -> None:
    comparison, go = open_item(story_in(told)), []
    partial = replace(comparison, responses=comparison.responses[:0], layer_shares=np.zeros(0))

    def work(progress) -> None:
        live()["demo"] = (partial,)
        while not go:
            progress(1, 2, "timing the layers")

    job = runner().submit("demo", "Demo", work)
    try:
        while "demo" not in live():
            pass
        at = open_page("app.py")
        assert escaped(headline(answer_of(partial))) in words(at)
        assert "What the pruned models say, and times, are still measured." in words(at)
        assert not [button for button in at.button if button.label == "Edit this mask"]
    finally:
        go.append(True)
        runner().wait(job.id if hasattr(job, "id") else job, 60)
        live().pop("demo")


def test_without_its_prompts_a_story_opens_without_pictures(open_page, told, tmp_path: Path) -> None:
    shelf = Workspace(shutil.copytree(told.root, tmp_path / "home"))
    for item in shelf.items("prompts"):
        shelf.delete(item)
    at = open_page("app.py")
    assert at.subheader[0].value == escaped(headline(answer_of(open_item(story_in(told)))))
    assert "The picture is not saved any more." in words(at)


def test_a_story_of_version_0_1_is_answered_and_says_that_it_flatters(open_page, tmp_path: Path) -> None:
    shutil.copytree(SAVED / "home", tmp_path / "home")
    shelf = Workspace(tmp_path / "home")
    assert len(shelf.items("stories")) == 1
    for item in shelf.items("comparisons"):
        shelf.delete(item)
    at = open_page("app.py")
    assert not at.exception
    assert not at.error
    assert "Pocket\\-VL" in at.subheader[0].value
    assert "16 layers" in at.subheader[0].value
    assert "flatters" in words(at)
    assert "there is no slider" in words(at)
    assert not at.select_slider
