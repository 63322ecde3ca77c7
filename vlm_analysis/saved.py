"""The files of saved work: one envelope for every kind of them, and one reader that trusts no file.

A JSON file is an object with `kind`, `schema_version`, mostly `model` and `prompts` (a fingerprint), and the kind's own payload; an npz
file holds arrays without pickle, and such an object as `meta`. A kind is a `Form` beside its value, with the schema of its payload, what
makes a payload of the value, and the value of a payload.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from vlm_analysis.errors import StrataError
from vlm_analysis.files import opened, read_bytes, write_atomically
from vlm_analysis.guard.memory import JSON_COST, refuse_larger
from vlm_analysis.guard.schema import Check, anything, fields, text
from vlm_analysis.guard.zips import check_entries, opened_zip
from vlm_analysis.progress import stop_if_asked

MAX_BYTES = 8 << 30  # of an unpacked file: a recording of ten thousand prompts of a large model is about 1 GB
MAX_TEXT = 256 << 20  # of JSON
MAX_ENTRIES = 20_000  # of an npz file: a token map for each of ten thousand prompts, and arrays
HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
FINGERPRINT = text(200)
ENVELOPE = fields({}, {"prompts": FINGERPRINT})
T = TypeVar("T")


@dataclass(frozen=True)
class Form:
    """What the files of one kind have in common.

    Attributes:
        kinds: the kind in the file; where there are several, the payload tells which it is.
        version: the newest schema version, which is written; older ones are opened too.
        word, advice: what messages call it, and what to do about a file that cannot be opened.
        error: raised for a file that is missing, too large, damaged, of another kind or of a newer version, and in place of whatever
            `make`, which makes the value of the content, raises.
        schema: what the payload may hold; `make` is given nothing else.
    """

    kinds: tuple[str, ...]
    version: int
    word: str
    advice: str
    error: type[StrataError]
    schema: Check = anything

    def content(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object that is written."""
        return {"schema_version": self.version, "kind": self.kinds[0], **payload}

    def text(self, payload: Mapping[str, Any]) -> str:
        """Return a JSON file's text; numbers of numpy are written as Python's."""
        return json.dumps(self.content(payload), ensure_ascii=False, allow_nan=False, default=plain) + "\n"

    def save(self, path: Path, payload: Mapping[str, Any]) -> Path:
        """Write a JSON file, which appears whole or not at all; returns the path."""
        text = self.text(payload)
        return write_atomically(Path(path), lambda part: part.write_text(text, "utf-8"))

    def save_arrays(
        self,
        path: Path,
        payload: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        then: Callable[[Path], object] = lambda part: None,
    ) -> Path:
        """Write an npz file, which appears whole or not at all, once `then` has added to it; returns the path."""
        stored: dict[str, Any] = {**arrays, "meta": np.frombuffer(self.text(payload).encode(), np.uint8)}

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez_compressed(file, **stored)
            then(part)

        return write_atomically(Path(path), write)

    def read(self, text: str, name: str, make: Callable[[dict[str, Any]], T]) -> T:
        """Return the value of a JSON file's text; `name` is the file's in messages."""
        with self._explained(name):
            return self.part(parsed(text), make, name)

    def part(self, content: Any, make: Callable[[dict[str, Any]], T], name: str = "A part of it") -> T:
        """Return the value of an object out of another file; what is wrong with it is that file's to explain."""
        self._check(content, name)
        return make(content)

    def open(self, path: Path, make: Callable[[dict[str, Any]], T]) -> T:
        """Return the value of a JSON file."""
        path = Path(path)
        with self._explained(path.name):
            return self.part(parsed(read_bytes(path, MAX_TEXT)), make, path.name)

    def open_arrays(self, path: Path, make: Callable[[dict[str, Any], Arrays], T]) -> T:
        """Return the value of an npz file."""
        path = Path(path)
        with self._explained(path.name), opened(path) as file, opened_zip(file, MAX_ENTRIES) as stored:
            arrays = Arrays(stored)
            return self.part(arrays.text("meta"), lambda content: make(content, arrays), path.name)

    def _check(self, content: Any, name: str) -> None:
        kind, version = (content.get("kind"), content.get("schema_version")) if isinstance(content, dict) else ("", 0)
        if kind not in self.kinds:
            raise self.error(
                f"{name} is no {self.word}: expected the kind {' or '.join(map(repr, self.kinds))}, got {str(kind)[:99]!r}. {self.advice}"
            )
        if type(version) is not int or version < 1:
            raise ValueError(f"expected a schema version, got {version!r}")
        if version > self.version:
            raise self.error(
                f"{name} cannot be opened: expected a {self.word} of version {self.version} or older, got version {version}. "
                "Update Strata."
            )
        ENVELOPE(content, "it")
        self.schema(content, "it")

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except self.error:
            raise
        except Exception as error:  # damaged bytes make numpy, zlib and json raise a dozen kinds
            reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{error}"
            raise self.error(f"{name} is not a whole {self.word}: {reason[:500].rstrip('.')}. {self.advice}") from error


class Arrays:
    """The arrays of an open npz file; none is unpacked before its header is checked.

    Attributes:
        names: those of the arrays, `meta` among them.
        more: the names of what else the file holds.
    """

    def __init__(self, stored: zipfile.ZipFile, most: int | None = None) -> None:
        members = stored.infolist()
        check_entries(members)
        refuse_larger(sum(member.file_size for member in members), most or MAX_BYTES)
        file_names = [member.filename for member in members]
        self._stored = stored
        self.names = frozenset(name.removesuffix(".npy") for name in file_names if name.endswith(".npy"))
        self.more = tuple(name for name in file_names if not name.endswith(".npy"))

    def text(self, name: str) -> Any:
        """Return the content of JSON that is kept as an array of bytes.

        Raises:
            ValueError, LookupError: it is not there, or no sound JSON.
        """
        refuse_larger(self._stored.getinfo(f"{name}.npy").file_size, MAX_TEXT, JSON_COST)
        return parsed(self.get(name, np.uint8, (None,)).tobytes())

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Return the shape and type of an array as its file claims them, and its bytes.

        Raises:
            ValueError, LookupError: it is not there, or no array.
        """
        with self._stored.open(f"{name}.npy") as file:
            shape, _, kind = HEADERS[np.lib.format.read_magic(file)](file)
            return shape, kind, self._stored.getinfo(f"{name}.npy").file_size - file.tell()

    def get(self, name: str, dtype: Any, shape: tuple[int | None, ...]) -> np.ndarray:
        """Return an array of this type and shape, None in it being any length; any type where `dtype` is None.

        Raises:
            ValueError, LookupError: it is not there, or another.
        """
        got_shape, kind, size = self.header(name)
        fits = len(got_shape) == len(shape) and all(n in (None, m) for n, m in zip(shape, got_shape, strict=True))
        expected_type = kind if dtype is None else np.dtype(dtype)
        if not fits or kind != expected_type or size != math.prod(got_shape) * kind.itemsize:
            raise ValueError(
                f"expected {expected_type} of shape {shape} in {name}, got {kind} of shape {got_shape} in {size} bytes"
            )
        with self._stored.open(f"{name}.npy") as file:
            array: np.ndarray = np.lib.format.read_array(_Asking(file), allow_pickle=False)
            return array


class _Asking:
    """A file that asks before each piece of it whether work should stop."""

    def __init__(self, file: Any) -> None:
        self._file: BinaryIO = file

    def read(self, size: int = -1) -> bytes:
        stop_if_asked()
        return self._file.read(size)


def kind_in(path: Path) -> str:
    """Return the kind that a JSON or npz file says it is of; "" where it says none, or cannot be read."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".npz":
            with opened(path) as file, opened_zip(file, MAX_ENTRIES) as stored:
                content = Arrays(stored).text("meta")
        else:
            content = parsed(read_bytes(path, MAX_TEXT))
    except Exception:  # damaged bytes make numpy, zlib and json raise a dozen kinds
        return ""
    kind = content.get("kind") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) else ""


def plain(value: Any) -> Any:
    """Return a number of numpy as Python's, for `json.dumps(default=plain)`."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def parsed(text: str | bytes) -> Any:
    """Return the content of JSON that could be written again: finite numbers, whole characters, each name once.

    Raises:
        ValueError, RecursionError: it could not be, or its content would not fit into memory.
    """
    refuse_larger(len(text), MAX_TEXT, JSON_COST)
    content = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def _finite(text: str) -> float:
    """Return a number of a file; JSON knows none that is not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no JSON")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of a file after checking that its names are different."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice in it")
    return fields
