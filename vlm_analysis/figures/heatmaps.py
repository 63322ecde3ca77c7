"""Layers across, rows down: similarity per domain, differences between recordings, masks side by side."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import MaskError
from vlm_analysis.figures import style
from vlm_analysis.model_info import Locks

_ROW_PX, _LEAST_PX, _STRIP_PX = 28, 84, 18
_TWO_LINES_PX = 38  # of a row whose label is of two lines
_MOST_NUMBERS = 12  # of layers that stand below strips on a phone, upright
MOST_WRITTEN = 600  # cells with their numbers
_DIVERGING = ((0.0, "#0072B2"), (0.25, "#7FB5D8"), (0.5, "#E8E8E8"), (0.75, "#EEA56A"), (1.0, "#C24E00"))
_STATES, _STATE_MARKS = ("kept", "dropped", "changed"), ("", "×", "~")
_STATE_COLOURS = (style.KEPT, style.DROPPED, style.CHANGED)
_NO_TOKENS = "no tokens"
COSINE = "cosine similarity"
COSINE_TICKS: Mapping[float, str] = {
    0: "0",
    1: "0.9",
    2: "0.99",
    3: "0.999",
}  # {position on the colour scale: cosine}


def similarity_heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    *,
    dropped: Collection[int] = (),
    locks: Locks | None = None,
    fitted: bool = False,
    written: bool = False,
    clickable: bool = False,
    of: str = "",
) -> go.Figure:
    """Mean similarity of each layer's input and output, one row per domain; dropped layers outlined.

    The colour follows -log10(1 - cosine), from cosine 0 to 0.999, for every model and recording: most layers
    are above 0.9 and differ in their distance from 1. Outside of this range the colour saturates; hover boxes
    show the number.

    Args:
        values: (n_rows, n_layers) cosines; NaN where a row has no token of the group.
        rows: (n_rows,) names, any text.
        dropped: layers the mask drops: outlined, a cross above them.
        locks: layers that stay, marked below the cells: P protected, L locked, K kept by the user.
        fitted: colours from the least to the largest of these values, in place of the fixed range.
        written: the numbers stand in the cells, where these are no more than 600: browsers draw each as a text of its own.
        clickable: a click on a cell is reported, which heatmaps alone do not do: an unseen point lies on each.
        of: title of the axis of layers; the decoder's by default.

    Raises:
        ValueError: `values` has not one line per row.
        MaskError: a layer is outside of the model.
    """
    matrix = style.checked_matrix(values, rows, "similarity heatmap")
    n_layers = matrix.shape[1]
    out = style.checked_layers(dropped, n_layers, "similarity heatmap")
    locks = style.checked_locks(locks, n_layers, "similarity heatmap")
    hover = _hover(matrix, rows, COSINE, ".4f", style.layer_notes(out, locks))
    figure = _grid_figure(rows, n_layers, above=bool(out), below=bool(locks.reasons))
    shades = _cosine_shades(matrix)
    ends, ticks = _fitted_ends(matrix) if fitted else ((0.0, 3.0), COSINE_TICKS)
    _add_cells(figure, shades, hover, ends, "Cividis", COSINE, ticks=ticks)
    if written and matrix.size <= MOST_WRITTEN:
        texts = [[f"{value:.3f}" if math.isfinite(value) else "" for value in line] for line in matrix.tolist()]
        figure.update_traces(text=texts, texttemplate="%{text}", textfont={"size": 12}, selector={"name": "values"})
    if of:
        figure.update_xaxes(title_text=of)
    if clickable:
        _add_points(figure, hover)
    if out:
        figure.add_trace(_crosses(out, figure.layout.yaxis.range[1] / 2 - 0.25))
    if locks.reasons:
        figure.add_trace(style.lock_marks(locks, (len(rows) - 0.5 + figure.layout.yaxis.range[0]) / 2))
    figure.update_layout(shapes=[_outline(layer, len(rows)) for layer in out])
    return figure


def _cosine_shades(matrix: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(1 - matrix, 1e-6, None))


def _fitted_ends(matrix: np.ndarray) -> tuple[tuple[float, float], Mapping[float, str]]:
    """Return the ends of the colour scale at the least and the largest value, and these as its ticks; the fixed ones without values."""
    there = matrix[np.isfinite(matrix)]
    if not there.size:
        return (0.0, 3.0), COSINE_TICKS
    low, high = (float(_cosine_shades(value)) for value in (there.min(), there.max()))
    ticks = {low: f"{there.min():.3f}", high: f"{there.max():.3f}"}
    return (low, max(high, low + 1e-6)), ticks


def _add_points(figure: go.Figure, hover: list[list[str]]) -> None:
    """Lay an unseen point on every cell, with the cell's hover box."""
    n_rows, n_layers = len(hover), len(hover[0])
    figure.update_traces(hoverinfo="skip", hovertemplate=None, hovertext=None)
    unseen = {"marker": {"opacity": 0}}
    figure.add_scatter(
        x=np.tile(np.arange(n_layers), n_rows),
        y=np.repeat(np.arange(n_rows), n_layers),
        mode="markers",
        marker={"symbol": "square", "size": 24, "opacity": 0},
        selected=unseen,
        unselected=unseen,
        hovertext=[text for line in hover for text in line],
        hovertemplate="%{hovertext}<extra></extra>",
        showlegend=False,
        name="cells",
    )
    figure.update_layout(hoverdistance=60, clickmode="event+select")


def task_heatmap(
    values: np.ndarray, tasks: Sequence[tuple[str, str]], *, locks: Locks | None = None, **looks: Any
) -> go.Figure:
    """Similarity of each layer, one row per task, as `similarity_heatmap` draws it with the same `looks`; lines part the domains.

    Args:
        values: (n_tasks, n_layers) cosines; NaN where a task has no token of the group.
        tasks: (n_tasks,) domain and task, those of a domain next to each other; "" for prompts without a task.
        locks: layers that stay.

    Raises:
        ValueError: `values` has not one line per task.
    """
    names = [f"{domain}: {task or 'no task'}" for domain, task in tasks]
    figure = similarity_heatmap(values, names, locks=locks, **looks)
    first = [row for row, (domain, _) in enumerate(tasks) if not row or tasks[row - 1][0] != domain]
    ticks = [
        f"<b>{style.label(domain, 14)}</b> {style.label(task or 'no task', 20)}"
        if row in first
        else style.label(task or "no task", 20)
        for row, (domain, task) in enumerate(tasks)
    ]
    figure.update_yaxes(ticktext=ticks)
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": row - 0.5,
            "y1": row - 0.5,
            "line": {"color": style.GREY, "width": 2},
        }
        for row in first[1:]
    ]
    figure.update_layout(shapes=[*figure.layout.shapes, *lines])
    return figure


def difference_heatmap(values: np.ndarray, rows: Sequence[str], *, limit: float | None = None) -> go.Figure:
    """Differences per layer: blue below zero, grey at zero, orange above, with a symmetric range.

    Args:
        values: (n_rows, n_layers) signed differences; NaN where one side has no tokens.
        rows: (n_rows,) names.
        limit: end of the scale; without it the largest difference, rounded up to 1, 2 or 5 times a
            power of ten. Pass one to compare figures.

    Raises:
        ValueError: `values` has not one line per row, or `limit` is not above zero.
    """
    matrix = style.checked_matrix(values, rows, "difference heatmap")
    if limit is None:
        limit = _rounded_up(float(np.abs(matrix[np.isfinite(matrix)]).max(initial=0.0)))
    if not limit > 0:
        raise ValueError(f"difference heatmap failed: expected a limit above 0, got {limit}.")
    figure = _grid_figure(rows, matrix.shape[1], above=False, below=False)
    hover = _hover(matrix, rows, "difference", "+.4f", {})
    colours = [list(stop) for stop in _DIVERGING]
    _add_cells(figure, matrix, hover, (-limit, limit), colours, "difference")
    return figure


def edit_strips(edits: Sequence[tuple[str, Edit]], n_layers: int, *, locks: Locks | None = None) -> go.Figure:
    """One strip per edit: kept layers blue, dropped ones orange with a cross, changed ones purple with a tilde.

    Args:
        edits: (name, edit) from top to bottom; the label adds how many layers are dropped and changed.
        n_layers: decoder layers of the model.
        locks: layers that stay, marked below the strips.

    Raises:
        MaskError: an edit is of another number of layers.
    """
    states = np.zeros((len(edits), n_layers), dtype=np.int8)
    for row, (_, edit) in enumerate(edits):
        states[row] = _layer_states(edit, n_layers)
    counts = [_state_counts(line) for line in states]
    rows = [f"{name} · {count}" for (name, _), count in zip(edits, counts, strict=True)]
    locks = style.checked_locks(locks, n_layers, "edit strips")
    figure = _grid_figure(rows, n_layers, above=False, below=bool(locks.reasons), row_px=_TWO_LINES_PX)
    # On two lines, so that layers keep room on a phone, and shortened before the number is added, which a long name would cut off.
    ticks = [f"{style.label(name, 20)}<br>{count}" for (name, _), count in zip(edits, counts, strict=True)]
    figure.update_yaxes(ticktext=ticks, tickfont={"size": 12})
    figure.update_xaxes(dtick=style.layer_step(n_layers, _MOST_NUMBERS))
    figure.add_heatmap(
        z=states,
        zmin=0,
        zmax=2,
        showscale=False,
        colorscale=[[(index + end) / 3, colour] for index, colour in enumerate(_STATE_COLOURS) for end in (0, 1)],
        xgap=1,
        ygap=4,
        text=np.array(_STATE_MARKS)[states].tolist(),
        texttemplate="%{text}",
        textfont={"color": "white", "size": 15},
        hovertext=_strip_hover(edits, states, locks),
        hovertemplate="%{hovertext}<extra></extra>",
    )
    if locks.reasons:
        figure.add_trace(style.lock_marks(locks, (len(rows) - 0.5 + figure.layout.yaxis.range[0]) / 2))
    return figure


def _layer_states(edit: Edit, n_layers: int) -> list[int]:
    """Return the state of each layer in the edited model: 0 unchanged, 1 dropped, 2 changed."""
    if edit.n_layers != n_layers:
        raise MaskError(f"The strips cannot be drawn: expected edits of {n_layers} layers, got one of {edit.n_layers}.")
    variants = dict(edit.steps.layers)
    return [1 if layer not in variants else 2 if variants[layer] else 0 for layer in range(n_layers)]


def _state_counts(states: np.ndarray) -> str:
    dropped, changed = int((states == 1).sum()), int((states == 2).sum())
    return f"{dropped} dropped" + (f", {changed} changed" if changed else "")


def _grid_figure(rows: Sequence[str], n_layers: int, *, above: bool, below: bool, row_px: int = _ROW_PX) -> go.Figure:
    """An empty grid of rows and layers, with room for a line of marks above and below the cells."""
    cells_px = max(row_px * len(rows), _LEAST_PX)
    line = _STRIP_PX / cells_px * max(len(rows), 1)
    ends = [len(rows) - 0.5 + line * below, -0.5 - line * above]
    axes = {"xaxis": style.layer_axis(n_layers), "yaxis": style.row_axis(rows, range=ends)}
    return style.empty_figure(cells_px + _STRIP_PX * (above + below) + 56, dragmode=False, hoverdistance=30, **axes)


def _hover(matrix: np.ndarray, rows: Sequence[str], unit: str, form: str, notes: Mapping[int, str]) -> list[list[str]]:
    """The hover text of every cell, (n_rows, n_layers)."""
    names = [style.label(row, 80) for row in rows]
    what = style.label(unit, 60)
    return [
        [
            f"layer {layer}<br>{name}<br>"
            + (f"{what} {value:{form}}" if math.isfinite(value) else _NO_TOKENS)
            + notes.get(layer, "")
            for layer, value in enumerate(line)
        ]
        for name, line in zip(names, matrix.tolist(), strict=True)
    ]


def _add_cells(
    figure: go.Figure,
    matrix: np.ndarray,
    hover: list[list[str]],
    scale: tuple[float, float],
    colours: Any,
    unit: str,
    *,
    ticks: Mapping[float, str] | None = None,
) -> None:
    """The coloured cells and, where values are NaN, grey hatched ones."""
    bar: dict[str, Any] = {
        "thickness": 10,
        "len": 1,
        "xpad": 6,
        "outlinewidth": 0,
        "nticks": 4,
        "tickfont": {"size": 11},
    }
    bar["title"] = {"text": style.label(unit, 60), "side": "right", "font": {"size": 11}}
    if ticks:
        bar |= {"tickvals": list(ticks), "ticktext": list(ticks.values())}
    boxes = {"hovertext": hover, "hovertemplate": "%{hovertext}<extra></extra>"}
    look = {"zmin": scale[0], "zmax": scale[1], "colorscale": colours, "colorbar": bar, "xgap": 1, "ygap": 1}
    finite = np.where(np.isfinite(matrix), matrix, np.nan)
    figure.add_heatmap(z=finite.astype(np.float32), name="values", **look, **boxes)
    empty_cells = np.argwhere(~np.isfinite(matrix))
    if len(empty_cells):
        flat = {"zmin": 0, "zmax": 1, "colorscale": [[0, style.MISSING], [1, style.MISSING]], "showscale": False}
        holes = np.where(np.isfinite(matrix), np.nan, 1).astype(np.float32)
        figure.add_heatmap(z=holes, name=_NO_TOKENS, hoverinfo="skip", xgap=1, ygap=1, **flat)
        figure.add_trace(_hatching(empty_cells))


def _hatching(cells: np.ndarray) -> go.Scatter:
    """Diagonal strokes over `cells`, (n, 2) of row and layer, as one trace."""
    strokes = np.array([[-0.45, 0.0, 0.0, -0.45], [-0.45, 0.45, 0.45, -0.45], [0.0, 0.45, 0.45, 0.0]])
    lines = strokes[None] + cells[:, [1, 0, 1, 0]][:, None]
    gap = np.full(lines.shape[:2], np.nan)
    return go.Scatter(
        x=np.stack([lines[..., 0], lines[..., 2], gap], axis=-1).ravel().astype(np.float32),
        y=np.stack([lines[..., 1], lines[..., 3], gap], axis=-1).ravel().astype(np.float32),
        mode="lines",
        line={"color": style.GREY, "width": 1},
        hoverinfo="skip",
        showlegend=False,
        name="hatching",
    )


def _crosses(dropped: Sequence[int], y: float) -> go.Scatter:
    """A cross above every dropped layer, so that the outline's colour is not the only sign."""
    return go.Scatter(
        x=list(dropped),
        y=[y] * len(dropped),
        mode="text",
        text=["×"] * len(dropped),
        textfont={"size": 15},
        hoverinfo="skip",
        showlegend=False,
        name="dropped",
    )


def _outline(layer: int, n_rows: int) -> dict[str, Any]:
    """The outline of one dropped layer, as a layout shape."""
    return {
        "type": "rect",
        "x0": layer - 0.5,
        "x1": layer + 0.5,
        "y0": -0.5,
        "y1": n_rows - 0.5,
        "line": {"color": style.DROPPED, "width": 2},
        "fillcolor": style.translucent(style.DROPPED, 0.18),
    }


def _strip_hover(edits: Sequence[tuple[str, Edit]], states: np.ndarray, locks: Locks) -> list[list[str]]:
    """Return the hover text of every strip's layer, (n_edits, n_layers)."""
    notes = style.layer_notes((), locks)
    return [
        [
            f"{style.label(name, 80)}<br>layer {layer}: {_STATES[state]}{notes.get(layer, '')}"
            for layer, state in enumerate(line)
        ]
        for (name, _), line in zip(edits, states.tolist(), strict=True)
    ]


def _rounded_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten, at least 0.01, so that noise does not look large."""
    if value <= 0.01:
        return 0.01
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))
