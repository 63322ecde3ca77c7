"""Read the rows of a prompt table (CSV, JSONL, Parquet) without checking them.

A row that cannot be read keeps its number and holds the reason; an error is raised only where the whole table cannot be read.
`prompts.py` makes prompts of the rows and checks the images.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import Files
from vlm_analysis.prompts.unpacked import Other, unpacked

TABLE_NAMES = ("prompts.csv", "prompts.jsonl", "prompts.parquet")
TABLE_SUFFIXES = (".csv", ".jsonl", ".parquet")
COLUMNS = ("image", "images", "question", "domain", "id", "answer", "answers", "choices", "group", "task")
EXPECTED = "'image' (or 'images') and 'question', optionally 'domain', 'id', 'answer', 'answers', 'choices', 'group' and 'task'"
MAX_ROWS = 10_000
MAX_TABLE_BYTES = 200_000_000
MAX_SHOWN = 12
MAX_NAME_SHOWN = 60

Cells = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row: its number from 1 in the table, its cells by column, or the reason it could not be read."""

    number: int
    cells: Cells = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Table:
    """The columns of a table and its rows, which can be iterated once."""

    columns: tuple[str, ...]
    rows: Iterable[Row]

    @property
    def unknown_columns(self) -> tuple[str, ...]:
        """The columns that are not used."""
        return tuple(column for column in self.columns if column and column not in COLUMNS)


def read_table(name: str, data: bytes) -> Table:
    """Return the rows of a table; the suffix of `name` decides its format.

    Column names are compared without case or surrounding blanks; blank lines are skipped.

    Raises:
        PromptError: the suffix is unknown, the text is not UTF-8, the table is damaged, empty, above 10,000 rows, or
            lacks a required column.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise PromptError(
            f"'{short(name)}' could not be read: expected {', '.join(TABLE_SUFFIXES)}, got '{short(suffix)}'. Convert it."
        )
    if not data:
        raise PromptError(f"'{short(name)}' could not be read: expected a table, got an empty file. Save it again.")
    table = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}[suffix](name, data)
    columns = table.columns
    if columns and ("question" not in columns or not {"image", "images"} & set(columns)):
        columns_text = ", ".join(short(repr(column), MAX_NAME_SHOWN) for column in columns[:MAX_SHOWN])
        raise PromptError(
            f"'{short(name)}' could not be read: expected the columns {EXPECTED}, got {columns_text}. "
            "Rename the columns in its first line; a CSV separates them by commas."
        )
    return table


def find_table(files: Files, *, any_depth: bool) -> str | None:
    """Return the name of the one prompt table among the files, or None.

    Raises:
        PromptError: there are two.
    """
    names = [name for name in files.names() if PurePosixPath(name).name.lower() in TABLE_NAMES]
    tables = [name for name in names if any_depth or "/" not in name]
    if len(tables) > 1:
        raise PromptError(
            f"the prompts could not be read: expected one table, got {short(' and '.join(map(repr, tables)))}. "
            "Remove all but one."
        )
    return tables[0] if tables else None


def cell_text(value: object, column: str) -> str:
    """Return the text of a cell without surrounding blanks; "" where it is missing (None, NaN).

    Whole numbers lose their ".0": tables made with pandas write 7 as 7.0 where the column has gaps.

    Raises:
        PromptError: the cell is neither text, a finite number nor a boolean.
    """
    if _is_missing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        whole = value == int(value) and abs(float(value)) < 1e15
        return str(int(value)) if whole else f"{value:f}" if isinstance(value, Decimal) else repr(value)
    got = repr(value) if isinstance(value, float) else f"a {_type_of(value)}"
    raise PromptError(f"the cell '{column}' could not be read: expected text or a number, got {got}. Write it as text.")


def image_names(cells: Cells) -> tuple[str, ...]:
    """Return the image paths of a row, from `image` or `images`.

    Raises:
        PromptError: both are present, neither is, or an entry is not a path.
    """
    one, several = _paths(cells.get("image"), "image"), _paths(cells.get("images"), "images")
    if one and several:
        raise PromptError("the row has both: expected 'image' or 'images', got two cells filled. Empty one of them.")
    if not one and not several:
        raise PromptError("the row has no image: expected a path in 'image' (or 'images'), got none. Add the path.")
    return one or several


def choice_texts(value: object) -> tuple[str, ...] | None:
    """Return the choices of a row, from a list or its JSON text; None where the cell is blank or the list empty.

    Raises:
        PromptError: the cell is not a list, or an entry is neither text nor a number.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text or "null")
        except (ValueError, RecursionError) as error:
            raise _no_choices(repr(text[:60])) from error
    if _is_missing(value) or value == []:
        return None
    if not isinstance(value, list):
        raise _no_choices(f"a {_type_of(value)}")
    return tuple(cell_text(choice, "choices") for choice in value)


def decode_text(name: str, data: bytes) -> str:
    """Return UTF-8 text, without a byte order mark.

    Raises:
        PromptError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"'{short(name)}' could not be read: expected UTF-8 text, got byte 0x{data[error.start]:02x} at {error.start}. "
            "Save it as UTF-8 (in Excel: 'CSV UTF-8')."
        ) from error


def too_many_rows(name: str, got: str) -> PromptError:
    """Return the error for a source of more than 10,000 rows."""
    return PromptError(f"'{short(name)}' could not be read: expected at most {MAX_ROWS:,} rows, got {got}. Split it.")


def _no_choices(got: str) -> PromptError:
    return PromptError(
        f'the cell \'choices\' could not be read: expected a JSON list of texts, got {got}. Write ["red", "blue"].'
    )


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, (float, Decimal)) and math.isnan(value))


def _paths(value: object, column: str) -> tuple[str, ...]:
    if _is_missing(value):
        return ()
    if isinstance(value, str):
        text = value.strip()
        if column == "image" or not text.startswith("["):
            return (text,) if text else ()
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PromptError(
                f"the cell 'images' could not be read: expected a JSON list of paths, got {text[:60]!r} ({short(error)}). "
                'Write ["a.png", "b.png"].'
            ) from error
    if not isinstance(value, list):
        raise PromptError(
            f"the cell '{column}' could not be read: expected a path or a list of paths, got a {_type_of(value)}. "
            "Write the path of an image file."
        )
    for path in value:
        if not isinstance(path, str) or not path.strip():
            raise PromptError(
                f"the cell '{column}' could not be read: expected paths, got {short(repr(path))}. Fix the list."
            )
    return tuple(path.strip() for path in value)


def _check_count(name: str, rows: list[Row]) -> None:
    if not rows:
        raise PromptError(
            f"'{short(name)}' could not be read: expected at least one row, got 0 rows. Add a row per prompt."
        )
    if len(rows) > MAX_ROWS:
        raise too_many_rows(name, "more")


def _type_of(value: object) -> str:
    return value.type_name if isinstance(value, Other) else type(value).__name__


def _column(name: object) -> str:
    return str(name).strip().casefold()


def _check_unique(name: str, columns: tuple[str, ...]) -> None:
    twice = sorted(column for column, count in Counter(columns).items() if column and count > 1)
    if twice:
        raise PromptError(
            f"'{short(name)}' could not be read: expected each column once, got {short(', '.join(map(repr, twice)))} again. "
            "Rename one."
        )


def _read_csv(name: str, data: bytes) -> Table:
    # The limit holds for the process and is 128 kB by default; a longer cell is refused later, with its row number.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TABLE_BYTES))
    # Strict: otherwise an unclosed quote swallows the rest of the table without an error.
    reader = csv.reader(StringIO(decode_text(name, data), newline=""), strict=True)
    try:
        header = next((cells for cells in reader if cells), [])
    except csv.Error as error:
        raise PromptError(
            f"'{short(name)}' could not be read: expected a header line, got {short(error)}. Fix its quotes."
        ) from error
    columns = tuple(map(_column, header))
    _check_unique(name, columns)
    rows: list[Row] = []
    for row in _csv_rows(reader, columns):
        rows.append(row)
        if len(rows) > MAX_ROWS:
            break
    _check_count(name, rows)
    return Table(columns, rows)


def _known_cells(cells: Iterable[tuple[str, Any]]) -> Cells:
    """Return the cells of known columns; a table may have thousands of others."""
    return {column: value for column, value in cells if column in COLUMNS}


def _csv_rows(reader: Any, columns: tuple[str, ...]) -> Iterator[Row]:
    number = 0
    while True:
        start = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield Row(
                number,
                error=f"the row from line {start} could not be read: expected matching quotes, got {short(error)}. "
                "Double each quote inside a quoted cell.",
            )
            continue
        if not values:
            continue
        number += 1
        if len(values) > len(columns):
            error_text = (
                f"line {start} could not be read: expected {len(columns)} cells, got {len(values)}. "
                "Put cells that hold a comma in quotes."
            )
            yield Row(number, _known_cells(zip(columns, values, strict=False)), error_text)
        else:
            yield Row(number, _known_cells(zip(columns, values, strict=False)))


def _read_jsonl(name: str, data: bytes) -> Table:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    # Not splitlines: it also splits at characters that JSON text may hold.
    for line in decode_text(name, data).split("\n"):
        if not line.strip():
            continue
        row = _jsonl_row(len(rows) + 1, line)
        rows.append(Row(row.number, _known_cells(row.cells.items()), row.error))
        columns.update(dict.fromkeys(row.cells))
        if len(rows) > MAX_ROWS:
            break
    _check_count(name, rows)
    return Table(tuple(columns), rows)


def _jsonl_row(number: int, line: str) -> Row:
    advice = "Write one object per line."
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, error=f"the line could not be read: expected a JSON object, got {short(error)}. {advice}")
    if not isinstance(value, dict):
        return Row(number, error=f"the line could not be read: expected a JSON object, got {line[:40]!r}. {advice}")
    return Row(number, {_column(key): cell for key, cell in value.items()})


def _read_parquet(name: str, data: bytes) -> Table:
    lines = unpacked(name, data, COLUMNS, MAX_ROWS)
    about = next(lines)
    columns = tuple(map(_column, about["columns"]))
    _check_unique(name, columns)
    if about["rows"] == 0:
        _check_count(name, [])
    if about["rows"] > MAX_ROWS:
        raise too_many_rows(name, f"{about['rows']:,}")
    return Table(columns, itertools.starmap(Row, enumerate(lines, 1)))
