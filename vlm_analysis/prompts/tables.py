"""Read the rows of a table (CSV, TSV, JSON, JSONL, Parquet, Arrow) with all their cells, one after another, without checking them.

A row that cannot be read keeps its number and holds the reason; an error is raised only where the whole table cannot be read. Rows are read
as they are asked for, so a table of millions takes the memory of one row; only a JSON file is held as text.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO, TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.files import opened
from vlm_analysis.prompts.cells import Row
from vlm_analysis.prompts.unpacked import unpacked

TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow")
MAX_TABLE_BYTES = 200_000_000  # of text; a packed table is bounded where it is unpacked
MOST_SAMPLED = 20
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODE = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class Table:
    """A table that has been begun.

    Attributes:
        columns: names of the columns, stripped and casefolded; () where each row names its own (JSON).
        rows: can be iterated once.
        labels: names of classes by column, where the schema has them. Cells of these columns hold the names.
        parts: columns of each list of objects, where the table is a JSON object.
        n_rows: their number, where the file says it.
        written: names of the columns as the file writes them, by those in `columns`.
    """

    columns: tuple[str, ...]
    rows: Iterator[Row]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    n_rows: int | None = None
    written: Mapping[str, str] = field(default_factory=dict)


def read_table(name: str, source: bytes | Path, part: str = "") -> Table:
    """Return the rows of a table; the suffix of `name` decides how it is read.

    Column names are compared without case or surrounding blanks; blank lines are skipped. A JSON file is a list of rows, or an object with
    one list of them. Of an object with several, no row is read unless `part` names the list.

    Raises:
        PromptError: the suffix is unknown, the text is not UTF-8 or above 200 MB, the table is damaged or empty, or there is no such part.
            Also while rows are read, where the table turns out to be damaged then.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise PromptError(
            f"'{short(name)}' could not be read: expected {', '.join(TABLE_SUFFIXES)}, got '{short(suffix)}'. Convert it."
        )
    _check_size(name, source, is_text=suffix not in (".parquet", ".arrow"))
    if suffix in (".parquet", ".arrow"):
        return _packed(name, source)
    if suffix == ".json":
        return _json(name, source, part)
    if suffix == ".jsonl":
        return Table((), _jsonl_rows(name, source))
    lines = _separated(name, source, "\t" if suffix == ".tsv" else ",")
    written = next(lines)
    return Table(tuple(written), lines, written=written)


def column_name(name: object) -> str:
    """Return the name of a column as it is compared."""
    return str(name).strip().casefold()


def _written(names: Iterable[object]) -> dict[str, str]:
    """Return the names of columns as they are written, by those that are compared."""
    return {column_name(name): str(name).strip() for name in names}


def columns_of(rows: Iterable[Row]) -> tuple[str, ...]:
    """Return the columns that some rows name, in the order of their first."""
    return tuple(dict.fromkeys(column for row in rows for column in row.cells))


def decode_text(name: str, data: bytes) -> str:
    """Return UTF-8 text, without a byte order mark.

    Raises:
        PromptError: the bytes are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_utf8(name, error, f" at {error.start}") from error


@contextmanager
def _text(name: str, source: bytes | Path, newline: str = "") -> Iterator[TextIOWrapper]:
    """Open a table as text; what is not UTF-8 is refused when it is met."""
    try:
        with opened(source) if isinstance(source, Path) else BytesIO(source) as file:
            yield TextIOWrapper(file, "utf-8-sig", newline=newline)
    except UnicodeDecodeError as error:
        raise _no_utf8(name, error) from error
    except OSError as error:
        raise PromptError(
            f"'{short(name)}' could not be read: {short(error)}. Check the path and its permissions."
        ) from error


def _check_size(name: str, source: bytes | Path, is_text: bool) -> None:
    try:
        n_bytes = source.stat().st_size if isinstance(source, Path) else len(source)
    except OSError as error:
        raise PromptError(
            f"'{short(name)}' could not be read: {short(error)}. Check the path and its permissions."
        ) from error
    if not n_bytes:
        raise PromptError(f"'{short(name)}' could not be read: expected a table, got an empty file. Save it again.")
    if is_text and n_bytes > MAX_TABLE_BYTES:
        raise PromptError(
            f"'{short(name)}' could not be read: expected at most {MAX_TABLE_BYTES // 10**6} MB of text, got {n_bytes:,} bytes. "
            "Split it, or save it as Parquet."
        )


def _no_utf8(name: str, error: UnicodeDecodeError, place: str = "") -> PromptError:
    return PromptError(
        f"'{short(name)}' could not be read: expected UTF-8 text, got byte 0x{error.object[error.start]:02x}{place}. "
        "Save it as UTF-8 (in Excel: 'CSV UTF-8')."
    )


def _check_unique(name: str, columns: tuple[str, ...]) -> None:
    twice = sorted(column for column, count in Counter(columns).items() if column and count > 1)
    if twice:
        raise PromptError(
            f"'{short(name)}' could not be read: expected each column once, got {short(', '.join(map(repr, twice)))} again. "
            "Rename one."
        )


def _separated(name: str, source: bytes | Path, separator: str) -> Iterator[Any]:
    """Yield the columns of a table whose cells are separated by a character, then its rows."""
    # The limit holds for the process and is 128 kB by default; a longer cell is refused later, with its row number.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TABLE_BYTES))
    with _text(name, source) as file:
        # Strict: otherwise an unclosed quote swallows the rest of the table without an error.
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            header = next((cells for cells in reader if cells), [])
        except csv.Error as error:
            raise PromptError(
                f"'{short(name)}' could not be read: expected a header line, got {short(error)}. Fix its quotes."
            ) from error
        columns = tuple(map(column_name, header))
        _check_unique(name, columns)
        yield _written(header)
        yield from _separated_rows(reader, columns, "a tab" if separator == "\t" else "a comma")


def _separated_rows(reader: Any, columns: tuple[str, ...], separator: str) -> Iterator[Row]:
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
        cells = {column: value for column, value in zip(columns, values, strict=False) if column}
        error_text = (
            f"line {start} could not be read: expected {len(columns)} cells, got {len(values)}. "
            f"Put cells that hold {separator} in quotes."
        )
        yield Row(number, cells, error_text if len(values) > len(columns) else "")


def _jsonl_rows(name: str, source: bytes | Path) -> Iterator[Row]:
    advice = "Write one object per line."
    number = 0
    with _text(name, source, newline="\n") as file:  # JSON text may hold other characters that end a line
        for line in file:
            if not line.strip():
                continue
            number += 1
            try:
                value = json.loads(line)
            except (ValueError, RecursionError, MemoryError) as error:
                got = short(error) or "a line too long"
                yield Row(number, error=f"the line could not be read: expected a JSON object, got {got}. {advice}")
                continue
            yield _object_row(number, value, "line", advice)


def _json(name: str, source: bytes | Path, part: str) -> Table:
    with _text(name, source) as file:
        text = file.read()
    start = _after_blanks(text, 0)
    if text[start : start + 1] == "[" and not part:
        return Table((), _json_rows(text, start + 1))
    try:
        lists = dict(_lists(text, start)) if text[start : start + 1] == "{" else {}
    except (ValueError, RecursionError, MemoryError) as error:
        raise PromptError(
            f"'{short(name)}' could not be read: expected JSON, got {short(error)}. Save it again."
        ) from error
    parts = {key: columns for key, (_, columns) in lists.items()}
    if part and part not in lists:
        raise PromptError(
            f"'{short(name)}' could not be read: expected a list '{short(part)}' in it, got {_named(lists)}."
        )
    if not lists:
        raise PromptError(
            f"'{short(name)}' could not be read: expected a list of rows, or an object with one, got {text[start : start + 40]!r}. "
            "Save the rows as a list."
        )
    chosen = part or (next(iter(lists)) if len(lists) == 1 else "")
    rows = _json_rows(text, lists[chosen][0]) if chosen else iter(())
    return Table(parts[chosen] if chosen else (), rows, parts=parts)


def _lists(text: str, start: int) -> Iterator[tuple[str, tuple[int, tuple[str, ...]]]]:
    """Yield each list of objects in a JSON object: its name, the place behind its bracket, and the columns of its first rows."""
    place = _after_blanks(text, start + 1)
    while text[place : place + 1] != "}":
        key, place = _DECODE(text, place)
        place = _after_blanks(text, place)
        if not isinstance(key, str) or text[place : place + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, place)
        place = _after_blanks(text, place + 1)
        if text[place : place + 1] == "[":
            begin = place + 1
            rows: list[Row] = []
            for value, behind in _elements(text, begin):
                place = behind
                if len(rows) < MOST_SAMPLED and isinstance(value, dict):
                    rows.append(_object_row(0, value))
            place += 1
            if rows:
                yield key, (begin, columns_of(rows))
        else:
            _, place = _DECODE(text, place)
        place = _behind_comma(text, place, "}")


def _json_rows(text: str, start: int) -> Iterator[Row]:
    """Yield the rows of the JSON list that begins before `start`; what cannot be read ends it, with that reason."""
    number = 0
    try:
        for value, _ in _elements(text, start):
            if value is not _END:
                number += 1
                yield _object_row(number, value, "row", "Write one object a row.")
    except (ValueError, RecursionError, MemoryError) as error:
        yield Row(
            number + 1,
            error=f"the row and what follows it could not be read: expected a JSON object, got {short(error)}. Fix the JSON there.",
        )


def _elements(text: str, place: int) -> Iterator[tuple[Any, int]]:
    """Yield the elements of the JSON list that begins before `place`, each with the place behind it; at last `_END` with its bracket's."""
    place = _after_blanks(text, place)
    while text[place : place + 1] != "]":
        value, place = _DECODE(text, place)
        yield value, place
        place = _behind_comma(text, place, "]")
    yield _END, place


_END = object()


def _behind_comma(text: str, place: int, bracket: str) -> int:
    """Return the place of the next element, or of the bracket that ends the list."""
    place = _after_blanks(text, place)
    if text[place : place + 1] == bracket:
        return place
    if text[place : place + 1] != ",":
        raise json.JSONDecodeError(f"Expecting ',' or '{bracket}'", text, place)
    place = _after_blanks(text, place + 1)
    if text[place : place + 1] == bracket:
        raise json.JSONDecodeError("Expecting value", text, place)
    return place


def _after_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match else place


def _object_row(number: int, value: Any, what: str = "", advice: str = "") -> Row:
    if isinstance(value, dict):
        return Row(number, {column_name(key): cell for key, cell in value.items()})
    got = f"a {type(value).__name__}"
    return Row(number, error=f"the {what} could not be read: expected a JSON object, got {got}. {advice}")


def _named(lists: Iterable[str]) -> str:
    return short(", ".join(map(repr, lists))) or "none"


def _packed(name: str, source: bytes | Path) -> Table:
    lines = unpacked(name, source)
    about = next(lines)
    columns = tuple(map(column_name, about["columns"]))
    _check_unique(name, columns)
    labels = {column_name(column): tuple(names) for column, names in about["labels"].items()}
    return Table(columns, _packed_rows(lines, labels), labels, n_rows=about["rows"], written=_written(about["columns"]))


def _packed_rows(lines: Iterator[dict[str, Any]], labels: Mapping[str, tuple[str, ...]]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        cells = {column_name(column): value for column, value in line.items()}
        yield Row(
            number,
            cells | {column: _class(cells[column], names) for column, names in labels.items() if column in cells},
        )


def _class(value: Any, names: tuple[str, ...]) -> Any:
    """Return the name of a class for its number, None for -1, which stands for none; what is no number stays."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None
