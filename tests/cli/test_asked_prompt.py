"""`strata ask`: another question or image makes a prompt without the answers of the one that it is made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tables import BLUE, RED

from vlm_analysis import Prompt, PromptSet
from vlm_analysis.cli.judging import _prompt
from vlm_analysis.errors import PromptError

PROMPTS = PromptSet([Prompt((RED, BLUE), "is <image> like <image>?", id="two", answers=("no", "not at all"))])


def test_the_prompt_itself_keeps_its_answers() -> None:
    assert _prompt(PROMPTS, "two", "", None) is PROMPTS[0]


def test_another_question_or_image_has_no_answer(folder: Path) -> None:
    other = _prompt(PROMPTS, "", "what is <image 2> beside <image 1>?", None)
    assert (other.parts[1], other.answer, other.answers) == (1, None, None)
    own = _prompt(PROMPTS, "two", "what?", folder / "a.png")
    assert (len(own.images), own.question, own.answer, own.answers) == (1, "what?", None, None)


def test_marks_that_do_not_fit_the_other_image_are_refused_in_words(folder: Path) -> None:
    with pytest.raises(PromptError, match="expected 1 <image> for 1 picture, got 2"):
        _prompt(PROMPTS, "two", "", folder / "a.png")
