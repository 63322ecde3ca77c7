"""COCO captions: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`, in one JSON object.

A prompt for each image, with a fixed question; all its captions are accepted, the first one is the answer. Fields as in
captions_val2017.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from vlm_analysis.errors import short
from vlm_analysis.prompts.cells import MAX_ROWS, Cells, Row, cell_text
from vlm_analysis.prompts.formats.base import DESCRIBE, Sample, Source, mapped, picture_of, places
from vlm_analysis.words import counted

NAME = "coco"
TITLE = "COCO captions"
IMAGES, CAPTIONS = "images", "annotations"


def matches(sample: Sample) -> str | None:
    """Return the reason where the object has lists of images and of captions."""
    is_pair = {"id", "file_name"} <= set(sample.parts.get(IMAGES, ())) and {"image_id", "caption"} <= set(
        sample.parts.get(CAPTIONS, ())
    )
    return "'images' with 'file_name', 'annotations' with 'caption'" if is_pair else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt for each of the first 10,000 images."""
    following = iter(source.part(IMAGES))
    first = list(islice(following, MAX_ROWS))
    if n_more := sum(1 for _ in following):
        yield Row(0, error=f"{counted(n_more, 'more image')} left out: expected at most {MAX_ROWS:,}. Split the file.")
    captions: dict[str, list[object]] = {_key(row.cells.get("id")): [] for row in first}
    for row in source.part(CAPTIONS):
        captions.get(_key(row.cells.get("image_id")), []).append(row.cells.get("caption"))
    paths = places(source)
    yield from mapped(replace(source, rows=first), lambda cells: _prompt(cells, captions, paths))


def _prompt(cells: Cells, captions: Mapping[str, list[object]], paths: Mapping[str, str]) -> Cells:
    texts = [text for caption in captions[_key(cells.get("id"))] if (text := cell_text(caption, "caption"))]
    name = picture_of(cells.get("file_name"))
    return {
        "id": cells.get("id"),
        "image": paths.get(name, name) if isinstance(name, str) else name,
        "question": DESCRIBE,
        "answer": next(iter(texts), ""),
        "answers": list(dict.fromkeys(texts)),
    }


def _key(value: object) -> str:
    return short(value)
