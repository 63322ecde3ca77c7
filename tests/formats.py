"""Rows of a format from cells, without a file: recognised first, then read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlm_analysis.prompts.archives import NoFiles
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Format, Options, Sample, Source, Turns
from vlm_analysis.prompts.formats.table import recognise


def sample_of(cells: Sequence[dict[str, Any]], name: str = "data.json", **more: Any) -> Sample:
    columns = tuple(dict.fromkeys(column for one in cells for column in one))
    return Sample(name, columns, tuple(Row(number, one) for number, one in enumerate(cells, 1)), **more)


def read(wanted: Format, *cells: dict[str, Any], turns: Turns = "first", **more: Any) -> list[Row]:
    """Return the rows that a format makes of raw ones; it must be the one that is recognised."""
    sample = sample_of(cells, **more)
    found, reason = recognise(sample)
    assert found is wanted, (found, reason)
    assert reason
    return list(found.rows(Source(sample, sample.rows, NoFiles("data"), options=Options(turns))))


def asked(rows: Sequence[Row]) -> list[tuple[list[Any], str, str]]:
    """Return images, question and answer of each row."""
    assert not [row.error for row in rows if row.error]
    return [(row.cells["images"], row.cells["question"], row.cells["answer"]) for row in rows]


def errors(rows: Sequence[Row]) -> dict[int, str]:
    """Return the errors of rows by their numbers."""
    return {row.number: row.error for row in rows if row.error}
