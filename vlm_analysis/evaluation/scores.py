"""The scores of many edits on one prompt set, kept as they are measured: what is written stays when a sweep is cancelled or killed.

With a folder, `header.json` says what the scores belong to and `records.bin` holds one record for each edit and row, appended as they
come, with a checksum each. Only the end of such a file can be torn: from the first record that is not whole on, it is cut off. Whole
records behind a broken beginning, or shifted against the others, were never written so: that is damage, and the file stays as it is.
Without a folder everything stays in memory: 50 bytes a record. A folder of version 0.1, whose `scores.bin` names masks by the layers they
drop, is taken over when it is opened.

Several processes may keep scores in one folder at once. Each owns it (`files.owned`) only while it opens the file or appends to it, and
first takes in what others appended since. So nobody cuts off what another is writing, nobody waits for another's sweep, which may be
of other edits and last for hours, and what one has measured the others need not (`refresh`).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import KEY_DIGITS, PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.files import Hold, advice_for, owned, write_atomically
from vlm_analysis.progress import stop_if_asked

HEADER, RECORDS = "header.json", "records.bin"
VERSION = 3
OLD_RECORDS, OLD_VERSION = "scores.bin", 2
FOLDER_VERSION = 2  # in the names of folders: those of version 0.1 are found again
NUMBERS = ("answer_nll", "token_agreement", "kl_to_dense")
TORN = 32  # whole records after one that is not; more than one write holds are no torn end


class ScoreStore:
    """The scores of edits (by their keys) on rows: prompts, and their further choices.

    Args:
        n_layers: of the edits.
        n_rows: rows a whole edit has.
        folder: where they are kept; None keeps them in memory.
        belongs: what decides the numbers, as plain JSON: model, prompts, batch size, versions.

    Raises:
        EvaluationError: the folder holds scores of something else, is damaged, or cannot be written.
    """

    def __init__(
        self, n_layers: int, n_rows: int, folder: Path | None = None, belongs: Mapping[str, Any] | None = None
    ) -> None:
        self.n_layers, self.n_rows = n_layers, n_rows
        self.type = _record_type("edit", KEY_DIGITS // 2)
        self._tables: dict[str, np.ndarray] = {}
        self._path = None if folder is None else Path(folder) / RECORDS
        self._end = 0  # bytes of the file that are known here
        if folder is not None:
            self._open(Path(folder), {"version": VERSION, "rows": n_rows, "layers": n_layers, **(belongs or {})})

    def lacks(self, key: str, rows: Sequence[int]) -> bool:
        """Return whether a score of the edit on any of these rows is missing."""
        table = self._tables.get(key)
        return table is None or not table["known"][list(rows)].all()

    def n_known(self, key: str) -> int:
        """Return how many rows of the edit have scores."""
        table = self._tables.get(key)
        return 0 if table is None else int(table["known"].sum())

    def put(self, key: str, rows: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> None:
        """Add the scores of an edit on some rows (see `evaluate.answer_scores`); they are on disk once this returns.

        Raises:
            EvaluationError: they cannot be written; the file is as it was.
        """
        records = np.zeros(len(rows), self.type)
        records["edit"], records["row"], records["known"] = _bytes_of(key), list(rows), 1
        for place, score in enumerate(scores):
            records["exact_match"][place] = bool(score.get("exact_match", False))
            for name in NUMBERS:
                records[name][place] = score.get(name, np.nan)
        records["crc32"] = _sums(records)
        if self._path is not None:
            self._append(self._path, key, records)
        self._table(key)[list(rows)] = records

    def refresh(self) -> None:
        """Take in what other processes have added to the folder since.

        Raises:
            EvaluationError: it is damaged, or cannot be read.
        """
        if self._path is None:
            return
        try:
            with self._alone(self._path.parent):
                self._catch_up(self._path)
        except OSError as error:
            raise _cannot_write(self._path.parent, error) from error

    def of(self, key: str) -> dict[int, dict[str, Any]]:
        """Return the known scores of an edit by row."""
        table = self._tables.get(key)
        if table is None:
            return {}
        columns = {name: table[name].tolist() for name in NUMBERS}
        right = table["exact_match"].astype(bool).tolist()
        return {
            row: {"exact_match": right[row], **{name: columns[name][row] for name in NUMBERS}}
            for row in np.flatnonzero(table["known"]).tolist()
        }

    def column(self, name: str, keys: Sequence[str], n_rows: int) -> np.ndarray:
        """Return a (n_edits, n_rows) float64 column of the scores; NaN where there is none yet."""
        found = np.full((len(keys), n_rows), np.nan)
        for place, key in enumerate(keys):
            table = self._tables.get(key)
            if table is not None:
                known = table["known"][:n_rows].astype(bool)
                found[place, known] = table[name][:n_rows][known]
        return found

    def known(self, keys: Sequence[str], n_rows: int) -> np.ndarray:
        """Return which scores are there, (n_edits, n_rows) bool."""
        found = np.zeros((len(keys), n_rows), bool)
        for place, key in enumerate(keys):
            table = self._tables.get(key)
            if table is not None:
                found[place] = table["known"][:n_rows].astype(bool)
        return found

    def _table(self, key: str) -> np.ndarray:
        if key not in self._tables:
            self._tables[key] = np.zeros(self.n_rows, self.type)
        return self._tables[key]

    def _open(self, folder: Path, belongs: dict[str, Any]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone(folder):
                self._open_alone(folder, belongs)
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def _open_alone(self, folder: Path, belongs: dict[str, Any]) -> None:
        header = _header_text(belongs)
        if (folder / HEADER).exists():
            self._take_over(folder, belongs)
            _refuse_other(folder, header)
        elif any((folder / name).exists() and (folder / name).stat().st_size for name in (RECORDS, OLD_RECORDS)):
            raise _damaged(folder, f"records without {HEADER}")
        else:
            write_atomically(folder / HEADER, lambda part: part.write_bytes(header))
        self._catch_up(folder / RECORDS)

    def _alone(self, folder: Path) -> AbstractContextManager[Hold]:
        """Own the folder for a moment; others do for no longer, and who waits for them can be stopped."""
        return owned(folder, lambda owner: stop_if_asked())

    def _catch_up(self, path: Path) -> None:
        """Take in the whole records from the known end on; a torn end is cut off, so that later ones start in their place."""
        size = path.stat().st_size if path.exists() else 0
        if size < self._end:
            raise _damaged(path.parent, f"{size} bytes of records where {self._end} were written")
        if size == self._end:
            return
        records = _whole_records(path, self.type, self._fits, self._end)
        if size != self._end + records.nbytes:
            os.truncate(path, self._end + records.nbytes)
        for key, places in _by_value(records["edit"]):
            self._table(key.tobytes().hex())[records["row"][places]] = records[places]
        self._end += records.nbytes

    def _append(self, path: Path, key: str, records: np.ndarray) -> None:
        """Append records of one edit to the file, except those that another process has written alike."""
        try:
            with self._alone(path.parent):
                self._catch_up(path)
                there = self._table(key)[records["row"]]
                new = records[[mine.tobytes() != known.tobytes() for mine, known in zip(records, there, strict=True)]]
                _append(path, new.tobytes())
                self._end += new.nbytes
        except OSError as error:
            raise _cannot_write(path.parent, error) from error

    def _fits(self, records: np.ndarray) -> np.ndarray:
        """Return which records could be of this store, (n_records,) bool."""
        return (records["row"] < self.n_rows) & (records["known"] == 1) & (records["exact_match"] <= 1)

    def _take_over(self, folder: Path, belongs: dict[str, Any]) -> None:
        """Write the records of a folder of version 0.1 anew, under the keys of their masks.

        The new header comes after the new records: a kill in between leaves the old folder, and this is done again.
        """
        old = folder / OLD_RECORDS
        if (folder / HEADER).is_file() and (folder / HEADER).read_bytes() == _header_text(
            belongs | {"version": OLD_VERSION}
        ):
            records = np.zeros(0, self.type)
            if old.exists():
                records = self._from_masks(
                    _whole_records(old, _record_type("mask", -(-self.n_layers // 8)), self._old_fits)
                )
            write_atomically(folder / RECORDS, lambda part: part.write_bytes(records.tobytes()))
            write_atomically(folder / HEADER, lambda part: part.write_bytes(_header_text(belongs)))
        if (folder / RECORDS).exists():
            old.unlink(missing_ok=True)

    def _old_fits(self, records: np.ndarray) -> np.ndarray:
        beyond = np.unpackbits(records["mask"], axis=1)[:, self.n_layers :].any(axis=1)
        return self._fits(records) & ~beyond

    def _from_masks(self, old: np.ndarray) -> np.ndarray:
        """Return records of version 0.1 as they are written now."""
        records = np.zeros(len(old), self.type)
        for name in ("row", "known", "exact_match", *NUMBERS):
            records[name] = old[name]
        for bits, places in _by_value(old["mask"]):
            dropped = np.flatnonzero(np.unpackbits(bits)).tolist()
            records["edit"][places] = _bytes_of(PruneMask(self.n_layers, dropped).key)
        records["crc32"] = _sums(records)
        return records


def _record_type(name: str, width: int) -> np.dtype:
    """Return numpy's type of a record that names its edit by `width` bytes in a field of that name."""
    numbers = [(number, "<f8") for number in NUMBERS]
    return np.dtype(
        [(name, "u1", (width,)), ("row", "<u4"), ("known", "u1"), ("exact_match", "u1"), *numbers, ("crc32", "<u4")]
    )


def _bytes_of(key: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(key), np.uint8)


def _header_text(belongs: Mapping[str, Any]) -> bytes:
    return json.dumps(belongs, sort_keys=True).encode()


def _by_value(values: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each different row of (n, width) values with the places where it stands, ascending: what was written last stays last."""
    if not len(values):
        return
    different, mine = np.unique(values, axis=0, return_inverse=True)
    order = np.argsort(mine.reshape(-1), kind="stable")
    yield from zip(different, np.split(order, np.bincount(mine.reshape(-1)).cumsum()[:-1]), strict=True)


def _whole_records(path: Path, kind: np.dtype, fits: Callable[[np.ndarray], np.ndarray], start: int = 0) -> np.ndarray:
    """Return the records of a file from byte `start` on, up to the first that is not as it was written.

    Raises:
        EvaluationError: whole ones come after that which no torn end has: too many, shifted, or with none before them.
    """
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    records = np.frombuffer(data, kind, len(data) // kind.itemsize)
    whole = _are_whole(records, fits)
    n_whole = len(records) if whole.all() else int(whole.argmin())
    rest = data[n_whole * kind.itemsize :]
    behind = int(whole[n_whole:].sum())
    if behind > (TORN if n_whole else 0):
        raise _damaged(path.parent, f"a broken record {start // kind.itemsize + n_whole} before whole ones")
    if rest and _any_shifted(rest, kind, fits):
        raise _damaged(
            path.parent, f"records that do not follow each other from byte {start + len(data) - len(rest)} on"
        )
    return records[:n_whole]


def _are_whole(records: np.ndarray, fits: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return which records are as they were written, (n_records,) bool."""
    whole = fits(records)
    whole[whole] = records["crc32"][whole] == _sums(records[whole])
    return whole


def _any_shifted(data: bytes, kind: np.dtype, fits: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Return whether a whole record starts at a byte where none belongs."""
    size = kind.itemsize
    shifts = (np.frombuffer(data, kind, (len(data) - shift) // size, shift) for shift in range(1, min(size, len(data))))
    return any(_are_whole(records, fits).any() for records in shifts if len(records))


def _sums(records: np.ndarray) -> np.ndarray:
    """Return the checksum of each record, over its bytes before the checksum, (n_records,) uint32."""
    size, data = records.itemsize, memoryview(records.tobytes())
    return np.array([zlib.crc32(data[start : start + size - 4]) for start in range(0, len(data), size)], np.uint32)


def _append(path: Path, data: bytes) -> None:
    """Append to the file; where that fails it is as it was, so that later records start in their place."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(data)
    except OSError:
        with suppress(OSError):
            os.truncate(path, size)
        raise


def _refuse_other(folder: Path, header: bytes) -> None:
    if (folder / HEADER).is_dir():
        raise _damaged(folder, f"a folder named {HEADER}")
    found = (folder / HEADER).read_bytes()
    if found == header:
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
    return EvaluationError(
        f"The scores cannot be written to {folder}: expected a folder to read and write, got {error.strerror or error}. "
        f"{advice_for(error)}; what was measured before is kept."
    )
