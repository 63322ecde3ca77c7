"""The gallery of an evaluation: every answer can be found, filters look at all prompts, and what Ask both got is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from acting import OpenPage, hold_bundled, ran, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Comparison, Evaluation, PromptSet
from vlm_analysis.evaluation.run.respond import Divergence
from vlm_analysis.selection.compared.comparison import METRICS, RESPONSES, ways_frame
from vlm_analysis.selection.strategies.many import Way
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.evaluate.asked import MOST, Question, asked, keep_asked
from vlm_analysis.workbench.responses import Responses
from vlm_analysis.workbench.shelf import keep_comparison, keep_evaluation, keep_prompts

PAGE = "pages/5_evaluate.py"
HOSTILE = "![x](http://host.example/p.png) **b** $x$"
NOTHING = Divergence((), np.zeros(0), np.zeros(0, bool))


@pytest.fixture
def many(stocked: OpenPage, few: PromptSet) -> tuple[OpenPage, Evaluation]:
    """Forty prompts in use, of which the last twenty are lost; the very last holds hostile text."""
    prompts = PromptSet(
        replace(few[row % 6], id=f"p{row}", question=f"{HOSTILE} {row}?" if row == 39 else f"question {row}?")
        for row in range(40)
    )
    stock = opened(next(item for item in workspace().items("evaluations") if item.name == "dense"))
    edited = opened(next(item for item in workspace().items("evaluations") if item.name != "dense"))
    rows = [row % 6 for row in range(40)]
    frame = stock.by_prompt.iloc[rows].reset_index(drop=True).assign(id=[f"p{row}" for row in range(40)])
    frame["exact_match"] = True
    dense = replace(stock, prompts=prompts.fingerprint, by_prompt=frame)
    lost = frame.assign(exact_match=[row < 20 for row in range(40)], answer_nll=frame["answer_nll"] + np.arange(40.0))
    pruned = replace(edited, prompts=prompts.fingerprint, by_prompt=lost)
    keep_prompts(workspace(), prompts, "forty")
    keep_evaluation(workspace(), dense, "dense on forty")
    keep_evaluation(workspace(), pruned, "edited on forty")
    return stocked, pruned


def ids(at: AppTest) -> list[str]:
    """Return the questions' numbers of the cards in view."""
    last = (text.value.split()[-1] for text in at.text if text.value.endswith("?"))
    return [word.rstrip("?") for word in last if word[0].isdecimal()]  # the menu asks "Depth or width?"


def widget(at: AppTest, kind: str, key: str):
    return next(one for one in at.get(kind) if str(one.key).startswith(key))


def test_the_most_harmed_answer_comes_first_and_the_filters_look_at_all_prompts(many) -> None:
    at = many[0](PAGE)
    assert ids(at) == [str(row) for row in range(39, 27, -1)]
    assert [metric.value for metric in at.metric[:2]] == ["50%", "20 of 40"]
    widget(at, "button_group", "gallery-outcome:").set_value("right")
    assert ids(ran(at))[0] == "19"
    widget(at, "text_input", "gallery-search:").set_value("QUESTION 13?")
    assert ids(ran(at)) == ["13"]
    assert "1 of 40 answers" in words(at)
    widget(at, "text_input", "gallery-search:").set_value("no such word")
    assert "No answer fits" in words(ran(at))


def test_hostile_text_is_shown_and_never_live(many) -> None:
    stocked, pruned = many
    written = pruned.by_prompt.assign(response=HOSTILE, normalised_match=0.0, numeric_match=0.0)
    keep_evaluation(workspace(), replace(pruned, by_prompt=written), "hostile")
    at = stocked(PAGE)
    live = "\n".join(str(one.value) for part in (at.markdown, at.caption, at.info) for one in part)
    assert "http://" not in live
    assert "host" in live
    assert any(text.value.startswith(HOSTILE) for text in at.text)


def test_responses_that_a_story_holds_are_shown_in_the_gallery(many) -> None:
    stocked, pruned = many
    dense = next(opened(item) for item in workspace().items("evaluations") if item.name == "dense on forty")
    scores = {metric: pruned.by_prompt[metric].to_numpy(float)[None] for metric in METRICS}
    ways = ways_frame([Way("first", "block-influence", "first-k", None, 2, 0, pruned.edit)], [pruned.edit])
    told = pd.DataFrame([(0, "p38", "question 38?", "a dense tale", "a pruned tale")], columns=list(RESPONSES))
    assert "prompts here lack a response" in words(stocked(PAGE))
    keep_comparison(workspace(), Comparison(dense, (pruned.edit,), scores, ways, "c" * 64, responses=told), "story")
    at = stocked(PAGE)
    said = [one.value for one in at.markdown]
    assert [one for one in said if "pruned" in one and "tale" in one]


def test_responses_of_ask_both_are_shown_in_the_gallery(many, few: PromptSet) -> None:
    stocked, pruned = many
    at = stocked(PAGE)
    assert "prompts here lack a response" in words(at)
    item = next(item for item in workspace().items("prompts") if item.name == "forty")
    prompt = next(one for one in opened(item) if one.id == "p38")
    here = Question(pruned.model.fingerprint, pruned.edit.key, prompt.image_hashes, prompt.question)
    keep_asked(here, Responses("a dense word", "a pruned word", NOTHING))
    keep_asked(here._replace(edit="another"), Responses("a dense word", "of another mask", NOTHING))
    said = words(ran(at))
    assert "pruned" in said
    assert "of another mask" not in said


def test_a_card_leads_to_ask_both_with_its_prompt(many) -> None:
    stocked = many[0]
    assert not [one for one in stocked(PAGE).button if str(one.key).startswith("ask:")]  # no model is loaded
    hold_bundled()
    at = stocked(PAGE)
    next(one for one in at.button if str(one.key).startswith("ask:") and one.key.endswith(":p38")).click()
    assert next(box for box in ran(at).selectbox if box.label == "Prompt").value == 38


def test_only_the_last_responses_are_kept() -> None:
    first = Question("m", "e", (), "0")
    for number in range(MOST + 1):
        keep_asked(first._replace(question=str(number)), Responses("", "", NOTHING))
    assert len(asked()) == MOST
    assert first not in asked()
