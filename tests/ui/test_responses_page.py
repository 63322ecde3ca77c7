"""The Evaluate page with and without written responses and choices: what is asked for, and what the tables then show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from acting import hold_bundled, ran, settled, words
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Checkbox

from vlm_analysis import LoadedModel, PromptSet, PruneMask, evaluate
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.workbench.evaluations import MAX_WRITTEN
from vlm_analysis.workbench.shelf import keep_evaluation, keep_mask, keep_prompts, open_item

OpenPage = Callable[[str], AppTest]
PAGE = "pages/5_evaluate.py"


def evaluated(at: AppTest, *, responses: bool) -> AppTest:
    """Press the button and run the page to the end: it draws scores with or without those of responses."""
    next(button for button in at.button if button.label == "Prune and evaluate").click()
    ran(at)
    assert ("normalised_match" in columns_of(settled(at))[0]) == responses, words(at)
    return at


def box(at: AppTest) -> Checkbox:
    return next(one for one in at.checkbox if one.label == "Write the responses")


def columns_of(at: AppTest) -> list[list[str]]:
    frames = [frame.value for frame in at.dataframe if "low" not in frame.value]  # without the intervals
    return [list(frame.columns) for frame in frames]


def test_responses_are_written_unless_the_box_is_cleared(stocked: OpenPage) -> None:
    hold_bundled()
    keep_mask(workspace(), PruneMask(16, (2, 3, 4, 9), name="four", model=model_slot().info))
    at = stocked(PAGE)
    assert box(at).value
    scores, broken = columns_of(evaluated(at, responses=True))
    assert {"normalised_match", "normalised_match_dense", "numeric_match"} <= set(scores)
    assert broken.index("response") == broken.index("answer") + 1
    newest = [open_item(item) for item in workspace().items("evaluations")]
    assert all("response" in one.by_prompt for one in newest[:2])
    assert sum(one.is_dense for one in newest) == 1  # the dense one was written into, not saved beside
    box(at).uncheck()
    ran(at)
    assert all("response" not in columns for columns in columns_of(evaluated(at, responses=False)))


def test_many_prompts_are_written_for_only_when_asked(stocked: OpenPage, few: PromptSet) -> None:
    many = PromptSet(replace(few[0], id=str(number)) for number in range(MAX_WRITTEN + 1))
    keep_prompts(workspace(), many, "many")
    assert not box(stocked(PAGE)).value


def test_what_the_pruned_model_wrote_stands_beside_the_answer(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    mask = PruneMask(16, (2, 3, 4, 9), name="four")
    dense = evaluate(loaded, few, responses=True)
    pruned = evaluate(loaded, few, mask, reference=dense, responses=True)
    lost = pruned.by_prompt[dense.by_prompt["exact_match"] & ~pruned.by_prompt["exact_match"]]
    assert len(lost) > 1
    keep_evaluation(workspace(), pruned, "four")
    table = stocked(PAGE).dataframe[-1].value.set_index("id")
    assert table["response"].to_dict() == lost.set_index("id")["response"].to_dict()


@pytest.mark.parametrize("responses", [False, True])
def test_choices_are_drawn_with_their_scores(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet, responses: bool
) -> None:
    asked = PromptSet(replace(prompt, choices=(str(prompt.answer), "another *one*")) for prompt in few)
    mask = PruneMask(16, (2, 3, 4, 9), name="four")
    dense = evaluate(loaded, asked)
    keep_evaluation(workspace(), dense, "dense on choices")
    keep_evaluation(workspace(), evaluate(loaded, asked, mask, reference=dense, responses=responses), "four on choices")
    scores, broken = columns_of(stocked(PAGE))
    assert {"choice_match", "choice_match_dense", "choice_match_norm"} <= set(scores)
    assert "choice" in broken
    assert ("normalised_match" in scores, "response" in broken) == (responses, responses)
    assert "normalised_match_dense" not in scores  # the dense model was not asked


def test_prompts_without_answers_say_what_they_are_scored_on(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    bare = PromptSet([replace(few[0], answer=None), replace(few[1], answer=None, choices=("1", "2"))])
    keep_evaluation(workspace(), evaluate(loaded, bare, PruneMask(16, (5,))), "bare")
    assert "2 of 2 prompts have no answer of their own" in words(stocked(PAGE))


def test_lost_prompts_with_an_answer_of_their_own_are_counted_apart(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    mask = PruneMask(16, (2, 3, 4, 9))
    mixed = PromptSet(replace(prompt, answer=prompt.answer if place % 2 else None) for place, prompt in enumerate(few))
    dense = evaluate(loaded, mixed)
    pruned = evaluate(loaded, mixed, mask, reference=dense)
    keep_evaluation(workspace(), dense, "dense")
    keep_evaluation(workspace(), pruned, "mixed")
    lost = dense.by_prompt["exact_match"] & ~pruned.by_prompt["exact_match"]
    given = dense.by_prompt["answer_source"] == "given"
    assert 0 < (lost & given).sum() < lost.sum()
    at = stocked(PAGE)
    own = f"With an answer of their own: {(lost & given).sum()} of {(dense.by_prompt['exact_match'] & given).sum()} are lost"
    assert own in words(at)
    table = at.dataframe[-1].value
    assert sorted(table["answer_source"]) == sorted(dense.by_prompt["answer_source"][lost])
    keep_evaluation(workspace(), evaluate(loaded, few), "dense")
    keep_evaluation(workspace(), evaluate(loaded, few, mask, reference=evaluate(loaded, few)), "given")
    assert "answer of their own" not in words(stocked(PAGE))


def test_the_help_on_prompt_tables_names_the_choices(open_page: OpenPage) -> None:
    at = open_page("pages/2_prompts.py")
    at.session_state["way-in"] = "Open a file or folder"
    ran(at)
    assert "`choices`" in words(at)


def test_accepted_answers_are_said_to_count_and_shown(stocked: OpenPage, loaded: LoadedModel, few: PromptSet) -> None:
    several = PromptSet(replace(prompt, answers=("another answer",)) for prompt in few)
    mask = PruneMask(16, (2, 3, 4, 9))
    dense = evaluate(loaded, several)
    keep_evaluation(workspace(), dense, "dense on several")
    keep_evaluation(workspace(), evaluate(loaded, several, mask, reference=dense), "several")
    at = stocked(PAGE)
    assert f"On {len(few)} of {len(few)} prompts any of 2 accepted answers counts" in words(at)
    shown = at.dataframe[-1].value
    assert all(list(answers)[1] == "another answer" for answers in shown["answers"])
