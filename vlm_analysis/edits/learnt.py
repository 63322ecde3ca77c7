"""Changes that were learnt: they hold tensors, which are saved beside the edit's file and recognised by their hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from vlm_analysis.edits.change import Change
from vlm_analysis.errors import EditError, ModelError, short
from vlm_analysis.files import opened, write_atomically
from vlm_analysis.guard.memory import refuse_larger
from vlm_analysis.models.files import DOWNLOAD, read_header

ENDING = ".safetensors"  # of the file with the tensors, beside the edit's
MOST_BYTES = 16 << 30  # of the tensors of one change
_TYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Tensors:
    """Named tensors that were learnt. Two are equal when their names, types, shapes and numbers are.

    In the file of an edit each stands under "HASH.NAME"; there it is read when it is needed, and checked against the hash.

    Attributes:
        sha256: hash of what they hold, 64 hexadecimal digits.
        path: the safetensors file that holds them; None where they are in memory, or known by their hash only.

    Raises:
        EditError: the hash is none.
    """

    sha256: str
    path: Path | None = field(default=None, compare=False)
    held: Mapping[str, np.ndarray] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sha256, str) or not _HASH.fullmatch(self.sha256):
            raise EditError(
                f"The tensors of an edit are damaged: expected a hash of 64 hexadecimal digits, got {short(repr(self.sha256))}. "
                "Put the edit's own files back."
            )

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """Return tensors that are in memory; they are copied.

        Raises:
            EditError: there is none, or one is not of float16, float32 or float64, or holds a number that is not finite.
        """
        held = {name: np.array(values, order="C") for name, values in sorted(tensors.items())}
        if not held:
            raise EditError("There are no tensors to hold: expected one or more by their names, got none. Name them.")
        for name, values in held.items():
            if values.dtype not in _TYPES.values():
                raise EditError(
                    f"The tensor {name!r} cannot be held: expected float16, float32 or float64, got {values.dtype}. Convert it."
                )
            if not np.isfinite(values).all():
                raise EditError(
                    f"The tensor {name!r} cannot be held: expected finite numbers, got NaN or infinity. Learn it anew."
                )
            values.setflags(write=False)
        return cls(_hash(held), None, held)

    def read(self) -> dict[str, np.ndarray]:
        """Return the tensors by their names; they are not to be changed.

        Raises:
            EditError: they are neither in memory nor in the file, or others than the hash tells.
        """
        held = self.held if self.held is not None else self._stored()
        return dict(held)

    def _stored(self) -> dict[str, np.ndarray]:
        if self.path is None:
            raise EditError(
                f"The learnt tensors {self.sha256[:8]} are not here: expected them in memory or beside the edit's own file, got their "
                "hash only. Open the edit from its own file."
            )
        try:
            held = _read(self.path, f"{self.sha256}.")
        except (OSError, ModelError, ValueError) as error:
            raise EditError(
                f"The learnt tensors in {self.path.name} cannot be read: {_without_advice(error)}. "
                "Put the file back beside the edit's, or make the edit again."
            ) from error
        if _hash(held) != self.sha256:
            raise EditError(
                f"{self.path.name} holds other tensors: expected those with the hash {self.sha256[:8]}, got "
                f"{_hash(held)[:8] if held else 'none of them'}. Put the file that was saved with the edit back."
            )
        return held


def _without_advice(error: Exception) -> str:
    """Return what is wrong with a file of tensors; what a checkpoint's would be downloaded again for was made here."""
    return short(error, 400).removesuffix(DOWNLOAD).rstrip(". ")


class Learnt(Change):
    """A change that was learnt; its kinds are dataclasses with these two fields.

    Attributes:
        tensors: what was learnt.
        learnt_on: key of the edit that the change was learnt on: of all changes that are applied before those of its kind. "" where
            it fits any edit.
    """

    tensors: Tensors
    learnt_on: str


def write_tensors(changes: Iterable[Change], path: Path) -> Path | None:
    """Write the tensors of all learnt changes into one safetensors file, whole or not at all; None where no change has any.

    Raises:
        EditError: tensors are not here.
    """
    from safetensors.numpy import save

    stored = {
        f"{change.tensors.sha256}.{name}": values
        for change in changes
        if isinstance(change, Learnt)
        for name, values in change.tensors.read().items()
    }
    return write_atomically(path, lambda part: part.write_bytes(save(stored))) if stored else None


def with_tensors(changes: Iterable[Change], path: Path) -> tuple[Change, ...]:
    """Return the changes with their tensors in a file, each checked.

    Raises:
        EditError: one is missing there, or another.
    """
    found = []
    for change in changes:
        if isinstance(change, Learnt):
            tensors = Tensors(change.tensors.sha256, path)
            tensors.read()
            change = replace(change, tensors=tensors)  # type: ignore[type-var]  # its kinds are dataclasses
        found.append(change)
    return tuple(found)


def _hash(held: Mapping[str, np.ndarray]) -> str:
    """Return a hash of names, types, shapes and numbers."""
    found = hashlib.sha256()
    for name, values in sorted(held.items()):
        found.update(json.dumps([name, values.dtype.str, values.shape]).encode())
        found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()


def _read(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file whose names begin with a prefix, without it; the file is not mapped into memory."""
    header = read_header(path)
    entries: dict[str, Any] = {
        name.removeprefix(prefix): entry for name, entry in header.items() if name.startswith(prefix)
    }
    refuse_larger(sum(end - start for start, end in (entry["data_offsets"] for entry in entries.values())), MOST_BYTES)
    held = {}
    with opened(path) as file:
        begin = 8 + int.from_bytes(file.read(8), "little")
        for name, entry in sorted(entries.items()):
            if entry["dtype"] not in _TYPES:
                raise ValueError(f"expected {', '.join(_TYPES)}, got a tensor of {short(entry['dtype'], 40)}")
            start, end = entry["data_offsets"]
            file.seek(begin + start)
            values = np.frombuffer(file.read(end - start), _TYPES[entry["dtype"]]).reshape(entry["shape"])
            if not np.isfinite(values).all():
                raise ValueError("expected finite numbers, got NaN or infinity")
            held[name] = values
    return held
