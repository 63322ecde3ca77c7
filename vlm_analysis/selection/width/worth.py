"""What the units of each layer are worth in the order in which they go, for a figure: those of a layer in a few rows, by rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import NOUNS, Narrow
from vlm_analysis.selection.width.options import options_of, values_of
from vlm_analysis.selection.width.scores import UNITS, WidthScores

MOST_ROWS = 8  # of a kind of unit


@dataclass(frozen=True, eq=False)
class Worth:
    """What the units of layers are worth, those of each layer by rank in equal parts.

    Attributes:
        rows: (n_rows,) which part of which units, the least of each kind first.
        values: (n_rows, n_layers) mean value over cost of the units of a part, over the mean value of a parameter of all units; NaN where
            a layer's units cannot be cut.
        gone: (n_rows, n_layers) share of them that an edit leaves out, in [0, 1].
    """

    rows: tuple[str, ...]
    values: np.ndarray
    gone: np.ndarray


def worth_of(scores: WidthScores, edit: Edit, share: float, **options: Any) -> Worth:
    """Return what units are worth by the options of `make_narrow` at this share, and which of them the edit leaves out.

    Raises:
        EditError: an option is out of range.
    """
    values = values_of(scores, share, options_of(options))
    costs = {unit: scores.costs(unit) for unit in UNITS}
    whole = sum(cost * len(one) for unit in UNITS for cost, one in zip(costs[unit], values[unit], strict=True))
    mean = sum(float(one.sum()) for unit in UNITS for one in values[unit]) / max(whole, 1) or 1.0
    rows: list[str] = []
    parts: list[np.ndarray] = []
    for unit in UNITS:
        n_rows = min(MOST_ROWS, max(map(len, values[unit]), default=0))
        kept = _kept(edit, unit)
        both = np.full((2, n_rows, scores.model.n_layers), np.nan)
        for layer, one in enumerate(values[unit]):
            stays = np.isin(np.arange(len(one)), kept[layer]) if layer in kept else np.ones(len(one), bool)
            for row, part in enumerate(np.array_split(np.argsort(one, kind="stable"), n_rows) if len(one) else ()):
                if len(part):
                    both[:, row, layer] = one[part].mean() / costs[unit][layer] / mean, 1 - stays[part].mean()
        rows += [_title(NOUNS[unit], row, n_rows) for row in range(n_rows)]
        parts.append(both)
    together = np.concatenate(parts, axis=1)
    return Worth(tuple(rows), together[0], np.nan_to_num(together[1]))


def _kept(edit: Edit, unit: str) -> dict[int, tuple[int, ...]]:
    return {
        layer: kept for change in edit.changes if isinstance(change, Narrow) for layer, kept in getattr(change, unit)
    }


def _title(noun: str, row: int, n_rows: int) -> str:
    place = "least" if row == 0 else "most" if row == n_rows - 1 else f"{row + 1} of {n_rows}"
    return f"{noun}s: {place}" if n_rows > 1 else f"{noun}s"
