"""GQA: questions on the things of a photo and how they stand to each other.

Read in lmms-eval's `tasks/gqa/utils.py` and in code that reads lmms-lab/GQA: questions are a table in a folder such as
"testdev_balanced_instructions" with id, imageId, question, answer, fullAnswer and types (structural, semantic, detailed); pictures are a
table with id and image in "testdev_balanced_images" beside it. Or each picture is a file named by its imageId, as in GQA's own download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import MAX_ROWS, Cells, Row, cell_text
from vlm_analysis.prompts.formats.base import Picture, Source, mapped, picture_of
from vlm_analysis.prompts.formats.benchmarks.benchmark import WORD, Benchmark
from vlm_analysis.prompts.images import IMAGE_SUFFIXES
from vlm_analysis.prompts.spool import spooled

_INSTRUCTIONS, _IMAGES = "instructions", "images"
_PACKED = (".parquet", ".arrow")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")
_USED = ("id", "imageid", "question", "answer", "types")
_GQA = Benchmark(
    "gqa",
    "GQA",
    ("imageid question answer",),
    {
        "id": "id",
        "image": "image",
        "question": "question",
        "answer": "answer",
        "domain": "types.structural",
        "task": "types.detailed",
    },
    suffix=WORD,
)
NAME, TITLE = _GQA.NAME, _GQA.TITLE
matches = _GQA.matches


def rows(source: Source) -> Iterator[Row]:
    """Yield the questions with their pictures; those of the first 10,000 are looked up, which is what a set may hold."""
    return _GQA.rows(source) if source.sample.has("image") else _joined(source)


def _joined(source: Source) -> Iterator[Row]:
    slim = (replace(row, cells={name: row.cells.get(name) for name in _USED}) for row in source.rows)
    first = list(islice(slim, MAX_ROWS))
    kept = _kept(source, {_key(row.cells.get("imageid")) for row in first})

    def prompt(cells: Cells) -> Cells:
        number = _key(cells.get("imageid"))
        found = kept.get(number)
        if found is None:
            raise PromptError(
                f"the row has no image: expected the picture {short(repr(number), 60)} in the table of pictures or as a file, got none. "
                "Add it, or remove the row."
            )
        image = Picture(found.read_bytes(), number) if isinstance(found, Path) else found
        return _GQA.prompt(cells | {"image": image}, suffix=source.options.suffix)

    return mapped(replace(source, rows=chain(first, slim)), prompt)


def _kept(source: Source, wanted: set[str]) -> dict[str, str | Path]:
    """Return the pictures of these numbers: names of files beside the questions, and files that keep what tables hold."""
    here = PurePosixPath(source.folder)
    paths = [path for path in map(PurePosixPath, source.files.names()) if path.is_relative_to(here)]
    kept: dict[str, str | Path] = {
        path.stem: str(path.relative_to(here))
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES and path.stem in wanted
    }
    tables = [] if kept else _tables(source)
    if not kept and not tables:
        raise PromptError(
            f"'{short(source.sample.name)}' has no pictures: GQA keeps them in a table of their own, or as files; expected "
            f"'…_{_IMAGES}' beside '…_{_INSTRUCTIONS}', or '2370799.jpg', got neither. Open the folder that holds both."
        )
    for row in chain.from_iterable(source.part("", table) for table in tables):
        if (number := _key(row.cells.get("id"))) in wanted and number not in kept:
            try:
                picture = picture_of(row.cells.get("image"))
            except PromptError:  # the questions on it say that it is missing
                continue
            kept[number] = spooled(picture.data) if isinstance(picture, Picture) else picture
    return kept


def _tables(source: Source) -> list[str]:
    """Return the tables of pictures by their names from the questions' folder: those of the same split in the folder beside it."""
    here = PurePosixPath(source.folder)
    if not here.name.endswith(_INSTRUCTIONS):
        return [name for name in source.sample.files if _IMAGES in name.lower() and name.endswith(_PACKED)]
    beside = here.with_name(here.name.removesuffix(_INSTRUCTIONS) + _IMAGES)
    split = _SHARD.sub("", source.sample.name)
    names = [path for path in map(PurePosixPath, source.files.names()) if path.parent == beside]
    return [
        f"../{beside.name}/{path.name}"
        for path in names
        if _SHARD.sub("", path.name) == split and path.suffix in _PACKED
    ]


def _key(value: object) -> str:
    return cell_text(value, "imageId") if isinstance(value, (str, int, float)) else ""
