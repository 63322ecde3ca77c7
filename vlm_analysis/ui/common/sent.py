"""What the strip sends: a whole mask, with its undo history and the user's locks. Read without trust, free of Streamlit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from vlm_analysis.edits.change import is_whole

MOST_UNDO = 100
MOST_PINNED = 3
SCALES = ("fixed", "fitted")

Step = tuple[tuple[int, ...], tuple[int, ...]]  # (dropped, locked by the user), each ascending


@dataclass(frozen=True)
class View:
    """How the strip is looked at.

    Attributes:
        scale: "fixed", the same for every recording, or "fitted" to this one.
        pinned: names of the rows that stay in view, three at most; None where nothing was chosen.
    """

    scale: str = "fixed"
    pinned: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sent:
    """One message of the strip.

    Attributes:
        base: the mask of the session on which it builds.
        number: of the message; each is above the one before.
        now: the mask and the locks.
        undo, redo: the masks and locks before and after, the nearest last.
        as_sent: whether nothing had to be left out of `now`.
    """

    base: str
    number: int
    now: Step
    undo: tuple[Step, ...]
    redo: tuple[Step, ...]
    view: View
    as_sent: bool


def read_sent(message: Any, n_layers: int, locked: Collection[int] = ()) -> Sent | None:
    """Return the message; None where it is none, or would leave no layer. Locked layers are never dropped."""
    if not isinstance(message, dict) or not is_whole(message.get("number")):
        return None
    step = [message.get("dropped"), message.get("own")]
    now = _step(step, n_layers, locked)
    if now is None:
        return None
    pinned = [name for name in _list(message.get("pinned")) if isinstance(name, str)]
    scale = message.get("scale")
    view = View(scale if scale in SCALES else SCALES[0], tuple(pinned[:MOST_PINNED]))
    undo, redo = (_steps(message.get(name), n_layers, locked) for name in ("undo", "redo"))
    as_sent = [list(part) for part in now] == step
    return Sent(str(message.get("base")), int(message["number"]), now, undo, redo, view, as_sent)


def _steps(values: Any, n_layers: int, locked: Collection[int]) -> tuple[Step, ...]:
    steps = [_step(value, n_layers, locked) for value in _list(values)[-MOST_UNDO:]]
    return tuple(step for step in steps if step is not None)


def _step(value: Any, n_layers: int, locked: Collection[int]) -> Step | None:
    """Return a mask with its locks; None where no layer would be left."""
    dropped, own = (*_list(value), None, None)[:2]
    kept = _layers(own, n_layers)
    gone = _layers(dropped, n_layers) - kept - set(locked)
    return None if len(gone) == n_layers else (tuple(sorted(gone)), tuple(sorted(kept)))


def _layers(values: Any, n_layers: int) -> set[int]:
    return {int(layer) for layer in _list(values) if is_whole(layer) and 0 <= layer < n_layers}


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else []
