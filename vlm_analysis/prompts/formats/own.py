"""Strata's own columns: image (or images), question, and what is optional beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import MAX_NAME_SHOWN, MAX_SHOWN, Cells, Row, is_blank, type_of
from vlm_analysis.prompts.formats.base import Picture, Sample, Source, picture_of

NAME = "own"
TITLE = "a prompt table"
COLUMNS = ("image", "images", "question", "domain", "id", "answer", "answers", "choices", "group", "task")
EXPECTED = "'image' (or 'images') and 'question', optionally 'domain', 'id', 'answer', 'answers', 'choices', 'group' and 'task'"
_PICTURES = (str, bytes, dict, Picture)


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
        yield Row(0, error=_left_out(unknown, source.sample))
    yield from source.rows


def images_of(cells: Cells) -> list[str | Picture]:
    """Return the pictures of a row, from `image` or `images`: names of files, or pictures that lie in the cell.

    Raises:
        PromptError: both are filled, neither is, or an entry is neither a path nor a picture.
    """
    one, several = _images(cells.get("image"), "image"), _images(cells.get("images"), "images")
    if one and several:
        raise PromptError("the row has both: expected 'image' or 'images', got two cells filled. Empty one of them.")
    if not one and not several:
        raise PromptError("the row has no image: expected a path in 'image' (or 'images'), got none. Add the path.")
    return one or several


def _images(value: object, column: str) -> list[str | Picture]:
    if is_blank(value):
        return []
    if isinstance(value, str) and column == "images" and value.lstrip().startswith("["):
        text = value.strip()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PromptError(
                f"the cell 'images' could not be read: expected a JSON list of paths, got {text[:60]!r} ({short(error)}). "
                'Write ["a.png", "b.png"].'
            ) from error
    entries = value if isinstance(value, list) else [value]
    for entry in entries:
        if not isinstance(entry, _PICTURES) or is_blank(entry):
            got = short(repr(entry)) if isinstance(value, list) else f"a {type_of(entry)}"
            raise PromptError(
                f"the cell '{column}' could not be read: expected a path or a list of paths, got {got}. Write the path of an image file."
            )
    return [picture_of(entry) for entry in entries]


def shown_columns(columns: Iterable[str], sample: Sample) -> str:
    """Return the first names of columns for a message, as the file writes them."""
    names = [sample.written.get(column, column) for column in list(columns)[:MAX_SHOWN]]
    return ", ".join(short(repr(name), MAX_NAME_SHOWN) for name in names)


def _unknown(columns: Iterable[str]) -> list[str]:
    return [column for column in columns if column and column not in COLUMNS]


def _left_out(columns: list[str], sample: Sample) -> str:
    return f"columns were left out: expected {EXPECTED}, got {shown_columns(columns, sample)}. Remove or rename them."
