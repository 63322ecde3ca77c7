"""ShareGPT, as LLaMA-Factory reads it: `conversations` of turns with `from` and `value`, with `images` and `system` beside.

A `dataset_info.json` beside the table may name other columns, keys and roles. `chosen` of preferences is the answer to the last question.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Cells, Row, is_blank
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video
from vlm_analysis.prompts.formats.described import COLUMNS, FILE, SHAREGPT, Described, description
from vlm_analysis.prompts.formats.turns import FROM_VALUE, asked, holds_turns, pictures_in, read_turns

NAME = "sharegpt"
TITLE = "ShareGPT conversations"
COLUMN = COLUMNS["messages"]
PLAIN = Described({}, FROM_VALUE)


def matches(sample: Sample) -> str | None:
    """Return the reason where a `dataset_info.json` says so, or turns with 'from' and 'value' have `images` beside them."""
    said = description(sample, SHAREGPT)
    if said:
        return f"'{said.columns[COLUMN]}' with '{said.tags.role}' and '{said.tags.content}', as {FILE} says"
    return "'conversations' with 'from' and 'value', and 'images'" if _is_plain(sample) else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for the first, the last or each question of a row."""
    said = description(source.sample, SHAREGPT) or PLAIN

    def prompts(row: Cells) -> list[Cells]:
        no_video(row)
        cells = said.renamed(row)
        turns = read_turns(cells.get(COLUMN), COLUMN, said.tags)
        if not is_blank(cells.get("chosen")):
            turns += read_turns([cells["chosen"]], "chosen", said.tags)
        return asked(cells, turns, pictures_in(cells), source.options.turns)

    return mapped(source, prompts)


def _is_plain(sample: Sample) -> bool:
    return sample.has("images") and not sample.has("question") and holds_turns(sample, COLUMN, FROM_VALUE)
