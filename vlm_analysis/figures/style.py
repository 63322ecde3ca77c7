"""The parts that all figures share: colours, safe labels, axes, and the empty figure."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import Locks

GRID = "rgba(128,128,128,.3)"
GREY = "rgba(128,128,128,.9)"
MISSING = "rgba(128,128,128,.25)"
HATCH = {"shape": "/", "fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.9, "size": 7, "solidity": 0.25}
KEPT, DROPPED, CHANGED = "#56B4E9", "#D55E00", "#8A5A9E"
CATEGORIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
"""Okabe and Ito's colours without black and yellow, which vanish on one of the two backgrounds."""

_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star")
# This template keeps 7 kB of Plotly's default out of every figure. It is not empty, because Streamlit
# writes its theme into `template.layout` and skips figures without one.
_TEMPLATE = {"layout": {"font": {"size": 13}}}
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def label(text: object, limit: int = 24) -> str:
    """`text` on one line, at most `limit` characters, safe to pass to Plotly.

    Plotly reads a subset of HTML in labels and hover boxes, links included, so markup is escaped,
    and so are dollars, which would start a formula.
    Control characters and those that reverse the reading direction become spaces.
    """
    drawable = "".join(
        " " if char in _BIDI_CONTROLS or unicodedata.category(char) in {"Cc", "Cs"} else char for char in str(text)
    )
    line = " ".join(drawable.split())
    if len(line) > limit:
        line = line[: limit - 1].rstrip() + "…"
    return html.escape(line, quote=False).replace("$", "&#36;")


def category(index: int) -> dict[str, str]:
    """Colour, dash and symbol of the `index`-th category; the dash changes when colours run out."""
    return {
        "color": CATEGORIES[index % len(CATEGORIES)],
        "dash": _DASHES[index // len(CATEGORIES) % len(_DASHES)],
        "symbol": _SYMBOLS[index % len(_SYMBOLS)],
    }


def translucent(colour: str, alpha: float) -> str:
    """The colour `#rrggbb` as `rgba(...)` with opacity `alpha` in [0, 1]."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def empty_figure(height: int, **layout: Any) -> go.Figure:
    """A figure without traces, `height` pixels high, transparent, in the shared look."""
    margin = {"l": 8, "r": 8, "t": 8, "b": 40, "pad": 0} | layout.pop("margin", {})
    return go.Figure(
        layout={
            "template": _TEMPLATE,
            "height": int(height),
            "margin": margin,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
            **layout,
        }
    )


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """One axis: neutral grid, room for its labels, the title close to them."""
    return {
        "title": {"text": title, "standoff": 8},
        "showgrid": True,
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def layer_axis(n_layers: int, **more: Any) -> dict[str, Any]:
    """The axis of decoder layers: every one labelled up to 40, then every second, fifth, and so on."""
    ticks: dict[str, Any] = {
        "tickmode": "linear",
        "tick0": 0,
        "dtick": layer_step(n_layers, 40),
        "autotickangles": [0, 90],
        "tickfont": {"size": 11},
    }
    look: dict[str, Any] = {"range": [-0.5, n_layers - 0.5], "showgrid": False, **ticks}
    return axis("decoder layer (from 0)", **look | more)


def layer_step(n_layers: int, most: int) -> int:
    """Every how many layers have a number, so that there are at most `most` numbers."""
    return next(step for step in (1, 2, 5, 10, 20, 50, n_layers) if n_layers <= most * step)


def row_axis(rows: Sequence[str], **more: Any) -> dict[str, Any]:
    """The axis of rows, the first on top, labelled with shortened names."""
    ticks: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": list(range(len(rows))),
        "ticktext": [label(row) for row in rows],
    }
    look: dict[str, Any] = {"range": [len(rows) - 0.5, -0.5], "showgrid": False, "ticklabelstandoff": 4, **ticks}
    return axis(**look | more)


def legend_above(offset: float = 1.02) -> dict[str, Any]:
    """A horizontal legend above the plot; it makes its own room."""
    return {"orientation": "h", "x": 0, "xanchor": "left", "y": offset, "yanchor": "bottom", "title": {"text": ""}}


def band(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, *, lone: float = 0.0, **more: Any
) -> go.Scatter:
    """The area between `low` and `high`, each (n,); where either is NaN the area has a gap.

    One closed outline per unbroken run: Plotly's `fill="tonexty"` would close over the gaps. A run of one point
    extends by `lone` to both sides, as it would be invisible without width.
    """
    finite = np.isfinite(low) & np.isfinite(high)
    xs: list[float | None] = []
    ys: list[float | None] = []
    for run in np.split(np.arange(len(x)), np.flatnonzero(np.diff(finite)) + 1):
        if len(run) == 0 or not finite[run[0]]:
            continue
        wide = x[run]
        if lone and len(run) == 1:
            run, wide = run.repeat(2), wide + np.array([-lone, lone])
        xs += [*wide.tolist(), *wide[::-1].tolist(), None]
        ys += [*high[run].tolist(), *low[run][::-1].tolist(), None]
    look = {"mode": "lines", "fill": "toself", "line": {"width": 0, "color": colour}, "hoverinfo": "skip"}
    return go.Scatter(x=xs, y=ys, fillcolor=colour, **look, **more)


def checked_matrix(values: np.ndarray, rows: Sequence[str], figure: str) -> np.ndarray:
    """`values` as float64 (n_rows, n_layers).

    Raises:
        ValueError: `values` is not a matrix with one row per name in `rows`.
    """
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) != len(rows) or matrix.shape[1] == 0:
        raise ValueError(f"{figure} failed: expected {len(rows)} rows of layer values, got shape {matrix.shape}.")
    return matrix


def checked_layers(layers: Collection[int], n_layers: int, figure: str) -> list[int]:
    """`layers` sorted, without duplicates.

    Raises:
        MaskError: one of them is not a layer of this model.
    """
    outside = sorted(layer for layer in layers if not 0 <= layer < n_layers)
    if outside:
        raise MaskError(
            f"{figure} failed: expected layers from 0 to {n_layers - 1}, got {outside}. "
            "Use a mask made for a model of this depth."
        )
    return sorted({int(layer) for layer in layers})


def checked_locks(locks: Locks | None, n_layers: int, figure: str) -> Locks:
    """Return the locks, or none of `n_layers` layers.

    Raises:
        MaskError: the locks are of a model of another depth.
    """
    if locks is not None and locks.n_layers != n_layers:
        raise MaskError(
            f"{figure} failed: expected locks of {n_layers} layers, got some of {locks.n_layers}. Use those of a model of this depth."
        )
    return locks or Locks(n_layers)


def layer_notes(dropped: Collection[int], locks: Locks) -> dict[int, str]:
    """The text that a hover box adds for a layer: dropped, locked, protected or kept by the user, with the reason."""
    notes: dict[int, str] = {}
    kinds = {"locked": locks.locked, "protected": locks.protected, "your lock": locks.own}
    for layer in sorted({*dropped, *locks.reasons}):
        parts = ["dropped"] if layer in dropped else []
        parts += [f"{kind}: {label(reasons[layer], 80)}" for kind, reasons in kinds.items() if layer in reasons]
        notes[layer] = "".join(f"<br>{part}" for part in parts)
    return notes


def lock_marks(locks: Locks, y: float, **more: Any) -> go.Scatter:
    """One row of letters at height `y`: L for locked layers, P for protected ones, K for those that the user keeps; reasons on hover."""
    layers = list(locks.reasons)
    notes = layer_notes((), locks)
    return go.Scatter(
        x=layers,
        y=[y] * len(layers),
        mode="text",
        text=["L" if layer in locks.locked else "P" if layer in locks.protected else "K" for layer in layers],
        textfont={"size": 11},
        selected={"textfont": {"color": GREY}},  # else Plotly dims all others where a cell is chosen
        hovertext=[f"layer {layer}{notes[layer]}" for layer in layers],
        hovertemplate="%{hovertext}<extra></extra>",
        name="locks",
        showlegend=False,
        **more,
    )
