"""Alpaca, as LLaMA-Factory and ms-swift read it: `instruction`, `input` and `output`.

Beside them lie `images` (or `image`), `system` and `history`. A `dataset_info.json` beside the table may name other columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.described import ALPACA, FILE, description
from vlm_analysis.prompts.formats.turns import questions_with_history

NAME = "alpaca"
TITLE = "Alpaca instructions"


def matches(sample: Sample) -> str | None:
    """Return the reason where a `dataset_info.json` says so, or there are `instruction` and `output`."""
    said = description(sample, ALPACA)
    if said:
        return f"'{said.columns['instruction']}' with '{said.columns['output']}', as {FILE} says"
    is_plain = sample.has("instruction", "output") and not sample.has("question")
    return "'instruction' with 'output'" if is_plain else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row: the instruction, then the input on a line of its own, is the question."""
    said = description(source.sample, ALPACA)
    if said:
        source = replace(source, rows=(replace(row, cells=said.renamed(row.cells)) for row in source.rows))
    return questions_with_history(source, ("instruction", "input"), "output")
