"""Strata's own columns: image (or images), question, and what is optional beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vlm_analysis.errors import short
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source

NAME = "own"
TITLE = "a prompt table"
COLUMNS = ("image", "images", "question", "domain", "id", "answer", "answers", "choices", "group", "task")
EXPECTED = "'image' (or 'images') and 'question', optionally 'domain', 'id', 'answer', 'answers', 'choices', 'group' and 'task'"
MAX_SHOWN = 12
MAX_NAME_SHOWN = 60


def matches(sample: Sample) -> str | None:
    """Return the columns that make it one: a question, and an image or images."""
    if not sample.columns and sample.name and not sample.parts:  # no row could be read; each says why
        return "no column could be read"
    image = next((column for column in ("image", "images") if sample.has(column)), "")
    return f"the columns '{image}' and 'question'" if image and sample.has("question") else None


def rows(source: Source) -> Iterator[Row]:
    """Yield the rows as they are; columns that are not used are named once."""
    unknown = _unknown(source.sample.columns)
    if unknown:
        yield Row(0, error=_left_out(unknown))
    yield from source.rows


def shown_columns(columns: Iterable[str]) -> str:
    """Return the first names of columns for a message."""
    return ", ".join(short(repr(column), MAX_NAME_SHOWN) for column in list(columns)[:MAX_SHOWN])


def _unknown(columns: Iterable[str]) -> list[str]:
    return [column for column in columns if column and column not in COLUMNS]


def _left_out(columns: list[str]) -> str:
    return f"columns were left out: expected {EXPECTED}, got {shown_columns(columns)}. Remove or rename them."
