"""The presets of many masks: each fills the form and says how long it may take; saved masks are compared as they are."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from acting import OpenPage, hold_bundled, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import PromptSet
from vlm_analysis.selection.compared.findings import front_words
from vlm_analysis.selection.strategies.many import RANDOM
from vlm_analysis.ui.common.session import choose, opened, workspace
from vlm_analysis.ui.evaluate import comparepresets
from vlm_analysis.ui.evaluate.comparepresets import QUICK_PROMPTS, time_words
from vlm_analysis.workbench.comparisons import Question
from vlm_analysis.workbench.shelf import keep_prompts, open_item


def many(open_page: OpenPage) -> AppTest:
    at = open_page("pages/5_evaluate.py")
    at.session_state["evaluate_tab"] = "Many masks"
    return ran(at)


def button(at: AppTest, label: str):
    return next(one for one in at.button if one.label.startswith(label))


def test_quick_fills_the_form_with_few_masks_on_the_first_prompts_of_each_domain(
    stocked: OpenPage, few: PromptSet
) -> None:
    hold_bundled()
    prompts = PromptSet(replace(few[row % 6], id=str(row)) for row in range(6 * QUICK_PROMPTS))
    choose("prompts", keep_prompts(workspace(), prompts, "long"))
    at = many(stocked)
    assert "up to" in button(at, "Quick").label
    button(at, "Quick").click()
    ran(at)
    assert all("flatters" in warning.value for warning in at.warning)
    assert next(box for box in at.multiselect if box.label == "Criteria").value == ["block-influence", "target-aware"]
    assert next(box for box in at.slider if box.label.startswith("Largest")).value == 4
    report = workspace().find("prompts", at.session_state["compare_report"])
    assert report is not None
    assert report.details["n"] == 2 * QUICK_PROMPTS
    assert {prompt.id for prompt in opened(report)} <= {prompt.id for prompt in prompts[: 3 * 2 * QUICK_PROMPTS]}
    button(at, "Thorough").click()
    assert next(box for box in ran(at).slider if box.label.startswith("Largest")).value == 8


@pytest.mark.slow
def test_quick_compares_what_it_filled_in(stocked: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparepresets, "QUICK_PROMPTS", 1)
    hold_bundled()
    at = many(stocked)
    button(at, "Quick").click()
    button(ran(at), "Compare masks").click()
    wait_for(ran(at), "Where the ranking matters")
    comparison = open_item(workspace().items("comparisons")[0])
    ways = comparison.ways
    assert set(ways["budget"]) == {1, 2, 3, 4}
    assert {"block-influence", "target-aware"} <= set(ways["criterion"])
    assert (ways["method"] == RANDOM).any()
    assert list(comparison.dense.by_prompt["domain"]) == list(comparison.domains)  # one prompt of each


def test_saved_masks_are_compared_under_their_names(stocked: OpenPage) -> None:
    hold_bundled()
    at = many(stocked)
    button(at, "My saved masks").click()
    ran(at)
    assert "Up to 1 mask on 6 prompts" in words(at)
    button(at, "Compare masks").click()
    wait_for(ran(at), "Where the ranking matters")
    comparison = open_item(workspace().items("comparisons")[0])
    assert [mask.dropped for mask in comparison.masks] == [(5, 9)]
    assert list(comparison.ways["method"]) == ["five and nine"]
    assert comparison.n_shared == 0


def test_the_time_is_that_of_a_pass_for_each_mask_and_prompt() -> None:
    asked = Question("p", "p", ("block-influence",), ("first-k",), 3)
    assert time_words(asked, 3, 60, 16, 0.5) == "up to 2 min 30 s"
    assert time_words(replace(asked, criteria=("damage-kl",)), 3, 60, 16, 0.5) == "up to 10 min 30 s"
    assert time_words(asked, 3, 60, 16, 0.5, 120) == "up to 3 min 30 s"
    assert time_words(asked, 3, 60, 16, None) == "time not known yet"


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ([0.99, 0.96, 0.5], "2 layers, 20% of the parameters, can go while 96% of exact match is kept."),
        (
            [0.9, 0.8, 0.5],
            "No mask keeps 95% of exact match: the best keeps 90% with 1 layer (10% of the parameters) less.",
        ),
        ([float("nan")] * 3, "No mask has a number for exact match."),
    ],
)
def test_the_front_is_told_in_a_sentence(kept: list[float], said: str) -> None:
    table = pd.DataFrame({"worst": kept, "budget": [1, 2, 3], "parameters_left": [0.9, 0.8, 0.7]})
    assert front_words(table, "worst", "exact match") == said
