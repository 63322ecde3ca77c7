"""What the strip sends: a whole edit, with its undo history and the user's locks. Read without trust, free of Streamlit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlm_analysis.edits.change import is_whole
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.selection.criteria.criteria import CRITERIA

MOST_UNDO = 100
MOST_PINNED = 3
SCALES = ("fixed", "fitted")


class Step(NamedTuple):
    """What the strip holds at a time, layers ascending: what is dropped and locked by the user, and where vision tokens skip.

    `narrow` is the key of the width in the editor (`held.narrow_key`); () where all layers are whole. `tower` are the layers of the
    vision encoder that are dropped.
    """

    dropped: tuple[int, ...] = ()
    own: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()
    narrow: tuple[str, ...] = ()
    tower: tuple[int, ...] = ()


@dataclass(frozen=True)
class View:
    """How the strip is looked at.

    Attributes:
        scale: "fixed", the same for every recording, or "fitted" to this one.
        pinned: names of the rows that stay in view, three at most; None where nothing was chosen.
        next_by: the criterion whose next layer is shown, "" for none; None where nothing was chosen.
        auto: whether a mask is evaluated by itself once it has come to rest.
        vision: whether the row of vision tokens is shown where they skip no layer.
    """

    scale: str = "fixed"
    pinned: tuple[str, ...] | None = None
    next_by: str | None = None
    auto: bool = True
    vision: bool = False


@dataclass(frozen=True)
class Sent:
    """One message of the strip.

    Attributes:
        base: the mask of the session on which it builds.
        number: of the message; each is above the one before.
        now: the edit and the locks.
        undo, redo: the edits and locks before and after, the nearest last.
        as_sent: whether nothing had to be left out of `now`.
    """

    base: str
    number: int
    now: Step
    undo: tuple[Step, ...]
    redo: tuple[Step, ...]
    view: View
    as_sent: bool


def read_sent(
    message: Any,
    n_layers: int,
    locked: Collection[int] = (),
    vision_locked: Collection[int] = (),
    narrows: Collection[str] = (),
    tower: TowerInfo | None = None,
) -> Sent | None:
    """Return the message; None where it is none, or would leave no layer.

    Locked layers are never dropped, vision tokens skip none of `vision_locked`, and a width is one of `narrows`. `tower` tells which layers
    of the vision encoder may go; without it none does.
    """
    if not isinstance(message, dict) or not is_whole(message.get("number")):
        return None
    limits = _Limits(n_layers, frozenset(locked), frozenset(vision_locked), frozenset(narrows), tower or TowerInfo(0))
    step = [
        message.get("dropped"),
        message.get("own"),
        *(message.get(name, []) for name in ("absent", "frozen", "narrow", "tower")),
    ]
    now = _step(step, limits)
    if now is None:
        return None
    pinned = [name for name in _list(message.get("pinned")) if isinstance(name, str)]
    scale = message.get("scale")
    view = View(
        scale if scale in SCALES else SCALES[0],
        tuple(pinned[:MOST_PINNED]),
        _next_by(message.get("next_by")),
        message.get("auto") is not False,
        message.get("vision") is True,
    )
    undo, redo = (_steps(message.get(name), limits) for name in ("undo", "redo"))
    as_sent = [list(part) for part in now] == step
    return Sent(str(message.get("base")), int(message["number"]), now, undo, redo, view, as_sent)


def _next_by(name: Any) -> str | None:
    return name if isinstance(name, str) and name in ("", *CRITERIA) else None


@dataclass(frozen=True)
class Asked:
    """A question of the strip: the mask has come to rest, or the user wants it evaluated now.

    Attributes:
        base: the mask of the session on which it builds.
        number: of the question; each is above the one before.
        by_hand: whether a button was pressed.
    """

    base: str
    number: int
    by_hand: bool


def read_asked(message: Any) -> Asked | None:
    """Return the question; None where it is none."""
    if not isinstance(message, dict) or not is_whole(message.get("number")):
        return None
    return Asked(str(message.get("base")), int(message["number"]), message.get("by_hand") is True)


class _Limits(NamedTuple):
    """What may be dropped and skipped: see `read_sent`."""

    n_layers: int
    locked: frozenset[int]
    vision_locked: frozenset[int]
    narrows: frozenset[str]
    tower: TowerInfo


def _steps(values: Any, limits: _Limits) -> tuple[Step, ...]:
    steps = [_step(value, limits) for value in _list(values)[-MOST_UNDO:]]
    return tuple(step for step in steps if step is not None)


def _step(value: Any, limits: _Limits) -> Step | None:
    """Return what is held at a time; None where no layer would be left."""
    n_layers, locked, vision_locked, narrows, tower = limits
    *layers, widths, of_tower = (*_list(value), *[None] * 6)[:6]
    dropped, own, absent, frozen = (_layers(part, n_layers) for part in layers)
    gone, hidden = dropped - own - locked, absent - vision_locked
    gone_there = _layers(of_tower, tower.n_layers) - set(tower.locked)
    if len(gone) == n_layers or (gone_there and len(gone_there) == tower.n_layers):
        return None
    narrow = [one for one in _list(widths) if isinstance(one, str) and one in narrows][:1]
    parts = (tuple(sorted(part)) for part in (gone, own, hidden, frozen - hidden - vision_locked))
    return Step(*parts, narrow=tuple(narrow), tower=tuple(sorted(gone_there)))


def _layers(values: Any, n_layers: int) -> set[int]:
    return {int(layer) for layer in _list(values) if is_whole(layer) and 0 <= layer < n_layers}


def _list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else []
