"""ms-swift: `query` and `response`, or `conversation` of objects with `human` and `assistant`; `images`, `system` and `history` beside.

Its `messages` are read as messages. Texts with `<bbox>` or `<ref-object>` are left out: what stands there differs from model to model.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Cells, Row, as_list
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video
from vlm_analysis.prompts.formats.turns import (
    ASSISTANT,
    USER,
    Tags,
    Turn,
    asked,
    distinct,
    holds_turns,
    pictures_in,
    questions_with_history,
    said,
)

NAME = "swift"
TITLE = "ms-swift queries"
PAIR = Tags("human", "assistant")


def matches(sample: Sample) -> str | None:
    """Return the reason where there are `query` and `response`, or `conversation` has 'human' and 'assistant'."""
    if sample.has("query", "response"):
        return "'query' with 'response'"
    return "'conversation' with 'human' and 'assistant'" if holds_turns(sample, "conversation", PAIR) else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row; of a conversation the first, the last or each."""
    if not source.sample.has("conversation"):
        return questions_with_history(source, ("query",), "response")

    def prompts(cells: Cells) -> list[Cells]:
        no_video(cells)
        return asked(cells, _turns(cells.get("conversation")), pictures_in(cells), source.options.turns)

    return distinct(mapped(source, prompts))


def _turns(value: object) -> list[Turn]:
    pairs = [pair if isinstance(pair, dict) else {} for pair in as_list(value, "conversation")]
    return [said(role, pair.get(key)) for pair in pairs for role, key in ((USER, PAIR.role), (ASSISTANT, PAIR.content))]
