"""LLaVA: `id`, `image` (a path, or a list of them) and `conversations` of turns with `from` (human, gpt) and `value`.

Fields as in LLaVA's guide to own data (docs/Finetune_Custom_Data.md). A row without `image` is text only.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.turns import FROM_VALUE, conversations, holds_turns

NAME = "llava"
TITLE = "LLaVA conversations"
COLUMN = "conversations"


def matches(sample: Sample) -> str | None:
    """Return the reason where `conversations` has turns with 'from' and 'value', and no `images` lie beside it."""
    if sample.has("images") or not holds_turns(sample, COLUMN, FROM_VALUE):
        return None
    return "'conversations' with 'from' and 'value'"


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for the first, the last or each question of a row."""
    return conversations(source, COLUMN, FROM_VALUE, ("image",))
