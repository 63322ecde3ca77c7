"""Rows of a recording on disk, prompt by prompt as they are measured: what is written stays when the work is cancelled or killed.

A folder holds `header.json` (what the rows belong to), `rows.bin` (rows one after another) and `sums.npz` (how many rows count,
with the activation sums over them). `sums.npz` is replaced as a whole after each batch, so that a kill in between loses that batch
and nothing else. Nothing here holds more than one batch in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import RecordingError
from vlm_analysis.files import write_atomically
from vlm_analysis.recording.measures import row_type
from vlm_analysis.recording.recording import Activations, Recording

HEADER, ROWS, SUMS, FINAL = "header.json", "rows.bin", "sums.npz", "assembled.bin"


class RowStore:
    """The rows of one unfinished recording in a folder of their own.

    Raises:
        RecordingError: the folder holds rows of another model, other settings or another version, or cannot be written.
    """

    def __init__(self, folder: Path, belongs: Mapping[str, Any], n_layers: int) -> None:
        self.folder = Path(folder)
        self.type = row_type(n_layers)
        self._places: dict[str, int] = {}
        self.activations: dict[str, Activations] = {}
        header = json.dumps({"rows": str(self.type.descr), "belongs": belongs}, sort_keys=True, default=str)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / HEADER).exists():
                self._refuse_other(header)
                self._open()
            else:
                write_atomically(self.folder / HEADER, lambda part: part.write_text(header, "utf-8"))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys of the prompts whose rows are there."""
        return frozenset(self._places)

    def append(self, rows: np.ndarray, activations: Mapping[str, Activations]) -> None:
        """Add (n,) rows with the activation sums over them; they count once this returns."""
        sums = dict(self.activations)
        for domain, part in activations.items():
            sums[domain] = sums[domain] + part if domain in sums else part
        first = len(self._places)
        try:
            with (self.folder / ROWS).open("r+b" if first else "wb") as file:
                file.seek(first * self.type.itemsize)
                file.write(rows.tobytes())
            self._write_sums(first + len(rows), sums)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        self.activations = sums
        self._places |= {key.decode(): first + place for place, key in enumerate(rows["key"])}

    def assembled(self, keys: Iterable[str], known: Recording | None = None) -> np.ndarray:
        """Return the rows of these keys in this order, as a read-only memory map; `known` has those that are not stored here."""
        elsewhere = {} if known is None else {key: place for place, key in enumerate(known.keys)}
        path = self.folder / FINAL
        try:
            with path.open("wb") as final, (self.folder / ROWS).open("ab+") as stored:
                for key in keys:
                    if key in self._places:
                        stored.seek(self._places[key] * self.type.itemsize)
                        final.write(stored.read(self.type.itemsize))
                    else:
                        assert known is not None
                        final.write(known.rows[elsewhere[key]].tobytes())
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        return np.asarray(np.memmap(path, self.type, mode="r"))

    def _refuse_other(self, header: str) -> None:
        if (self.folder / HEADER).read_text("utf-8") != header:
            raise RecordingError(
                f"{self.folder} holds an unfinished recording of another model, other settings or another version of Strata. "
                "Name another folder, or delete this one."
            )

    def _open(self) -> None:
        """Take up what counts; a last batch that was cut short does not."""
        if not (self.folder / SUMS).exists() or not (self.folder / ROWS).exists():
            return
        try:
            with np.load(self.folder / SUMS, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(arrays["meta"].tobytes())
            rows = np.memmap(self.folder / ROWS, self.type, mode="r", shape=(meta["n_rows"],))
            sums = {
                str(name): Activations(arrays[f"sums_{place}"], arrays[f"norms_{place}"], int(count))
                for place, (name, count) in enumerate(meta["domains"])
            }
        except Exception as error:  # damaged bytes make numpy and zlib raise a dozen kinds
            raise RecordingError(
                f"The unfinished recording in {self.folder} is damaged ({error}). Delete the folder and record again."
            ) from error
        self._places = {key.decode(): place for place, key in enumerate(rows["key"])}
        self.activations = sums

    def _write_sums(self, n_rows: int, sums: Mapping[str, Activations]) -> None:
        meta = {"n_rows": n_rows, "domains": [[name, part.n_prompts] for name, part in sums.items()]}
        arrays: dict[str, Any] = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
        for place, part in enumerate(sums.values()):
            arrays[f"sums_{place}"], arrays[f"norms_{place}"] = part.sums, part.norms

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)

        write_atomically(self.folder / SUMS, write)


def _cannot_write(folder: Path, error: OSError) -> RecordingError:
    return RecordingError(
        f"The recording cannot be written to {folder}: {error.strerror or error}. Free some space or choose another folder; "
        "what was recorded before is kept."
    )
