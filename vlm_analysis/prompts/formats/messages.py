"""Messages: turns with `role` and `content`, as OpenAI, TRL, mlx-vlm and ms-swift write them, with pictures in the parts or beside.

`content` is a text, in which `<image>` marks a picture, or a list of parts: `{"type": "text", "text": …}`, `{"type": "image"}` (the
row's next picture, or the one numbered by `index`), or a picture itself under `image`, `image_url`, `url`, `path` or `base64`.
"""

from __future__ import annotations

from collections.abc import Iterator

from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.formats.base import Sample, Source
from vlm_analysis.prompts.formats.turns import ROLE_CONTENT, conversations, holds_turns

NAME = "messages"
TITLE = "messages"
COLUMNS = ("messages", "conversations", "conversation")


def matches(sample: Sample) -> str | None:
    """Return the reason where a column has turns with 'role' and 'content'."""
    column = _column(sample)
    return f"'{column}' with 'role' and 'content'" if column else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for the first, the last or each question of a row."""
    return conversations(source, _column(source.sample) or COLUMNS[0], ROLE_CONTENT)


def _column(sample: Sample) -> str | None:
    return next((column for column in COLUMNS if holds_turns(sample, column, ROLE_CONTENT)), None)
