"""Begin to read a source: choose its table, read its first rows, recognise its format, and name what is left out."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from vlm_analysis.errors import PromptError, short
from vlm_analysis.progress import stop_if_asked
from vlm_analysis.prompts.cells import MAX_NAME_SHOWN, MAX_SHOWN, Row
from vlm_analysis.prompts.formats import own, texts
from vlm_analysis.prompts.formats.base import ADD_ROWS, Format, Options, Sample, Source, Turns, left_out
from vlm_analysis.prompts.formats.described import FILE, entry_of
from vlm_analysis.prompts.formats.lmms import task_of
from vlm_analysis.prompts.formats.table import misread, recognise
from vlm_analysis.prompts.prompts import ReadAs
from vlm_analysis.prompts.sources import Found, Pictures, image_root
from vlm_analysis.prompts.tables import MOST_SAMPLED, Table, column_name, columns_of, read_table
from vlm_analysis.words import some_of

MOST_LOOKED_AT = 1000  # rows for those that a format is recognised by
MOST_TRIED = 12  # tables of a source


class NotRecognised(PromptError):  # noqa: N818 - the user is asked, nothing is broken
    """No format, or more than one, matches; `columns` are those of the table."""

    def __init__(self, message: object, columns: tuple[str, ...]) -> None:
        super().__init__(message)
        self.columns = columns


@dataclass(frozen=True)
class Wanted:
    """What a user said about a source (see `open_prompts`)."""

    format: str | None = None
    columns: Mapping[str, str] | None = None
    images: Path | str | None = None
    domain: str | None = None
    turns: Turns = "first"
    suffix: bool = False


@dataclass
class Raw:
    """The rows of a source as they lie there: they are counted, and the cells of one column are remembered by row."""

    rows: Iterator[Row]
    column: str = ""
    n_taken: int = 0
    remembered: dict[int, Any] = field(default_factory=dict)

    def __iter__(self) -> Raw:
        return self

    def __next__(self) -> Row:
        stop_if_asked()
        row = next(self.rows)
        self.n_taken += 1
        if self.column:
            self.remembered[row.number] = row.cells.get(self.column)
        return row


@dataclass(frozen=True)
class Reading:
    """A source whose format is known, and whose rows are not read yet."""

    read_as: ReadAs
    sample: Sample
    raw: Raw
    rows: Iterator[Row]
    pictures: Pictures
    n_rows: int | None
    keeps_ids: bool  # else they are others', and one that comes again gets a number
    misread: str = ""  # what to say where no row can be read

    def n_left(self) -> int:
        """Return how many rows are not read yet; they are read where the file does not say their number."""
        if self.n_rows is not None:
            return self.n_rows - self.raw.n_taken
        return sum(1 for _ in self.raw) or sum(1 for row in self.rows if row.number)


@dataclass(frozen=True)
class _Begun:
    tables: tuple[str, ...]
    table: Table
    sample: Sample
    rows: Iterator[Row]


def begin(found: Found, wanted: Wanted) -> Reading:
    """Return a source whose format is known.

    Raises:
        NotRecognised: its format is not known.
        PromptError: it cannot be read as a whole, or what the user said does not fit it.
    """
    if wanted.turns not in get_args(Turns):
        choices = ", ".join(map(repr, get_args(Turns)))
        raise PromptError(f"turns={short(repr(wanted.turns))} is unknown: expected one of {choices}.")
    if wanted.columns and wanted.format:
        raise PromptError("format= and columns= do not go together: expected one of them, got both. Leave one out.")
    begun = _chosen(found, wanted)
    folder = str(PurePosixPath(begun.tables[0]).parent) if begun.tables else "."
    pictures = Pictures(found.files, folder, None if wanted.images is None else image_root(wanted.images))
    raw = Raw(begun.rows, _checked_column(wanted.domain, begun.sample, "domain"))
    source = Source(
        begun.sample,
        raw,
        found.files,
        folder,
        Options(wanted.turns, wanted.suffix),
        _parts(found, begun, pictures, folder),
    )
    one, read_as = _recognised(begun.sample, wanted)
    if wanted.columns:
        source = _renamed(source, wanted.columns)
    if one is own and raw.column:
        used = tuple(column for column in source.sample.columns if column != raw.column)
        source = replace(source, sample=replace(source.sample, columns=used))
    rows = chain(
        (Row(0, {"id": name}, reason) for name, reason in found.files.skipped),
        _with_domains(one.rows(source), raw),
        _unused(found, begun, pictures),
    )
    return Reading(
        read_as,
        begun.sample,
        raw,
        rows,
        pictures,
        begun.table.n_rows,
        one in (own, texts),
        misread(begun.sample, wanted.format),
    )


def _chosen(found: Found, wanted: Wanted) -> _Begun:
    """Return the one table of a source that holds prompts; without tables its files are the sample."""
    if not found.tables:
        return _Begun((), Table((), iter(())), Sample("", files=found.files.names()), iter(()))
    if len(found.tables) == 1:
        return _sampled(found, found.tables[0])
    if len(found.tables) > MOST_TRIED:
        raise _several([tables[0] for tables in found.tables])
    names, readable = [], []
    for tables in found.tables:
        try:
            begun = _sampled(found, tables)
        except PromptError:
            names.append(tables[0])
            continue
        try:
            _recognised(begun.sample, wanted)
        except PromptError:
            continue
        names.append(tables[0])
        readable.append(begun)
    if len(names) == 1 and readable:
        return readable[0]
    raise _several(names or [tables[0] for tables in found.tables])


def _sampled(found: Found, tables: tuple[str, ...]) -> _Begun:
    """Read the first rows of a table, which is kept in several files where it has shards."""
    folder = str(PurePosixPath(tables[0]).parent)
    first = read_table(tables[0], _source_of(found, tables[0]))
    rows = first.rows if len(tables) == 1 else _sharded(found, first.rows, tables[1:])
    head, readable = [], []
    for row in rows:
        stop_if_asked()
        head.append(row)
        readable += [] if row.error else [row]
        if len(readable) == MOST_SAMPLED or len(head) == MOST_LOOKED_AT:
            break
    if not head and len(first.parts) < 2:
        raise PromptError(
            f"'{short(tables[0])}' could not be read: expected at least one row, got 0 rows. Add a row per prompt."
        )
    beside = found.files.beside(folder)
    sample = Sample(
        PurePosixPath(tables[0]).name,
        first.columns or columns_of(readable),
        tuple(readable),
        beside,
        first.labels,
        first.parts,
        _described(found, folder, tables[0], beside),
        first.written,
    )
    table = first if len(tables) == 1 else replace(first, n_rows=None)
    return _Begun(tables, table, sample, chain(head, rows))


def _described(found: Found, folder: str, table: str, beside: tuple[str, ...]) -> Mapping[str, Any]:
    """Return what another file in a table's folder says of the table."""
    entry = entry_of(found.files, folder, table) if FILE in beside else {}
    return entry or task_of(found.files, folder, beside)


def _sharded(found: Found, rows: Iterator[Row], others: tuple[str, ...]) -> Iterator[Row]:
    before = number = 0
    for shard in chain([rows], (read_table(name, _source_of(found, name)).rows for name in others)):
        for row in shard:
            number = before + row.number
            yield replace(row, number=number)
        before = number


def _source_of(found: Found, table: str) -> bytes | Path:
    return found.files.table(table) if found.lone is None else found.lone


def _recognised(sample: Sample, wanted: Wanted) -> tuple[Format, ReadAs]:
    """Return the format of a sample, and what to say of it (raises NotRecognised)."""
    if wanted.columns:
        said = ", ".join(
            f"'{ours}' from {short(repr(theirs), MAX_NAME_SHOWN)}" for ours, theirs in wanted.columns.items()
        )
        return own, ReadAs("your columns", said)
    try:
        one, reason = recognise(sample, wanted.format)
    except PromptError as error:
        raise NotRecognised(error, sample.columns) from error
    return one, ReadAs(one.TITLE, reason)


def _renamed(source: Source, columns: Mapping[str, str]) -> Source:
    """Return a source whose columns have Strata's names, as the user said."""
    sample = source.sample
    names = {}
    for ours, theirs in columns.items():
        if column_name(ours) not in own.COLUMNS:
            raise _no_column_of_ours(ours, theirs)
        names[column_name(ours)] = _checked_column(theirs, sample, "columns")
    replaced = {"image", "images"} if {"image", "images"} & set(names) else set()

    def renamed(cells: Mapping[str, Any]) -> dict[str, Any]:
        rest = {name: cell for name, cell in cells.items() if name not in names.values() and name not in replaced}
        return rest | {ours: cells.get(theirs) for ours, theirs in names.items()}

    known = replace(sample, columns=tuple(renamed(dict.fromkeys(sample.columns))))
    if own.matches(known) is None:
        raise PromptError(
            f"columns= could not be used: expected columns for 'question' and 'image' (or 'images'), got {_shown(known)}. "
            "Name both."
        )
    rows = (replace(row, cells=renamed(row.cells)) for row in source.rows)
    return replace(source, sample=known, rows=rows)


def _no_column_of_ours(ours: str, theirs: str) -> PromptError:
    is_swapped = column_name(theirs) in own.COLUMNS
    said = f'columns={{"{column_name(theirs)}": "{short(ours, MAX_NAME_SHOWN)}"}}'
    return PromptError(
        f"columns= could not be used: expected names of Strata's columns ({', '.join(own.COLUMNS)}), got {short(repr(ours))}."
        f"{f' Name ours first, then yours: {said}.' if is_swapped else ''}"
    )


def _checked_column(name: str | None, sample: Sample, argument: str) -> str:
    if name is None:
        return ""
    if column_name(name) not in sample.columns:
        raise PromptError(
            f"{argument}={short(repr(name), MAX_NAME_SHOWN)} could not be used: expected a column of the table, got none of this name. "
            f"It has {_shown(sample)}."
        )
    return column_name(name)


def _with_domains(rows: Iterable[Row], raw: Raw) -> Iterator[Row]:
    for row in rows:
        domain = {"domain": raw.remembered[row.number]} if row.number in raw.remembered else {}
        yield replace(row, cells=row.cells | domain) if domain else row


def _parts(found: Found, begun: _Begun, pictures: Pictures, folder: str) -> Any:
    """Return what opens a list of the table, or another table beside it."""

    def part(name: str = "", table: str = "") -> Iterator[Row]:
        if not table:
            return read_table(begun.tables[0], _source_of(found, begun.tables[0]), name).rows
        path = posixpath.normpath(f"{folder}/{table}")  # it may lie in a folder beside the table's
        pictures.taken.add(path)
        return read_table(table, found.files.table(path), name).rows

    return part


def _unused(found: Found, begun: _Begun, pictures: Pictures) -> Iterator[Row]:
    """Yield what is left out of a folder or archive once its table is read."""
    if found.lone is None and begun.tables:
        folder = PurePosixPath(begun.tables[0]).parent
        used = {*begun.tables, *pictures.taken}
        used |= {str(folder / begun.sample.described.get("task_file", FILE))} if begun.sample.described else set()
        yield from left_out(
            [name for name in found.files.names() if name not in used], "files that the table names", ADD_ROWS
        )


def _several(names: list[str]) -> PromptError:
    shown = some_of((short(repr(name), MAX_NAME_SHOWN) for name in names[:MAX_SHOWN]), MAX_SHOWN, len(names), " and ")
    return PromptError(
        f"the prompts could not be read: expected one table, or {texts.EXPECTED.replace('one of', 'one named').replace(',', ' or')}, got "
        f"{shown}. Rename the one that holds the prompts, or open it by its own path."
    )


def _shown(sample: Sample) -> str:
    return own.shown_columns(sample.columns, sample) or "no column"
