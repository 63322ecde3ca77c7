"""The scores of many masks on one prompt set, kept as they are measured: what is written stays when a sweep is cancelled or killed.

With a folder, `header.json` says what the scores belong to and `scores.bin` holds one record for each mask and row, appended as they
come, with a checksum each. Only the end of such a file can be torn: from the first record that is not whole on, it is cut off. Without a
folder everything stays in memory: 44 bytes a record.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import DISK_FULL, EvaluationError
from vlm_analysis.files import write_atomically

HEADER, RECORDS = "header.json", "scores.bin"
VERSION = 2
NUMBERS = ("answer_nll", "token_agreement", "kl_to_dense")
TORN = 32  # whole records after one that is not; more than one write holds are no torn end


class ScoreStore:
    """The scores of masks (by the layers they drop) on rows: prompts, and their further choices.

    Args:
        n_layers: of the masks.
        n_rows: rows a whole mask has.
        folder: where they are kept; None keeps them in memory.
        belongs: what decides the numbers, as plain JSON: model, prompts, batch size, versions.

    Raises:
        EvaluationError: the folder holds scores of something else, is damaged, or cannot be written.
    """

    def __init__(
        self, n_layers: int, n_rows: int, folder: Path | None = None, belongs: Mapping[str, Any] | None = None
    ) -> None:
        self.n_layers, self.n_rows = n_layers, n_rows
        self.type = np.dtype(
            [("mask", "u1", (-(-n_layers // 8),)), ("row", "<u4"), ("known", "u1"), ("exact_match", "u1")]
            + [(name, "<f8") for name in NUMBERS]
            + [("crc32", "<u4")]
        )
        self._tables: dict[tuple[int, ...], np.ndarray] = {}
        self._path = None if folder is None else Path(folder) / RECORDS
        if folder is not None:
            self._open(Path(folder), {"version": VERSION, "rows": n_rows, "layers": n_layers, **(belongs or {})})

    def lacks(self, dropped: tuple[int, ...], rows: Sequence[int]) -> bool:
        """Return whether a score of the mask on any of these rows is missing."""
        table = self._tables.get(dropped)
        return table is None or not table["known"][list(rows)].all()

    def n_known(self, dropped: tuple[int, ...]) -> int:
        """Return how many rows of the mask have scores."""
        table = self._tables.get(dropped)
        return 0 if table is None else int(table["known"].sum())

    def put(self, dropped: tuple[int, ...], rows: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> None:
        """Add the scores of a mask on some rows (see `evaluate.answer_scores`); they are on disk once this returns."""
        records = np.zeros(len(rows), self.type)
        records["mask"], records["row"], records["known"] = self._bits(dropped), list(rows), 1
        for place, score in enumerate(scores):
            records["exact_match"][place] = bool(score.get("exact_match", False))
            for name in NUMBERS:
                records[name][place] = score.get(name, np.nan)
        records["crc32"] = _sums(records)
        if self._path is not None:
            _append(self._path, records.tobytes())
        self._table(dropped)[list(rows)] = records

    def of(self, dropped: tuple[int, ...]) -> dict[int, dict[str, Any]]:
        """Return the known scores of a mask by row."""
        table = self._tables.get(dropped)
        if table is None:
            return {}
        columns = {name: table[name].tolist() for name in NUMBERS}
        right = table["exact_match"].astype(bool).tolist()
        return {
            row: {"exact_match": right[row], **{name: columns[name][row] for name in NUMBERS}}
            for row in np.flatnonzero(table["known"]).tolist()
        }

    def column(self, name: str, masks: Sequence[tuple[int, ...]], n_rows: int) -> np.ndarray:
        """Return a (n_masks, n_rows) float64 column of the scores; NaN where there is none yet."""
        found = np.full((len(masks), n_rows), np.nan)
        for place, dropped in enumerate(masks):
            table = self._tables.get(dropped)
            if table is not None:
                known = table["known"][:n_rows].astype(bool)
                found[place, known] = table[name][:n_rows][known]
        return found

    def known(self, masks: Sequence[tuple[int, ...]], n_rows: int) -> np.ndarray:
        """Return which scores are there, (n_masks, n_rows) bool."""
        found = np.zeros((len(masks), n_rows), bool)
        for place, dropped in enumerate(masks):
            table = self._tables.get(dropped)
            if table is not None:
                found[place] = table["known"][:n_rows].astype(bool)
        return found

    def _table(self, dropped: tuple[int, ...]) -> np.ndarray:
        if dropped not in self._tables:
            self._tables[dropped] = np.zeros(self.n_rows, self.type)
        return self._tables[dropped]

    def _bits(self, dropped: tuple[int, ...]) -> np.ndarray:
        flags = np.zeros(self.n_layers, bool)
        flags[list(dropped)] = True
        return np.packbits(flags)

    def _open(self, folder: Path, belongs: dict[str, Any]) -> None:
        header = json.dumps(belongs, sort_keys=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / HEADER).exists():
                _refuse_other(folder, header)
            elif (folder / RECORDS).exists() and (folder / RECORDS).stat().st_size:
                raise _damaged(folder, f"records without {HEADER}")
            else:
                write_atomically(folder / HEADER, lambda part: part.write_text(header, "utf-8"))
            if (folder / RECORDS).exists():
                self._read(folder / RECORDS)
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def _read(self, path: Path) -> None:
        """Take up the whole records; a torn end is cut off, so that later ones start in their place."""
        size = path.stat().st_size
        records = np.fromfile(path, self.type, size // self.type.itemsize)
        whole = self._whole(records)
        n_whole = len(records) if whole.all() else int(whole.argmin())
        if whole[n_whole:].sum() > TORN:
            raise _damaged(path.parent, f"a broken record {n_whole} before whole ones")
        if size != n_whole * self.type.itemsize:
            os.truncate(path, n_whole * self.type.itemsize)
        if not n_whole:
            return
        records = records[:n_whole]
        masks, mine = np.unique(records["mask"], axis=0, return_inverse=True)
        order = np.argsort(mine.reshape(-1), kind="stable")  # of equal rows the last written stays last
        for bits, places in zip(masks, np.split(order, np.bincount(mine.reshape(-1)).cumsum()[:-1]), strict=True):
            dropped = tuple(np.flatnonzero(np.unpackbits(bits)).tolist())
            self._table(dropped)[records["row"][places]] = records[places]

    def _whole(self, records: np.ndarray) -> np.ndarray:
        """Return which records are as they were written, (n_records,) bool."""
        beyond = np.unpackbits(records["mask"], axis=1)[:, self.n_layers :].any(axis=1)
        fits = (records["row"] < self.n_rows) & (records["known"] == 1) & (records["exact_match"] <= 1) & ~beyond
        found: np.ndarray = fits & (records["crc32"] == _sums(records))
        return found


def _sums(records: np.ndarray) -> np.ndarray:
    """Return the checksum of each record, over its bytes before the checksum, (n_records,) uint32."""
    size, data = records.itemsize, memoryview(records.tobytes())
    return np.array([zlib.crc32(data[start : start + size - 4]) for start in range(0, len(data), size)], np.uint32)


def _append(path: Path, data: bytes) -> None:
    """Append to the file; where that fails it is as it was, so that later records start in their place."""
    try:
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError:
            with suppress(OSError):
                os.truncate(path, size)
            raise
    except OSError as error:
        raise _cannot_write(path.parent, error) from error


def _refuse_other(folder: Path, header: str) -> None:
    if (folder / HEADER).is_dir():
        raise _damaged(folder, f"a folder named {HEADER}")
    found = (folder / HEADER).read_bytes()
    if found == header.encode():
        return
    try:
        told = json.loads(found)
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"a {HEADER} that cannot be read") from error
    if not isinstance(told, dict):
        raise _damaged(folder, f"a {HEADER} of something else")
    raise EvaluationError(
        f"{folder} holds scores of another model, other prompts, other settings or another version of Strata. "
        "Name another folder, or delete this one."
    )


def _damaged(folder: Path, got: str) -> EvaluationError:
    return EvaluationError(
        f"The scores in {folder} are damaged: expected a {HEADER} and whole records, got {got}. Delete the folder and measure again."
    )


def _cannot_write(folder: Path, error: OSError) -> EvaluationError:
    advice = "Free some space" if error.errno in DISK_FULL else "Make it writable"
    return EvaluationError(
        f"The scores cannot be written to {folder}: expected a folder to read and write, got {error.strerror or error}. {advice} or "
        "choose another folder; what was measured before is kept."
    )
