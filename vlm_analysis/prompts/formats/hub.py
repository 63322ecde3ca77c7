"""Tables with pictures in their cells, as datasets writes them to Parquet and Arrow: structs of `bytes` and `path`, or lists of them.

With a question ('question', 'query' or 'problem'), a caption ('caption', 'captions' or 'text'), or a class: a number whose name the schema
has, or 'label', 'class' or 'category'. Where the columns are called 'image' and 'question', it is a prompt table already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlm_analysis.prompts.cells import Cells, Row
from vlm_analysis.prompts.formats.base import Sample, Source, mapped, no_video, pictures_of
from vlm_analysis.prompts.formats.labels import asked, asked_by

NAME = "hub"
TITLE = "a table with images in its cells"


def matches(sample: Sample) -> str | None:
    """Return the column of pictures, and what is asked of them."""
    column, by = _picture_column(sample), asked_by(sample)
    return f"images in '{column}' with the {by[1]} in '{by[0]}'" if column and by else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row."""
    sample = source.sample
    images, by = _picture_column(sample), asked_by(sample)
    column, kind = by or ("question", "question")

    def prompt(cells: Cells) -> Cells:
        no_video(cells)
        return asked(cells, column, kind, sample.labels.get(column, ())) | {
            "images": pictures_of(cells.get(images or "image"))
        }

    return mapped(source, prompt)


def _picture_column(sample: Sample) -> str | None:
    """Return the only column that holds pictures, or of several that called image or images."""
    found = [column for column in sample.columns if _holds_pictures(sample.cells(column))]
    named = [column for column in found if column in ("image", "images")]
    return (named or found)[0] if len(found) == 1 or named else None


def _holds_pictures(cells: list[Any]) -> bool:
    each = [one for cell in cells for one in (cell if isinstance(cell, list) else [cell]) if one is not None]
    return bool(each) and all(
        isinstance(one, bytes) or (isinstance(one, dict) and {"bytes", "path"} <= set(one)) for one in each
    )
