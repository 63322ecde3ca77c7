"""A case of the corpus of hostile files: how it is made, who reads it, and what may come of it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_analysis import StrataError

LONGEST_S = 60  # for any case; on a busy machine most take milliseconds
LONGEST_MESSAGE = 4000  # characters


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        kind: what reads it, for the count.
        name: unique within the kind.
        make: writes the file, or several, into an empty folder.
        read: opens what `make` wrote and does with it what pages do.
        refused: it must be refused; others may also open, if they then can be used.
    """

    kind: str
    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    refused: bool = False

    @property
    def id(self) -> str:
        return f"{self.kind}: {self.name}"


class TookTooLongError(Exception):
    """A case did not end."""


def outcome(case: Case, folder: Path) -> str:
    """Make and read the case; return "opened" or "refused".

    Raises:
        AssertionError, TookTooLongError: it opened although it is impossible, or its message is too long, or it never ended.
        Exception: whatever is no StrataError; a page would show it as a crash.
    """
    case.make(folder)
    with _ended(case.id), _told() as told:
        case.read(folder)
    if told:
        assert 20 < len(told[0]) < LONGEST_MESSAGE, f"{case.id}: a message of {len(told[0])} characters"
        return "refused"
    assert not case.refused, f"{case.id}: it opened"
    return "opened"


@contextmanager
def _told() -> Iterator[list[str]]:
    """Yield a list that has the message of a StrataError raised inside."""
    told: list[str] = []
    try:
        yield told
    except StrataError as error:
        told.append(str(error))


@contextmanager
def _ended(name: str) -> Iterator[None]:
    """Raise TookTooLongError inside once the time is up, also where a read waits for ever."""

    def stop(*_: object) -> None:
        raise TookTooLongError(f"{name}: it took longer than {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began <= LONGEST_S, name


GONE = object()
VALUES: dict[str, Any] = {
    "gone": GONE,
    "null": None,
    "text": "x",
    "number": -1,
    "huge": 10**30,
    "fraction": 0.5,
    "true": True,
    "list": [],
    "object": {},
    "nested": [[[["x"]]]],
    "half a character": "\ud800",
}


def changed(content: Any, most: int = 10_000) -> Iterator[tuple[str, str]]:
    """Yield (name, JSON text) for each entry of a JSON object, replaced by each of `VALUES`; of lists the first entry is."""
    for way in _ways(content):
        for name, value in VALUES.items():
            other = deepcopy(content)
            part = other
            for step in way[:-1]:
                part = part[step]
            if value is GONE:
                del part[way[-1]]
            else:
                part[way[-1]] = value
            yield f"{'.'.join(map(str, way))} {name}", json.dumps(other)
            most -= 1
            if most <= 0:
                return


def _ways(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = (
        content.items() if isinstance(content, dict) else enumerate(content[:1]) if isinstance(content, list) else ()
    )
    for name, value in entries:
        yield (*above, name)
        yield from _ways(value, (*above, name))


def texts(whole: str) -> dict[str, bytes]:
    """Return what may lie in place of a whole text file, by name."""
    data = whole.encode()
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "zeros": bytes(len(data)),
        "zeros in front": bytes(44) + data,
        "no UTF-8": b"\xff\xfe" + data,
        "a list": b"[1, 2]",
        "a number": b"1" * 5000,
        "deep lists": b"[" * 200_000,
        "deep objects": b'{"a":' * 100_000,
        "many lists": b"[" + b"[]," * 200_000 + b"[]]",
        "not finite": data.replace(b"0.", b"NaN", 1) if b"0." in data else b'{"a": NaN}',
        "names twice": data.replace(b'"kind"', b'"kind": 1, "kind"', 1) if b'"kind"' in data else b'{"a": 1, "a": 2}',
        "of another kind": json.dumps({"kind": "strata-other", "schema_version": 1}).encode(),
        "newer": data.replace(b'"schema_version": ', b'"schema_version": 9', 1),
    }
