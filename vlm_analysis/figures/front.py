"""Every mask by what it saves and its retention; those that no other beats form the front, labelled."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.traces import beyond, points
from vlm_analysis.words import counted

_Y_MAX, _X_MIN = 1.15, 0.4
_AIR = 0.015  # beside the ends of the x axis, so that points there are not cut off
_COLOURED = 7
_RANDOM = "random"
_RANDOM_LOOK = {
    "marker": {"color": style.GREY, "symbol": "x"},
    "name": _RANDOM,
    "legendgroup": _RANDOM,
    "legendrank": 1001,
}


def front_chart(frame: pd.DataFrame, first: Sequence[str] = (), *, of: str = "parameters") -> go.Figure:
    """Retention over what is saved, one point per mask; the points of the front are large, labelled and joined by steps.

    The x axis tells what is saved and holds what is left: it reaches from 1 to 0.4, lower where a mask leaves less; the y axis from 0 to
    1.15, higher values are triangles there. A dotted line at 1 marks the dense model. The methods `first` get the first colours, then
    those on the front; from the eighth on methods are grey. Random masks are grey crosses.

    Args:
        frame: columns x (what is left, pruned / dense, 0 to 1), y (retention), method, name (of the mask, any text), on_front (bool), and
            optionally label, of a point of the front. Rows without a number are left out. A point's `customdata` is its row's number
            from 0.
        of: what `x` is left of, in words.
        first: methods in the colour order of another figure, drawn here or not.
    """
    table = frame.assign(hover=_hover(frame, of), row=range(len(frame)), on_front=frame["on_front"].astype(bool))
    table = table[np.isfinite(frame["x"].astype(float)) & np.isfinite(frame["y"].astype(float))]
    front, others = table[table["on_front"]], table[~table["on_front"]]
    ends = _x_ends(table["x"].to_numpy(np.float64))
    ticks = [step / 10 for step in range(math.ceil(10 * ends[0]), 11)]
    figure = style.empty_figure(
        460,
        dragmode=False,
        legend=style.legend_above() | {"itemsizing": "constant"},
        margin={"t": 30},
        xaxis=style.axis(
            f"{of} saved", range=ends[::-1], tickvals=ticks, ticktext=[f"{1 - tick:.0%}" for tick in ticks]
        ),
        yaxis=style.axis("retention (pruned / dense)", range=[0, _Y_MAX], dtick=0.25, tickformat=".2~f"),
    )
    methods = list(dict.fromkeys([*first, *front["method"], *table["method"]]))
    named = [method for method in methods if method != _RANDOM]
    looks = {method: _look(method, index, len(named)) for index, method in enumerate(named)} | {_RANDOM: _RANDOM_LOOK}
    there = set(table["method"])
    entries = _entries([looks[method] for method in methods if method in there])
    small, large = _clouds(others, looks, 6, 0.4, 0.8), _clouds(front, looks, 11, 1.0, 1.0)
    labels = [_labels(front)] if "label" in front else []
    return figure.add_traces([*small, _dense_line(ends), _steps(front), *large, *labels, *entries])


def _labels(front: pd.DataFrame) -> dict[str, Any]:
    """The label of each point of the front, above it; of points on one spot the first."""
    spots = front.drop_duplicates(["x", "y"])
    spots = spots[spots["y"].between(0, _Y_MAX)]
    texts = [style.label(label, 24) for label in spots["label"]]
    look = {"mode": "text", "textposition": "top center", "textfont": {"size": 11}, "cliponaxis": False}
    where = {"x": spots["x"].to_numpy(np.float64), "y": spots["y"].to_numpy(np.float64), "text": texts}
    return {"type": "scatter", **where, **look, "hoverinfo": "skip", "showlegend": False, "name": "labels"}


def _x_ends(x: np.ndarray) -> list[float]:
    low = math.floor(10 * float(x.min(initial=1.0))) / 10
    return [min(_X_MIN, low) - _AIR, max(1.0, float(x.max(initial=1.0))) + _AIR]


def _look(method: object, index: int, number: int) -> dict[str, Any]:
    """Marker and legend entry; all methods from the eighth on share one entry."""
    if index >= _COLOURED:
        rest = number - _COLOURED
        name = style.label(method, 32) if rest == 1 else f"{counted(rest, 'other method')}"
        marker = {"color": style.GREY, "symbol": "circle"}
        return {"marker": marker, "name": name, "legendgroup": "others", "legendrank": 1001}
    colour, _, symbol = style.category(index).values()
    entry = {"name": style.label(method, 32), "legendgroup": f"method {method}", "legendrank": 1000}
    return {"marker": {"color": colour, "symbol": symbol}, **entry}


def _entries(looks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One opaque legend entry for each look."""
    different = {look["legendgroup"]: look for look in looks}
    return [points([None], [None], [], mode="markers", **look) for look in different.values()]


def _clouds(
    rows: pd.DataFrame, looks: Mapping[Any, dict[str, Any]], size: int, faint: float, strong: float
) -> list[dict[str, Any]]:
    """The points of each look, all of one size, with triangles for those beyond the axis; grey ones are drawn first."""
    traces: list[dict[str, Any]] = []
    different = {look["legendgroup"]: look for look in looks.values()}
    groups = rows["method"].map({method: look["legendgroup"] for method, look in looks.items()})
    for group, look in sorted(different.items(), key=lambda pair: pair[1]["marker"]["color"] != style.GREY):
        here = rows[groups == group]
        if here.empty:
            continue
        grey = look["marker"]["color"] == style.GREY
        marker = look["marker"] | {"size": size, "opacity": faint if grey else strong}
        inside = here["y"].between(0, _Y_MAX)
        quiet = {"legendgroup": group, "showlegend": False}
        x, y, hover, row_numbers = _columns(here[inside])
        look = quiet | {"name": look["name"], "mode": "markers", "marker": marker, "cliponaxis": False}
        traces.append(points(x, y, hover, customdata=row_numbers, **look))
        x, y, hover, row_numbers = _columns(here[~inside])
        marker = {name: value for name, value in marker.items() if name != "symbol"}
        traces += beyond(x, y, (0, _Y_MAX), hover, marker, customdata=row_numbers, **quiet)
    return traces


def _columns(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    return rows["x"].to_numpy(np.float64), rows["y"].to_numpy(np.float64), rows["hover"].tolist(), rows["row"].tolist()


def _hover(frame: pd.DataFrame, of: str) -> list[str]:
    columns = (frame[name].tolist() for name in ("name", "method", "x", "y", "on_front"))
    return [
        f"{style.label(name, 80)}<br>{style.label(method, 80)}<br>{of} left {x:.1%}<br>retention {y:.4f}"
        + ("<br>on the front" if on_front else "")
        for name, method, x, y, on_front in zip(*columns, strict=True)
    ]


def _dense_line(ends: list[float]) -> dict[str, Any]:
    line = {"color": style.GREY, "width": 1.5, "dash": "dot"}
    line_trace = {"type": "scatter", "x": ends, "y": [1, 1], "mode": "lines"}
    return line_trace | {"line": line, "name": "dense", "legendgroup": "dense", "legendrank": 1003, "hoverinfo": "skip"}


def _steps(front: pd.DataFrame) -> dict[str, Any]:
    """The best retention at each number of parameters: level to the next point of the front, then up."""
    ordered = front.sort_values(["x", "y"])
    heights = np.clip(ordered["y"].to_numpy(np.float64), 0, _Y_MAX)
    line_trace = {"type": "scatter", "x": ordered["x"].to_numpy(np.float64), "y": heights, "mode": "lines"}
    look = {"line": {"color": style.GREY, "width": 2, "shape": "hv"}, "hoverinfo": "skip"}
    return line_trace | look | {"name": "front", "legendgroup": "front", "legendrank": 1002}
