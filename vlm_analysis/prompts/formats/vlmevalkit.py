"""VLMEvalKit's TSV: `index`, `question`, options `A` to `Z`, `answer`, and the picture in base64 as `image`, or its path as `image_path`.

An image of at most 64 characters is the index of the row whose picture it shares. `hint` is put before the question; `l2-category` is the
domain and `category` the task, or `category` the domain where there is no other. Fields as in VLMEvalKit's `dataset/image_base.py`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import MAX_ROWS, Cells, Row, as_list, cell_text, choice_of, is_blank
from vlm_analysis.prompts.formats.base import LONGEST_PATH, Picture, Sample, Source, picture_of, pictures_of
from vlm_analysis.prompts.spool import spooled

NAME = "vlmevalkit"
TITLE = "a table of VLMEvalKit"
_ENCODED = re.compile(r"""['"]([A-Za-z0-9+/=]{65,})['"]""")


def matches(sample: Sample) -> str | None:
    """Return the columns where there is an index and a question, and a picture in base64 or the path of one."""
    if not sample.has("index", "question"):
        return None
    if any(isinstance(cell, str) and len(cell) > LONGEST_PATH and _is_encoded(cell) for cell in sample.cells("image")):
        return "'index' and 'question' with 'image' in base64"
    has_options = sample.has("a", "b", "answer") and sample.has("image_path")
    return "'index', 'question' and options 'A', 'B' with 'image_path'" if has_options else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row; one that shares the picture of a later row comes at the end."""
    kept: dict[str, tuple[Path, ...]] = {}
    waiting: list[tuple[Row, str]] = []
    for row in source.rows:
        shares = _shared(row)
        if shares and shares not in kept and len(waiting) < MAX_ROWS:
            waiting.append((row, shares))
            continue
        yield _row(row, kept, shares)
    for row, shares in waiting:
        yield _row(row, kept, shares)


def _row(row: Row, kept: dict[str, tuple[Path, ...]], shares: str) -> Row:
    if row.error:
        return row
    cells = row.cells
    try:
        index = cell_text(cells.get("index"), "index")
        if shares and shares not in kept:
            raise PromptError(
                f"the row has no image: expected a picture in base64 or the index of a row that has one, got {shares!r}. Correct it."
            )
        pictures: list[str | Picture] = (
            [Picture(path.read_bytes()) for path in kept[shares]] if shares else _pictures(cells)
        )
        # On disk, as any later row may share them.
        kept[index] = (
            kept[shares] if shares else tuple(spooled(one.data) for one in pictures if isinstance(one, Picture))
        )
        return Row(row.number, _prompt(cells, index) | {"images": pictures})
    except PromptError as error:
        return Row(row.number, {"id": cells.get("index")}, str(error))


def _prompt(cells: Cells, index: str) -> Cells:
    options = {letter: cell_text(cells.get(letter), letter.upper()) for letter in string.ascii_lowercase}
    choices = [text for text in options.values() if text]
    answer = cells.get("answer")
    several = isinstance(answer, str) and answer.lstrip().startswith("[")
    upper, lower = (cell_text(cells.get(column), column) for column in ("l2-category", "category"))
    question = (cell_text(cells.get(column), column) for column in ("hint", "question"))
    return {
        "id": index,
        "question": "\n".join(text for text in question if text),
        "choices": choices if len(choices) > 1 else None,
        "answer": None if several else choice_of(answer, choices) if len(choices) > 1 else answer,
        "answers": as_list(answer, "answer") if several else None,
        "domain": upper or lower,
        "task": lower if upper else None,
    }


def _pictures(cells: Cells) -> list[str | Picture]:
    image = cells.get("image")
    if is_blank(image):
        return pictures_of(cells.get("image_path"))
    if isinstance(image, str) and image.lstrip().startswith(
        "["
    ):  # a list as Python writes it, far too long to be parsed
        return [picture_of(one) for one in _ENCODED.findall(image)]
    found = picture_of(image)
    if not isinstance(found, Picture):
        raise PromptError(
            f"the cell 'image' could not be read: expected a picture in base64, got {short(repr(image), 60)}. Write it again."
        )
    return [found]


def _shared(row: Row) -> str:
    """Return the index of the row whose picture a row shares; "" where it has its own."""
    image = row.cells.get("image")
    if row.error or is_blank(image) or not isinstance(image, (str, int, float)):
        return ""
    text = str(image) if isinstance(image, str) else cell_text(image, "image")
    return text.strip() if len(text.strip()) <= LONGEST_PATH and not text.strip().startswith("[") else ""


def _is_encoded(text: str) -> bool:
    try:
        return (
            bool(_ENCODED.match(text.strip()[1:200] + "'"))
            if text.startswith("[")
            else isinstance(picture_of(text), Picture)
        )
    except PromptError:
        return False
