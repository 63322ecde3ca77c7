"""Rows of a recording on disk, written as they are measured: they stay when the work is cancelled or killed.

A folder holds `header.json` (what the rows belong to), `rows.bin` (rows one after another) and `sums.npz` (how many rows count,
with the activation sums over them). `sums.npz` is replaced as a whole after each batch, so that a kill in between loses that batch
and nothing else. Nothing here holds more than one batch in memory.

One process at a time owns such a folder, for as long as it records (`opened_rows`). Files that another may cut are read, never mapped: a
map of a file that was cut ends the process. What `assembled` maps is a file without a name, which no other process can open.
"""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vlm_analysis.errors import RecordingError, short
from vlm_analysis.files import Owner, advice_for, opened, owned, read_bytes, write_atomically
from vlm_analysis.guard.schema import fields, listed, whole
from vlm_analysis.guard.zips import opened_zip
from vlm_analysis.recording.measures import MEASURES, filled_rows, row_type
from vlm_analysis.recording.pooled import SCHEMA as POOLED, Pooled, Task, pooled_content, pooled_of
from vlm_analysis.recording.recording import DOMAIN_SUM, Activations, Recording, activations
from vlm_analysis.saved import MAX_ENTRIES, Arrays

HEADER, ROWS, SUMS = "header.json", "rows.bin", "sums.npz"
PIECE = 256  # rows read at once
MAX_HEADER = 1 << 20  # bytes
K = TypeVar("K")
V = TypeVar("V", Activations, Pooled)
META = fields({"n_rows": whole(), "domains": listed(DOMAIN_SUM)}, {"pooled": POOLED})


class RowsGoneError(RecordingError):
    """The folder was deleted while in use: start again, there or elsewhere."""


@contextmanager
def opened_rows(
    folder: Path,
    belongs: Mapping[str, Any],
    n_layers: int,
    wait: Callable[[Owner | None], object],
    n_tower: int = 0,
) -> Iterator[RowStore]:
    """Own the folder inside the block, and yield its RowStore; a missing folder is created.

    While another process or another thread owns it, `wait` is called repeatedly with that owner; an exception it raises ends the waiting.

    Raises:
        RecordingError: as RowStore.
        RowsGoneError: the folder is deleted inside the block.
    """
    folder = Path(folder)
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            hold = stack.enter_context(owned(folder, wait))
        except OSError as error:
            raise _cannot_write(folder, error) from error
        yield RowStore(folder, belongs, n_layers, hold.stands, n_tower)


class RowStore:
    """The rows of one unfinished recording in a folder.

    Args:
        folder: where they are stored; created if missing.
        belongs: what they belong to, as plain JSON.
        n_layers: of the model.
        stands: returns whether the folder is still the same (see `opened_rows`).
        n_tower: layers of the model's vision encoder.

    Raises:
        RecordingError: the folder holds rows of another model, other settings or another version, is damaged, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        belongs: Mapping[str, Any],
        n_layers: int,
        stands: Callable[[], bool] = lambda: True,
        n_tower: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self._stands = stands
        self.type = self._full_type = row_type(n_layers, n_tower)
        self._row_of: dict[str, int] = {}
        self.activations: dict[str, Activations] = {}
        self.pooled: dict[Task, Pooled] = {}
        self._n_layers, self._n_tower = n_layers, n_tower
        header = json.dumps({"rows": str(self.type.descr), "belongs": belongs}, sort_keys=True, default=str)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / HEADER).exists():
                self.type = self._stored_type(header)
                self._open()
            else:
                (self.folder / SUMS).unlink(missing_ok=True)  # sums without a header belong to nothing known
                write_atomically(self.folder / HEADER, lambda part: part.write_text(header, "utf-8"))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys of the prompts whose rows are stored."""
        return frozenset(self._row_of)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Return the measures that the folder lacks: an older version, without them, began it."""
        return tuple(name for name in MEASURES if name not in (self.type.names or ()))

    def append(
        self, rows: np.ndarray, activations: Mapping[str, Activations], pooled: Mapping[Task, Pooled] | None = None
    ) -> None:
        """Add (n,) rows with the activation sums and pooled states over them; they count once this returns.

        Raises:
            RowsGoneError: the folder was deleted meanwhile.
            RecordingError: it cannot be written.
        """
        sums = merged(self.activations, activations)
        states = merged(self.pooled, pooled or {})
        first, rows = len(self._row_of), self._as_stored(rows)
        try:
            self._check_folder()
            with (self.folder / ROWS).open("r+b" if first else "wb") as file:
                file.seek(first * self.type.itemsize)
                file.write(rows.tobytes())
            self._check_folder()
            self._write_sums(first + len(rows), sums, states)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        self.activations, self.pooled = sums, states
        self._row_of |= {key.decode(): first + index for index, key in enumerate(rows["key"])}

    def assembled(self, keys: Iterable[str], known: Recording | None = None) -> np.ndarray:
        """Return the rows of these keys in this order, as a read-only map of a private file; `known` has those not stored here.

        Raises:
            RowsGoneError: the folder was deleted meanwhile.
            RecordingError: a row is missing or that of another prompt, or the disk is full.
        """
        elsewhere = {} if known is None else {key: index for index, key in enumerate(known.keys)}
        try:
            with ExitStack() as stack:
                final = stack.enter_context(tempfile.TemporaryFile(dir=self.folder))
                stored = stack.enter_context(opened(self.folder / ROWS)) if self._row_of else None
                for key in keys:
                    if stored is not None and key in self._row_of:
                        stored.seek(self._row_of[key] * self.type.itemsize)
                        row = np.frombuffer(stored.read(self.type.itemsize), np.uint8)
                    else:
                        assert known is not None
                        row = self._as_stored(known.rows[elsewhere[key] :][:1]).view(np.uint8)
                    self._check_row(key, row)
                    final.write(self._whole(row.view(self.type)).tobytes())
                final.flush()
                return np.asarray(np.memmap(final, self._full_type, mode="r"))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    def _check_row(self, key: str, row: np.ndarray) -> None:
        """Raise RecordingError unless the bytes are the whole row of this prompt."""
        if len(row) == self.type.itemsize and (row_key := row.view(self.type)["key"][0]) == key.encode():
            return
        self._check_folder()
        got = f"that of {row_key.decode(errors='replace')!r}" if len(row) == self.type.itemsize else f"{len(row)} bytes"
        raise RecordingError(
            f"The recording in {self.folder} is damaged: expected the row of prompt {key!r}, got {got}. Something else wrote into "
            "the folder. Delete it and record again."
        )

    def _check_folder(self) -> None:
        if not self._stands():
            raise _gone(self.folder)

    def _as_stored(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of `row_type` in the folder's type, without the measures that it lacks."""
        if rows.dtype == self.type:
            return rows
        stored_rows = np.empty(len(rows), self.type)
        for name in self.type.names or ():
            stored_rows[name] = rows[name]
        return stored_rows

    def _whole(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the folder as rows of `row_type`; measures that it lacks are empty."""
        if rows.dtype == self._full_type:
            return rows
        parts = {name: rows[name] for name in self.type.names or ()}
        return filled_rows(len(rows), self._n_layers, parts, self._n_tower)

    def _stored_type(self, header: str) -> np.dtype[Any]:
        """Return the type of the folder's rows: that of this version, or of one with fewer measures.

        Raises:
            RecordingError: the folder holds something else.
        """
        text, expected = read_bytes(self.folder / HEADER, MAX_HEADER), json.loads(header)
        if text == header.encode():
            return self.type
        try:
            stored = json.loads(text)
            stored_type = np.dtype(ast.literal_eval(stored.pop("rows")))
            fields = {name: self.type[name] for name in stored_type.names or ()}
            if (
                stored == {"belongs": expected["belongs"]}
                and fields == {name: stored_type[name] for name in fields}
                and "key" in fields
            ):
                return stored_type
        except (ValueError, TypeError, KeyError, AttributeError, SyntaxError, RecursionError, MemoryError):
            pass
        raise RecordingError(
            f"{self.folder} holds an unfinished recording of another model, other settings or another version of Strata. "
            "Name another folder, or delete this one."
        )

    def _open(self) -> None:
        """Read the rows that count; a last batch that was cut short does not."""
        if not (self.folder / SUMS).exists() or not (self.folder / ROWS).exists():
            return
        try:
            with opened(self.folder / SUMS) as file, opened_zip(file, MAX_ENTRIES) as stored:
                arrays = Arrays(stored)
                meta = arrays.text("meta")
                META(meta, "its sums")
                sums = activations(meta["domains"], arrays, self._n_layers)
                states = pooled_of(meta.get("pooled", []), arrays, self._n_layers)
            row_of = self._read_keys(meta["n_rows"])
        except FileNotFoundError:
            raise
        except Exception as error:  # damaged bytes make numpy and zlib raise a dozen kinds
            raise RecordingError(
                f"The unfinished recording in {self.folder} is damaged ({short(error)}). Delete the folder and record again."
            ) from error
        self._row_of, self.activations, self.pooled = row_of, sums, states

    def _read_keys(self, n_rows: int) -> dict[str, int]:
        """Return the index of the row of each key, of the first `n_rows`."""
        row_of: dict[str, int] = {}
        with opened(self.folder / ROWS) as file:
            for first in range(0, n_rows, PIECE):
                n_next = min(PIECE, n_rows - first)
                rows = np.fromfile(file, self.type, n_next)
                if len(rows) != n_next:
                    raise ValueError(f"expected {n_rows} rows, got {first + len(rows)}")
                row_of |= {key.decode(): first + index for index, key in enumerate(rows["key"])}
        if len(row_of) != n_rows:
            raise ValueError(f"expected the rows of {n_rows} prompts, got those of {len(row_of)}")
        return row_of

    def _write_sums(self, n_rows: int, sums: Mapping[str, Activations], states: Mapping[Task, Pooled]) -> None:
        pooled, arrays = pooled_content(states)
        domains = [[name, part.n_prompts] for name, part in sums.items()]
        meta = {"n_rows": n_rows, "domains": domains, "pooled": pooled}
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        for index, part in enumerate(sums.values()):
            arrays[f"sums_{index}"], arrays[f"norms_{index}"] = part.sums, part.norms

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        write_atomically(self.folder / SUMS, write)


def merged(sums: Mapping[K, V], more: Mapping[K, V]) -> dict[K, V]:
    """Return sums by name with more of them added."""
    both = dict(sums)
    for name, part in more.items():
        both[name] = both[name] + part if name in both else part
    return both


def _gone(folder: Path) -> RowsGoneError:
    return RowsGoneError(
        f"The recording in {folder} stopped: expected its folder, got one that was deleted or made anew meanwhile. Record again."
    )


def _cannot_write(folder: Path, error: OSError) -> RecordingError:
    made_and_deleted = isinstance(error, FileExistsError) and not folder.is_file()  # by others, while it was made here
    if isinstance(error, FileNotFoundError) or made_and_deleted:
        return _gone(folder)
    return RecordingError(
        f"The recording cannot be written to {folder}: expected a folder to read and write, got {error.strerror or error}. "
        f"{advice_for(error)}; what was recorded before is kept."
    )
