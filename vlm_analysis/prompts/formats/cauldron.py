"""The Cauldron and FineVision: `images`, and `texts` of objects with `user` and `assistant`."""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.turns import Tags, holds_turns, pairs

NAME = "cauldron"
TITLE = "The Cauldron's texts"
COLUMN = "texts"
KEYS = ("user", "assistant")


def matches(sample: Sample) -> str | None:
    """Return the reason where `texts` has 'user' and 'assistant'."""
    return "'texts' with 'user' and 'assistant'" if holds_turns(sample, COLUMN, Tags(*KEYS)) else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for the first, the last or each question of a row."""
    return pairs(source, COLUMN, KEYS)
