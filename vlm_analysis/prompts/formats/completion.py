"""Prompt and completion, as TRL writes them: each a text or a list of messages, with `images` (or `image`) beside.

Of preferences, `chosen` is the answer. A completion answers the last question of its prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Cells, Row, is_blank
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video
from vlm_analysis.prompts.formats.turns import (
    ASSISTANT,
    ROLE_CONTENT,
    USER,
    Turn,
    asked,
    holds_turns,
    own_question,
    pictures_in,
    read_turns,
    said,
)

NAME = "completion"
TITLE = "prompt and completion"
ANSWERS = ("completion", "chosen")


def matches(sample: Sample) -> str | None:
    """Return the reason where there is `prompt` with `completion` or `chosen`, or with messages in it."""
    if not sample.has("prompt") or sample.has("question"):
        return None
    answer = next(filter(sample.has, ANSWERS), None)
    if answer:
        return f"'prompt' with '{answer}'"
    return "'prompt' with 'role' and 'content'" if holds_turns(sample, "prompt", ROLE_CONTENT) else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for the last question of a row, which the completion answers, or for each."""

    def prompts(cells: Cells) -> list[Cells]:
        no_video(cells)
        turns = _turns(cells.get("prompt"), "prompt", USER)
        answer = next((column for column in ANSWERS if not is_blank(cells.get(column))), None)
        if answer:
            turns += _turns(cells[answer], answer, ASSISTANT)
        return asked(cells, turns, pictures_in(cells), own_question(source))

    return mapped(source, prompts)


def _turns(value: object, column: str, role: str) -> list[Turn]:
    is_list = isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("[{"))
    return read_turns(value, column, ROLE_CONTENT) if is_list else [said(role, value)]
