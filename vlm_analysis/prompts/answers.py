"""The answers in a row: the reference answer, all that are accepted, and the choice that a letter or number names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlm_analysis.prompts.cells import Cells, as_list, cell_text, choice_of, is_blank


def answers_of(cells: Cells, choices: tuple[str, ...] | None) -> tuple[str, tuple[str, ...] | None]:
    """Return the answer of a row ("" where it is blank) and its accepted answers (None where there are none).

    `answer` may be a list, which is taken for `answers`. An accepted answer is a text, a number, or an object with a text `answer`, as
    VQAv2 has it. With choices an answer is one of them as it stands, its letter, or its number from 0.

    Raises:
        PromptError: a cell is none of these, or the answer names no choice.
    """
    answer, several = cells.get("answer"), cells.get("answers")
    if isinstance(answer, list):
        answer, several = None, answer if is_blank(several) else several
    text = _answer(answer, choices)
    accepted = tuple(_accepted(one, choices) for one in as_list(several, "answers"))
    return text, accepted or None


def _accepted(one: object, choices: tuple[str, ...] | None) -> str:
    value: Any = one.get("answer") if isinstance(one, Mapping) else one
    return _answer(value, choices, "answers")


def _answer(value: object, choices: tuple[str, ...] | None, column: str = "answer") -> str:
    text = cell_text(value, column)
    if choices is None or text in choices:  # a number may be a choice as it stands
        return text
    return choice_of(value, choices) or ""
