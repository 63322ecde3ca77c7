"""Saved edits of every kind of change, and costs of them, with changes of another model, numbers that are none, and gigantic lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .cases import Case
from .saved_files import base_text, use_cost, use_edit, write

EDIT, COST = "edit of every kind", "cost of a vision encoder"
MANY = ",".join(map(str, range(0, 200_000, 2)))
CHANGES: dict[str, dict[str, Any]] = {
    "a tower of another model": {"kind": "tower", "n_layers": 24, "dropped": [20]},
    "a tower without end": {"kind": "tower", "n_layers": 10**9, "dropped": [0]},
    "all layers of a tower": {"kind": "tower", "n_layers": 3, "dropped": [0, 1, 2]},
    "a million layers of a tower": {"kind": "tower", "n_layers": 3, "dropped": [1] * 1_000_000},
    "a part of no layer": {"kind": "drop-part", "attention": [99], "mlp": []},
    "a million parts": {"kind": "drop-part", "attention": [1] * 1_000_000, "mlp": []},
    "tokens that skip no layer": {"kind": "vision", "absent": [99], "frozen": [], "form": "sliced", "deepstack": True},
}
KEPT = {
    "a million neurons": {"0": "0-999999"},
    "neurons without end": {"0": "0-99999999999999"},
    "neurons of thousands of digits": {"0": "9" * 5000},
    "very many neurons": {"0": MANY},
    "neurons of another model": {"0": "99999"},
    "neurons of no layer": {"99": "0"},
    "neurons of a layer of thousands of digits": {"9" * 5000: "0"},
    "neurons back": {"0": "5-2"},
    "neurons twice": {"0": "1,1"},
    "no neurons": {"0": ""},
    "neurons of a layer twice": {"0": "1", "00": "2"},
}
NUMBERS: dict[str, dict[str, Any]] = {
    "shares of another encoder": {"encoder_shares": [0.1] * 24},
    "shares without end": {"encoder_shares": [0.0] * 1_000_000},
    "shares below 0": {"encoder_shares": [-0.1, 0.0, 0.1]},
    "shares that are no numbers": {"encoder_shares": [float("nan"), 0.0, 0.1]},
    "shares that are all the time": {"encoder_shares": [0.4, 0.4, 0.4]},
    "endless FLOPs": {"encoder_flops": [1e300, 1e300]},
    "FLOPs that are no numbers": {"encoder_flops": [float("nan"), 1.0]},
    "three FLOPs": {"encoder_flops": [1.0, 1.0, 1.0]},
}


def cases() -> Iterator[Case]:
    """Yield every case."""
    edit, cost = json.loads(base_text(EDIT)), json.loads(base_text(COST))
    narrow = {
        name: {"kind": "narrow", "neurons": kept, "kv_groups": {}, "form": "small"} for name, kept in KEPT.items()
    }
    for name, change in {**CHANGES, **narrow}.items():
        yield _case(EDIT, name, use_edit, {**edit, "changes": [change]})
        yield _case(COST, name, use_cost, {**cost, "mask": {**cost["mask"], "changes": [change]}})
    for name, part in NUMBERS.items():
        yield _case(COST, name, use_cost, {**cost, **part}, refused=True)


def _case(kind: str, name: str, use: Callable[[Path], None], content: Any, refused: bool = False) -> Case:
    text = json.dumps(content).encode()
    return Case(kind, name, partial(write, "it.json", text), lambda folder: use(folder / "it.json"), refused)
