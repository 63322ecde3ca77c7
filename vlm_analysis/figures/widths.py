"""What the neurons and attention groups of each layer are worth, and which of them go."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.heatmaps import _add_cells, _grid_figure
from vlm_analysis.figures.scales import WORTH
from vlm_analysis.model_info import Locks

MARKS = ((0.995, "×"), (0.005, "/"))  # from which share on that goes: all of a cell, some of it


def width_heatmap(
    values: np.ndarray, gone: np.ndarray, rows: Sequence[str], *, locks: Locks | None = None
) -> go.Figure:
    """Layers across, parts of their units down, on a fixed scale: bright units are worth more. Cells that go are crossed.

    Args:
        values: (n_rows, n_layers) worth of a parameter over the mean of all units; NaN where units cannot be cut.
        gone: (n_rows, n_layers) share of the units that go, in [0, 1].
        rows: (n_rows,) names of the parts.
        locks: layers that stay, marked below the cells.

    Raises:
        ValueError: `values` or `gone` has not one line per row.
        MaskError: the locks are of a model of another depth.
    """
    matrix = style.checked_matrix(values, rows, "width heatmap")
    shares = style.checked_matrix(gone, rows, "width heatmap")
    locks = style.checked_locks(locks, matrix.shape[1], "width heatmap")
    figure = _grid_figure(rows, matrix.shape[1], above=False, below=bool(locks.reasons))
    hover = _hover(matrix, shares, rows, style.layer_notes((), locks))
    _add_cells(figure, WORTH.shade(matrix), hover, WORTH.ends, WORTH.colours, WORTH.unit, ticks=WORTH.ticks)
    for least, mark in MARKS:
        most = min((one for one, _ in MARKS if one > least), default=math.inf)
        cells = np.argwhere((shares >= least) & (shares < most))
        if len(cells):
            figure.add_trace(_marks(cells, mark, matrix))
    if locks.reasons:
        figure.add_trace(style.lock_marks(locks, (len(rows) - 0.5 + figure.layout.yaxis.range[0]) / 2))
    return figure


def _marks(cells: np.ndarray, mark: str, matrix: np.ndarray) -> go.Scatter:
    """A mark on each of the cells, (n, 2) of row and layer, dark on bright ones and white on dark ones."""
    low, high = WORTH.ends
    places = (WORTH.shade(matrix[cells[:, 0], cells[:, 1]]) - low) / (high - low)
    return go.Scatter(
        x=cells[:, 1],
        y=cells[:, 0],
        mode="text",
        text=[mark] * len(cells),
        textfont={"size": 14, "color": ["#10202c" if place > 0.5 else "white" for place in places]},
        hoverinfo="skip",
        showlegend=False,
        name="all go" if mark == MARKS[0][1] else "some go",
    )


def _hover(matrix: np.ndarray, shares: np.ndarray, rows: Sequence[str], notes: dict[int, str]) -> list[list[str]]:
    return [
        [
            f"layer {layer}<br>{style.label(name, 80)}<br>"
            + (
                f"worth {value:{WORTH.form}} × the mean parameter<br>{share:.0%} of them go"
                if math.isfinite(value)
                else "cannot be cut"
            )
            + notes.get(layer, "")
            for layer, (value, share) in enumerate(zip(line, line_of_shares, strict=True))
        ]
        for name, line, line_of_shares in zip(rows, matrix.tolist(), shares.tolist(), strict=True)
    ]
