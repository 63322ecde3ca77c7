"""ms-swift: `query` and `response`, or `conversation` of objects with `human` and `assistant`; `images`, `system` and `history` beside.

Its `messages` are read as messages. Texts with `<bbox>` or `<ref-object>` are left out: what stands there differs from model to model.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.turns import Tags, holds_turns, pairs, questions_with_history

NAME = "swift"
TITLE = "ms-swift queries"
COLUMN = "conversation"
KEYS = ("human", "assistant")


def matches(sample: Sample) -> str | None:
    """Return the reason where there are `query` and `response`, or `conversation` has 'human' and 'assistant'."""
    if sample.has("query", "response"):
        return "'query' with 'response'"
    return "'conversation' with 'human' and 'assistant'" if holds_turns(sample, COLUMN, Tags(*KEYS)) else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row; of a conversation the first, the last or each."""
    if source.sample.has("query", "response"):
        return questions_with_history(source, ("query",), "response")
    return pairs(source, COLUMN, KEYS)
