"""The scores of many edits on one prompt set, kept as they are measured: what is written stays when a sweep is cancelled or killed.

With a folder they lie in its `scores.sqlite`, a row for each edit and prompt; without one they stay in memory. Several processes of one
machine may keep scores in one folder at once: each sees what the others have written. A row carries a checksum, so that a file which
something else has changed is noticed and not believed. A folder of version 0.1, whose `scores.bin` names masks by the layers they drop,
is taken over when it is opened.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.files import advice_for, opened, read_bytes
from vlm_analysis.progress import stop_if_asked

FILE = "scores.sqlite"
VERSION = 3
OLD_HEADER, OLD_RECORDS, OLD_VERSION = "header.json", "scores.bin", 2
FOLDER_VERSION = 2  # in the names of folders: those of version 0.1 are found again
NUMBERS = ("answer_nll", "token_agreement", "kl_to_dense")
COLUMNS = ("edit", "row", "exact_match", *NUMBERS, "crc32")
TABLES = (
    "CREATE TABLE belongs (header TEXT)",
    f"CREATE TABLE scores (edit TEXT, row INTEGER, exact_match INTEGER, {', '.join(f'{name} REAL' for name in NUMBERS)}, "
    "crc32 INTEGER, PRIMARY KEY (edit, row)) WITHOUT ROWID",
)
MAX_HEADER, MAX_RECORDS = 1 << 20, 1 << 30  # bytes of these files
_FULL = "Free some space or choose another folder"
ADVICE = {  # by extended code, else by primary code
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_IOERR_WRITE: _FULL,
    sqlite3.SQLITE_IOERR_FSYNC: _FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: _FULL,
    sqlite3.SQLITE_READONLY: "Make it writable or choose another folder",
    sqlite3.SQLITE_CANTOPEN: "Make it a folder to read and write, or choose another one",
}
BUSY_S = 0.5  # how long another process is waited for between two looks for a request to stop
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

BEST = ("exact_match", "token_agreement")  # of which the best over all accepted answers counts

Row = tuple[Any, ...]


def best_of_accepted(
    scores: Mapping[int, Mapping[str, Any]], accepted: Mapping[int, Sequence[int]]
) -> dict[int, dict[str, Any]]:
    """Return scores by row; exact match and token agreement of a prompt with several accepted answers are the best of any of them.

    NLL and KL stay those of its own row. A prompt whose rows are not all scored yet is left out. NaN in any row stays NaN.

    Args:
        scores: by row.
        accepted: by a prompt's own row, the rows of its further accepted answers.
    """
    best = {row: dict(score) for row, score in scores.items()}
    for own, others in accepted.items():
        rows = (own, *others)
        if any(row not in scores for row in rows):
            best.pop(own, None)
            continue
        for name in BEST:
            best[own][name] = np.max([scores[row][name] for row in rows]).item()
    return best


class ScoreStore:
    """The scores of edits (by their keys) on rows: prompts, and their further choices.

    Args:
        n_layers: of the edits.
        n_rows: rows a whole edit has.
        folder: where they are kept; None keeps them in memory.
        belongs: what decides the numbers, as plain JSON: model, prompts, batch size, versions.
        accepted: by a prompt's row, the rows of its further accepted answers: what is read is the best of any (see `best_of_accepted`).

    Raises:
        EvaluationError: the folder holds scores of something else, is damaged, or cannot be written.
    """

    def __init__(
        self,
        n_layers: int,
        n_rows: int,
        folder: Path | None = None,
        belongs: Mapping[str, Any] | None = None,
        accepted: Mapping[int, Sequence[int]] = MappingProxyType({}),
    ) -> None:
        self.n_layers, self.n_rows, self._accepted = n_layers, n_rows, accepted
        header = {"version": VERSION, "rows": n_rows, "layers": n_layers, **(belongs or {})}
        self._folder = None if folder is None else Path(folder)
        old = [] if self._folder is None else _rows_of_0_1(self._folder, header)
        with self._explained():
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):
                    opened(self._folder / FILE).close()  # a pipe would be waited for
            self._base = sqlite3.connect(
                ":memory:" if self._folder is None else self._folder / FILE,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
        weakref.finalize(self, self._base.close)
        self._run("PRAGMA trusted_schema = OFF")  # nothing that a file names is run
        self._run("PRAGMA journal_mode = WAL")
        self._run("PRAGMA synchronous = NORMAL")  # a power cut may take the last rows, and tears none
        with self._change():
            if not self._run("SELECT * FROM sqlite_master"):
                for table in TABLES:
                    self._run(table)
                self._run("INSERT INTO belongs VALUES (?)", (_text(header),))
                self._write(old)
        self._check(_text(header))
        if self._folder is not None:
            with self._explained():
                for name in (OLD_RECORDS, OLD_HEADER):  # without its records a folder has nothing to take over
                    (self._folder / name).unlink(missing_ok=True)

    def lacks(self, key: str, rows: Sequence[int]) -> bool:
        """Return whether a score of the edit on any of these rows is missing."""
        line = "SELECT count(*) FROM scores WHERE edit = ? AND row IN (SELECT value FROM json_each(?))"
        return self._run(line, (key, json.dumps(list(rows))))[0][0] < len(set(rows))

    def put(self, key: str, rows: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> None:
        """Add the scores of an edit on some rows (see `evaluate.answer_scores`); they are on disk once this returns.

        Raises:
            EvaluationError: they cannot be written; the file is as it was.
        """
        with self._change():
            self._write(_row_of(key, row, score) for row, score in zip(rows, scores, strict=True))

    def of(self, key: str) -> dict[int, dict[str, Any]]:
        """Return the known scores of an edit by row."""
        scores = {
            row: {"exact_match": bool(right), **dict(zip(NUMBERS, map(_number, numbers), strict=True))}
            for row, right, *numbers in self._columns(("exact_match", *NUMBERS), key)
        }
        return best_of_accepted(scores, self._accepted)

    def column(self, name: str, keys: Sequence[str], n_rows: int) -> np.ndarray:
        """Return a (n_edits, n_rows) float64 column of the scores; NaN where there is none yet."""
        column = np.full((len(keys), self.n_rows), np.nan)
        for number, key in enumerate(keys):
            for row, value in self._columns((name,), key):
                column[number, row] = _number(value)
        if name in BEST and self._accepted:
            own, rows = self._accepted_rows
            column[:, own] = column[:, rows].max(axis=2)
        return column[:, :n_rows]

    def known(self, keys: Sequence[str], n_rows: int) -> np.ndarray:
        """Return which scores are there, of all accepted answers, (n_edits, n_rows) bool."""
        known = np.zeros((len(keys), self.n_rows), bool)
        for number, key in enumerate(keys):
            known[number, [row for (row,) in self._columns((), key)]] = True
        if self._accepted:
            own, rows = self._accepted_rows
            known[:, own] = known[:, rows].all(axis=2)
        return known[:, :n_rows]

    @cached_property
    def _accepted_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of prompts with further accepted answers, (n,), and with all of their answers, (n, most), filled up by repeating."""
        most = max(map(len, self._accepted.values()))
        rows = [[own, *others, *[own] * (most - len(others))] for own, others in self._accepted.items()]
        return np.array(list(self._accepted)), np.array(rows)

    def _columns(self, names: Sequence[str], key: str) -> list[Row]:
        """Return (row, *names) of each known row of an edit, ascending."""
        line = f"SELECT {', '.join(('row', *names))} FROM scores WHERE edit = ? AND row BETWEEN 0 AND ? ORDER BY row"
        return self._run(line, (key, self.n_rows - 1))

    def _write(self, rows: Iterable[Row]) -> None:
        line = f"REPLACE INTO scores VALUES ({', '.join('?' * len(COLUMNS))})"
        with self._explained():
            self._base.executemany(line, ((*row, checksum(row)) for row in rows))

    def _run(self, line: str, values: Row = ()) -> list[Row]:
        """Execute a line of SQL; waits while another process writes, until this thread is asked to stop."""
        while True:
            with self._explained():
                try:
                    return self._base.execute(line, values).fetchall()
                except sqlite3.OperationalError as error:
                    if _code(error) != sqlite3.SQLITE_BUSY:
                        raise
            stop_if_asked()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """What is written inside is there as a whole or not at all."""
        with self._explained():
            if self._folder is not None:
                os.stat(self._folder / FILE)  # a file removed under its connection takes rows that are lost
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        finally:
            if self._base.in_transaction:
                self._base.rollback()

    def _check(self, header: str) -> None:
        """Refuse scores of something else, tables that are others, and rows that are not as they were written."""
        if sorted(str(line) for (line,) in self._run("SELECT sql FROM sqlite_master")) != sorted(TABLES):
            raise _damaged(self._folder, "other tables")
        if self._run("SELECT * FROM belongs") != [(header,)]:
            raise _of_others(self._folder)
        for *row, crc32 in self._run("SELECT * FROM scores"):
            if crc32 != checksum(tuple(row)):
                raise _damaged(self._folder, f"other numbers of row {row[1]}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if _code(error) in DAMAGED:
                raise _damaged(self._folder, str(error)) from error
            advice = ADVICE.get(getattr(error, "sqlite_errorcode", 0), ADVICE.get(_code(error), "Start again"))
            raise _cannot_write(self._folder, str(error), advice) from error
        except OSError as error:
            raise _cannot_write(self._folder, error.strerror or str(error), advice_for(error)) from error


def _code(error: sqlite3.Error) -> int:
    """Return the primary code of an error: SQLite has several of a kind."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _text(header: Mapping[str, Any]) -> str:
    return json.dumps(header, sort_keys=True)


def _row_of(key: str, row: int, score: Mapping[str, Any]) -> Row:
    """Return what is written for a score, but its checksum; SQLite keeps NaN as NULL."""
    numbers = (float(score.get(name, math.nan)) + 0.0 for name in NUMBERS)  # it has no -0.0
    return (key, int(row), int(bool(score.get("exact_match"))), *(None if math.isnan(one) else one for one in numbers))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def checksum(row: Row) -> int:
    """Return what is written beside a row, so that one which something else has changed is noticed."""
    return zlib.crc32(repr(row).encode())


def _rows_of_0_1(folder: Path, header: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a folder of version 0.1 under the keys of their masks; a last one that was cut short is left out.

    Raises:
        EvaluationError: they belong to others, cannot be read, or are not as they were written.
    """
    if not any((folder / name).exists() for name in (OLD_HEADER, OLD_RECORDS)):
        return []
    try:
        header_text = read_bytes(folder / OLD_HEADER, MAX_HEADER).decode("utf-8")
        data = read_bytes(folder / OLD_RECORDS, MAX_RECORDS) if (folder / OLD_RECORDS).exists() else b""
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not (folder / OLD_RECORDS).exists():
            return []  # another process has just taken it over
        raise _damaged(folder, f"a {OLD_HEADER} or {OLD_RECORDS} that cannot be read") from error
    if header_text != _text({**header, "version": OLD_VERSION}):
        raise _of_others(folder)
    rows = _old_rows(data, header["layers"], header["rows"])
    if rows is None:
        raise _damaged(folder, f"others in {OLD_RECORDS}")
    return rows


def _old_rows(data: bytes, n_layers: int, n_rows: int) -> list[Row] | None:
    """Return the rows of version 0.1's records; None where one before the last is not as it was written."""
    numbers = [(name, "<f8") for name in NUMBERS]
    fields = [("mask", "u1", (-(-n_layers // 8),)), ("row", "<u4"), ("known", "u1"), ("exact_match", "u1")]
    kind = np.dtype([*fields, *numbers, ("crc32", "<u4")])
    records = np.frombuffer(data, kind, len(data) // kind.itemsize)
    whole = [record["crc32"] == zlib.crc32(record.tobytes()[:-4]) for record in records]
    if not all(whole[:-1]):
        return None
    keys: dict[bytes, str] = {}
    rows = []
    for record, is_whole in zip(records, whole, strict=True):
        bits = record["mask"].tobytes()
        if not is_whole or record["known"] != 1 or record["row"] >= n_rows:
            continue
        dropped = np.flatnonzero(np.unpackbits(record["mask"])).tolist()
        if bits not in keys and all(layer < n_layers for layer in dropped):
            keys[bits] = PruneMask(n_layers, dropped).key
        if bits in keys:
            score = {name: record[name].item() for name in ("exact_match", *NUMBERS)}
            rows.append(_row_of(keys[bits], record["row"].item(), score))
    return rows


def _of_others(folder: Path | None) -> EvaluationError:
    return EvaluationError(
        f"{folder} holds scores of another model, other prompts, other settings or another version of Strata. "
        "Name another folder, or delete this one."
    )


def _damaged(folder: Path | None, got: str) -> EvaluationError:
    return EvaluationError(
        f"The scores in {folder} are damaged: expected rows as they were written, got {got}. Delete the folder and measure again."
    )


def _cannot_write(folder: Path | None, got: str, advice: str) -> EvaluationError:
    return EvaluationError(
        f"The scores cannot be written to {folder}: expected a folder to read and write, got {got}. "
        f"{advice}; what was measured before is kept."
    )
