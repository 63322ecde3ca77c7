"""The Masks page's search form: every algorithm, objective and setting, and the job behind the button."""

from __future__ import annotations

from typing import Any

import pytest
from acting import OpenPage, finish, hold_bundled, hold_small, masks_of, press, put, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import LoadedModel, PromptSet, record
from vlm_analysis.ui.common.session import runner, workspace
from vlm_analysis.workbench.shelf import keep_recording, open_item

PAGE = "pages/4_masks.py"
SETTINGS = {"greedy": set(), "beam": {"search_width"}, "evolutionary": {"search_population", "search_generations"}}


def drawn_settings(at: AppTest) -> set[str]:
    return {str(slider.key) for slider in at.slider} & set().union(*SETTINGS.values())


def said(at: AppTest) -> str:
    return words(at).replace("\\", "").replace("\u2060", "")


@pytest.mark.parametrize("strategy", SETTINGS)
class TestTheForm:
    def test_a_strategy_brings_its_own_settings_and_source(self, stocked: OpenPage, strategy: str) -> None:
        at = put(stocked(PAGE), candidate_strategy=strategy)
        assert drawn_settings(at) == SETTINGS[strategy]
        assert "search_strategy" not in [control.key for control in at.segmented_control]
        assert ("arXiv:2402.09025" if strategy == "greedy" else "our choice)") in said(at)


@pytest.mark.parametrize(
    ("strategy", "whose", "expected"),
    [
        pytest.param("greedy", "all", (None, False), marks=pytest.mark.slow),
        ("beam", "worst", (None, True)),
        pytest.param("evolutionary", "domain math", ("math", False), marks=pytest.mark.slow),
    ],
)
def test_the_job_finds_and_saves_a_mask_by_what_was_asked(
    stocked: OpenPage,
    strategy: str,
    whose: str,
    expected: tuple[str | None, bool],
    small: LoadedModel,
    few: PromptSet,
) -> None:
    if strategy == "evolutionary":  # it starts from masks of several criteria, which must differ
        hold_bundled()
    else:
        hold_small(small, few)
    asked: dict[str, Any] = {"search_score": "exact_match", "search_whose": whose, "candidate_budget": 2}
    settings = {"search_width": 2, "search_population": 4, "search_generations": 2}
    at = put(stocked(PAGE), candidate_strategy=strategy)
    put(at, **asked, **{key: value for key, value in settings.items() if key in SETTINGS[strategy]})
    most = {"greedy": 5 + 4, "beam": 5 + 8, "evolutionary": 4 * 3}[strategy]
    assert f"Up to {most} evaluations on 6 prompts: {6 * most} answers" in said(at)
    press(at, "Search for a mask")
    finish("search")
    wait_for(at, "evaluate it on others")
    (item,) = [item for item in workspace().items("masks") if item.name.startswith(strategy)]
    found = open_item(item).provenance
    target, worst = expected
    assert found["objective"] == {"score": "exact_match", "target": target, "worst": worst}
    assert found["strategy"] == strategy
    assert len(found.get("start", [])) == (4 if strategy == "evolutionary" else 0)
    assert sum(step["tried"] for step in found["steps"]) <= most
    assert item.name in masks_of(at)["name"].tolist()


def test_without_the_model_the_form_says_what_is_missing(stocked: OpenPage) -> None:
    at = put(stocked(PAGE), candidate_strategy="beam")
    assert "load it on the Model page" in at.info[0].value
    assert "Search for a mask" not in [button.label for button in at.button]


def test_a_second_search_waits_until_the_first_has_ended(stocked: OpenPage) -> None:
    hold_bundled()
    at = put(stocked(PAGE), candidate_strategy="greedy", candidate_budget=12)
    press(at, "Search for a mask")
    assert next(button for button in at.button if button.label == "Search for a mask").disabled
    view = runner().latest("search")
    assert view is not None
    runner().cancel(view.id)
    wait_for(at, "What was measured is kept")
    assert not next(button for button in ran(at).button if button.label == "Search for a mask").disabled


def test_a_domain_that_another_recording_lacks_is_forgotten_and_one_domain_has_no_worst(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    at = put(stocked(PAGE), candidate_strategy="greedy", search_whose="domain general")
    assert at.selectbox(key="search_whose").options == ["all domains", "the worst domain", "math", "general"]
    only = keep_recording(workspace(), record(loaded, few[:3]), "only math")
    put(at, **{"chosen:recordings": only.id})
    box = at.selectbox(key="search_whose")
    assert (box.value, box.options) == ("all", ["all domains", "math"])
