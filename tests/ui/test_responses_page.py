"""The Evaluate page with and without written responses and choices: what is asked for, and what the tables then show."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from acting import hold_bundled, ran, settled, words
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Checkbox

from vlm_analysis import Evaluation, PromptSet, PruneMask
from vlm_analysis.evaluation.evaluation import COLUMNS, with_extras
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.workbench.evaluations import MAX_WRITTEN
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, open_item

OpenPage = Callable[[str], AppTest]
PAGE = "pages/5_evaluate.py"


def evaluated(at: AppTest, *, responses: bool) -> AppTest:
    """Press the button and run the page to the end: it draws scores with or without those of responses."""
    next(button for button in at.button if button.label == "Prune and evaluate").click()
    ran(at)
    assert (("Pruned", "Normalised match") in scores_of(settled(at)).columns) == responses, words(at)
    return at


def box(at: AppTest) -> Checkbox:
    return next(one for one in at.checkbox if one.label == "Write the responses")


def scores_of(at: AppTest) -> pd.DataFrame:
    """Return the table of scores by domain."""
    return next(frame.value for frame in at.dataframe if frame.value.columns.nlevels == 2)


def cards(at: AppTest) -> str:
    """Return what the cards say as a reader sees it."""
    marks = r"\\(.)|:(?:orange|blue)-background\[(?:\*\*)?|(?:\*\*)?\]"
    return re.sub(marks, lambda match: match[1] or "", words(at)).replace("\u2060", "").replace("\u00a0", " ")


def test_responses_are_written_unless_the_box_is_cleared(stocked: OpenPage) -> None:
    hold_bundled()
    keep_mask(workspace(), PruneMask(16, (2, 3, 4, 9), name="four", model=model_slot().info))
    at = stocked(PAGE)
    assert box(at).value
    scores = scores_of(evaluated(at, responses=True))
    assert {("Dense", "Normalised match"), ("Pruned", "Normalised match"), ("Pruned", "Numeric match")} <= set(scores)
    assert "not written yet" not in words(at)
    newest = [open_item(item) for item in workspace().items("evaluations")]
    assert all("response" in one.by_prompt for one in newest[:2])
    assert sum(one.is_dense for one in newest) == 1  # the dense one was written into, not saved beside
    box(at).uncheck()
    ran(at)
    assert "not written yet" not in words(evaluated(at, responses=False))  # those of the evaluation before are shown


def test_many_prompts_are_written_for_only_when_asked(stocked: OpenPage, few: PromptSet) -> None:
    many = PromptSet(replace(few[0], id=str(number)) for number in range(MAX_WRITTEN + 1))
    keep_prompts(workspace(), many, "many")
    assert not box(stocked(PAGE)).value


@pytest.fixture
def pair(stocked: OpenPage) -> tuple[Evaluation, Evaluation]:
    """The dense evaluation of the stock, and one that lost the first, the second and the last of its six answers."""
    edited, dense = (open_item(item) for item in workspace().items("evaluations"))
    right = dense.by_prompt.assign(exact_match=True)
    return replace(dense, by_prompt=right), with_rows(edited, exact_match=[False, False, True, True, True, False])


def with_rows(evaluation: Evaluation, **columns: list[Any]) -> Evaluation:
    known = {name: values for name, values in columns.items() if name in COLUMNS}
    extras = {name: values for name, values in columns.items() if name not in COLUMNS}
    return replace(evaluation, by_prompt=with_extras(evaluation.by_prompt.assign(**known), extras))


def keep_both(dense: Evaluation, edited: Evaluation) -> None:
    keep_evaluation(workspace(), dense, "dense")
    keep_evaluation(workspace(), edited, "edited")


def test_what_the_pruned_model_wrote_stands_beside_the_answer(
    stocked: OpenPage, pair: tuple[Evaluation, Evaluation]
) -> None:
    said = [f"what it wrote to {number}" for number in range(6)]
    matches = dict.fromkeys(("normalised_match", "numeric_match"), [0.0] * 6)
    keep_both(pair[0], with_rows(pair[1], response=said, **matches))
    shown = cards(stocked(PAGE))
    assert [response for response in said if response not in shown] == []


@pytest.mark.parametrize("responses", [False, True])
def test_choices_are_drawn_with_their_scores(
    stocked: OpenPage, pair: tuple[Evaluation, Evaluation], responses: bool
) -> None:
    chosen: dict[str, list[Any]] = {"choice": ["one"] * 6, "choice_match": [1.0] * 6, "choice_match_norm": [0.0] * 6}
    written = {"response": ["one"] * 6, "normalised_match": [0.0] * 6, "numeric_match": [0.0] * 6} if responses else {}
    keep_both(with_rows(pair[0], **chosen), with_rows(pair[1], **chosen, **written))
    at = stocked(PAGE)
    scores = scores_of(at)
    assert {("Dense", "Choice match"), ("Pruned", "Choice match, per token"), ("Difference", "Choice match")} <= set(
        scores
    )
    assert "Most likely choice: " in words(at)
    assert (("Pruned", "Normalised match") in scores) == responses
    assert ("Dense", "Normalised match") not in scores  # the dense model was not asked


def test_lost_prompts_with_an_answer_of_their_own_are_counted_apart(
    stocked: OpenPage, pair: tuple[Evaluation, Evaluation]
) -> None:
    source = ["given", "dense response"] * 3
    keep_both(*(with_rows(one, answer_source=source) for one in pair))
    at = stocked(PAGE)
    assert "3 of 6 prompts have no answer of their own" in words(at)
    assert "With an answer of their own: 1 of 3 are lost" in words(at)
    assert words(at).count("Scored on the dense response") == 3
    keep_both(*pair)
    assert "answer of their own" not in words(stocked(PAGE))


def test_the_help_on_prompt_tables_names_the_choices(open_page: OpenPage) -> None:
    at = open_page("pages/2_prompts.py")
    at.session_state["way-in"] = "Open a file or folder"
    ran(at)
    assert "`choices`" in words(at)


def test_accepted_answers_are_said_to_count_and_shown(
    stocked: OpenPage, pair: tuple[Evaluation, Evaluation], few: PromptSet
) -> None:
    several = PromptSet(replace(prompt, answers=(prompt.answer, "another answer")) for prompt in few)
    keep_prompts(workspace(), several, "several")
    asked = [replace(one, prompts=several.fingerprint) for one in pair]
    keep_both(*(with_rows(one, answers=[list(prompt.answers) for prompt in several]) for one in asked))
    at = stocked(PAGE)
    assert f"On {len(few)} of {len(few)} prompts any of 2 accepted answers counts" in words(at)
    assert words(at).count("another answer") == len(few)
