"""Image folders, as datasets reads them: pictures with a `metadata.csv`, `.jsonl` or `.parquet`, or in a folder for each class.

The table names them in `file_name`, `file_names` (a list) or several columns such as `front_file_name`, relative to itself; each split may
have a table of its own. What is asked is a question, a caption or a class (see `labels`). The domain is the name of the picture's folder,
unless that is a split's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.cells import Cells, Row, as_list, cell_text, is_blank
from vlm_analysis.prompts.formats.base import ADD_ROWS, NAME_IT, Sample, Source, left_out, mapped
from vlm_analysis.prompts.formats.labels import asked, asked_by, choices_of
from vlm_analysis.prompts.formats.texts import has_questions
from vlm_analysis.prompts.images import IMAGE_SUFFIXES
from vlm_analysis.prompts.tables import MOST_SAMPLED, columns_of

NAME = "imagefolder"
TITLE = "an image folder"
METADATA = re.compile(r"metadata\.(csv|jsonl|parquet)", re.IGNORECASE)
SPLITS = ("train", "training", "test", "testing", "eval", "val", "valid", "validation", "dev", "data", "images", "imgs")
MOST_NAMED = 3


def matches(sample: Sample) -> str | None:
    """Return the columns that name pictures, the tables of the splits, or the folders of the classes."""
    named = _file_columns(sample.columns)
    if named and asked_by(sample):
        return f"the column {short(repr(named[0]), 60)}"
    if sample.name:
        return None
    tables = _tables(sample)
    if tables:
        return f"a table of images in each of the folders {_shown(str(PurePosixPath(name).parent) for name in tables)}"
    classes = _classes(sample)
    return f"images in the folders {_shown(classes)}, and no text beside them" if classes else None


def rows(source: Source) -> Iterator[Row]:
    """Yield a prompt of each row of the tables, or of each picture."""
    if source.sample.name:
        return _table_rows(source)
    return _of_splits(source) if _tables(source.sample) else _of_classes(source)


def _table_rows(source: Source, folder: str = "") -> Iterator[Row]:
    """Yield a prompt of each row of a table; `folder` is put before the names of its pictures."""
    named = _file_columns(source.sample.columns)
    by = asked_by(source.sample)
    if not named or by is None:
        raise PromptError(
            f"'{short(source.sample.name)}' could not be read: expected 'file_name' and a question, a caption or a class, "
            f"got {short(', '.join(map(repr, source.sample.columns))) or 'no column'}. Add the columns."
        )
    column, kind = by

    def prompt(cells: Cells) -> Cells:
        files = [f"{folder}{name}" for one in named for name in _names(cells.get(one), one)]
        return {"domain": _domain(files)} | asked(cells, column, kind, ()) | {"images": files}

    return mapped(source, prompt)


def _of_splits(source: Source) -> Iterator[Row]:
    """Yield the rows of each split's table, one after another, and what none of them names."""
    used, before = set(_tables(source.sample)), 0
    for name in _tables(source.sample):
        number, path = 0, PurePosixPath(name)
        raw = iter(source.part("", name))
        head = list(islice(raw, MOST_SAMPLED))
        part = replace(source, sample=Sample(path.name, columns_of(head), tuple(head)), rows=chain(head, raw))
        for row in _table_rows(part, "" if str(path.parent) == "." else f"{path.parent}/"):
            number = row.number
            used.update(row.cells.get("images", ()))
            yield replace(row, number=before + number)
        before += number
    yield from left_out(
        [name for name in source.sample.files if name not in used], "files that the tables name", ADD_ROWS
    )


def _of_classes(source: Source) -> Iterator[Row]:
    """Yield the pictures in the folders of classes; the class is the answer, and up to 26 classes are the choices."""
    classes = _classes(source.sample)
    pictures = [name for name in source.sample.files if _is_image(name)]
    used = set(pictures)
    yield from left_out(
        [name for name in source.sample.files if name not in used], f"pictures ({', '.join(IMAGE_SUFFIXES)})"
    )
    for number, name in enumerate(pictures, 1):
        label = PurePosixPath(name).parent.name
        stem = str(PurePosixPath(name).with_suffix(""))
        yield Row(
            number,
            {
                "image": name,
                "id": stem,
                "question": NAME_IT,
                "answer": label,
                "choices": choices_of(classes),
                "domain": label,
            },
        )


def _classes(sample: Sample) -> tuple[str, ...]:
    """Return the names of the folders of pictures, sorted; () where some lie at the top, a folder is a split's, or there are texts."""
    if has_questions(sample.files) or any(name.endswith(".txt") for name in sample.files):
        return ()
    parents = {PurePosixPath(name).parent.name for name in sample.files if _is_image(name)}
    return tuple(sorted(parents)) if len(parents) > 1 and not parents & {"", *SPLITS} else ()


def _tables(sample: Sample) -> list[str]:
    return [name for name in sample.files if METADATA.fullmatch(PurePosixPath(name).name)] if not sample.name else []


def _file_columns(columns: tuple[str, ...]) -> list[str]:
    plain = [column for column in ("file_name", "file_names") if column in columns]
    return plain[:1] or [column for column in columns if column.endswith("_file_name")]


def _names(cell: object, column: str) -> list[str]:
    is_list = isinstance(cell, list) or (isinstance(cell, str) and cell.lstrip().startswith("["))
    names = [cell_text(one, column) for one in (as_list(cell, column) if is_list else [cell])]
    if is_blank(names) or not all(names):
        raise PromptError(
            f"the row has no image: expected the name of a file in '{column}', got none. Add it, or remove the row."
        )
    return names


def _domain(files: list[str]) -> str:
    """Return the innermost folder of the first picture that is no split's; "" where there is none."""
    folders = PurePosixPath(files[0].replace("\\", "/")).parts[:-1]
    return next((name for name in reversed(folders) if name.lower() not in SPLITS and name not in (".", "..", "/")), "")


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _shown(names: Iterator[str] | tuple[str, ...]) -> str:
    found = sorted(set(names))
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return ", ".join(short(repr(name), 40) for name in found[:MOST_NAMED]) + more
