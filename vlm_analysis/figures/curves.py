"""Retention over the number of dropped layers: one curve per method, one facet per domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.facets import axes, facets, second_axes
from vlm_analysis.figures.traces import area, beyond, lone, named_once, points
from vlm_analysis.words import counted

_RANDOM = "random"
_THIN = (
    "rgba(128,128,128,.55)"  # a translucent colour, not `opacity`: dozens of transparent layers darken what is below
)
_COST_DASHES = ("5px,4px", "7px,3px,1px,3px", "2px,7px", "7px,3px,1px,3px,1px,3px")


def retention_curve(
    frame: pd.DataFrame,
    *,
    y_title: str = "retention (pruned / dense)",
    y_max: float = 1.05,
    bands: Collection[str] | None = None,
    cost: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
) -> go.Figure:
    """Value over the number of dropped layers: one facet per domain, one colour and symbol per method.

    The method "random" is a grey band between `low` and `high` behind the others. A dotted line at 1
    marks the dense model. The y axis ends at `y_max`; higher values are triangles there.

    Args:
        frame: columns method, domain, budget (layers dropped), value, and optionally low and high;
            NaN values leave gaps.
        y_title: what `value` is.
        y_max: end of the y axis.
        bands: methods to highlight when there are many, with a thick line, markers and a band between `low` and `high`; all
            others become thin grey lines with one entry in the legend. None draws every method with error bars.
        cost: columns budget, value (pruned / dense, 0 to 1) and title: dotted grey lines in every facet, on a right axis with
            the same range as the left one.
        published: columns title, domain, budget and value: thin dashed lines of what a paper reports of another model, which `title` names.
    """
    domains = list(frame["domain"].unique())
    looks = _looks([method for method in frame["method"].unique() if method != _RANDOM], bands)
    kinds = {} if cost is None else {title: _cost_rows(rows) for title, rows in cost.groupby("title", sort=False)}
    scale = {"range": [0, y_max], "dtick": 0.25, "tickformat": ".2~f"}
    figure = facets(
        domains,
        int(frame["budget"].max()) if len(frame) else 1,
        scale | {"title": y_title},
        right=None if cost is None else scale | {"title": "cost (pruned / dense)"},
        names=[
            *(style.label(name, 32) for name in (_RANDOM, "dense", *_named(looks), *kinds)),
            *(style.label(title, 48) for title in _titles(published)),
        ],
    )
    curves, traces = _curves(frame), []
    for index, domain in enumerate(domains):
        here = {method: rows for (there, method), rows in curves.items() if there == domain}
        ends = figure.layout[f"xaxis{index + 1 if index else ''}"].range
        traces += [trace | axes(index) for trace in _facet(here, looks, ends, y_max)]
        traces += [trace | axes(index) for trace in _published(published, domain)]
        over = second_axes(index, len(domains))
        traces += [_cost_trace(title, rows, index) | over for index, (title, rows) in enumerate(kinds.items())]
    return figure.add_traces(named_once(traces))


def _titles(published: pd.DataFrame | None) -> list[str]:
    return [] if published is None else list(published["title"].unique())


def _published(published: pd.DataFrame | None, domain: str) -> list[dict[str, Any]]:
    """The curves of a paper in one facet, a dash of its own for each title."""
    traces = []
    for title, dash in zip(_titles(published), itertools.cycle(_COST_DASHES), strict=False):
        assert published is not None
        rows = published[(published["title"] == title) & (published["domain"] == domain)].sort_values("budget")
        name = style.label(title, 80)
        traces.append(
            {
                "type": "scatter",
                "x": rows["budget"].tolist(),
                "y": rows["value"].tolist(),
                "mode": "lines",
                "line": {"color": style.GREY, "width": 1, "dash": dash},
                "name": style.label(title, 48),
                "legendgroup": f"published {title}",
                "legendrank": 1200,
                "hovertemplate": f"{name}<br>%{{y:.3f}}, published<extra></extra>",
            }
        )
    return traces


@dataclass(frozen=True)
class _Rows:
    """The data of one curve: (n,) arrays in the order of budgets, NaN where unknown, and a text for each point."""

    budget: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    hover: list[str]


@dataclass(frozen=True)
class _Look:
    """How a method is drawn: with error bars ("bars"), with a band ("band"), or as a thin grey line ("thin"), which has no index."""

    kind: str
    index: int

    @property
    def colour(self) -> str:
        return style.category(self.index)["color"]


def _named(looks: dict[str, _Look]) -> list[str]:
    """The names in the legend."""
    thin = [method for method, look in looks.items() if look.kind == "thin"]
    return [method for method in looks if method not in thin] + ([_others(looks)] if thin else [])


def _others(looks: dict[str, _Look]) -> str:
    number = sum(look.kind == "thin" for look in looks.values())
    return f"{number} other method{'' if number == 1 else 's'}"


def _looks(methods: Sequence[str], bands: Collection[str] | None) -> dict[str, _Look]:
    """The look of every method, in drawing order: highlighted methods come last and have the first colours."""
    if bands is None:
        return {method: _Look("bars", index) for index, method in enumerate(methods)}
    out = [method for method in methods if method in bands]
    thin = {method: _Look("thin", 0) for method in methods if method not in bands}
    return thin | {method: _Look("band", index) for index, method in enumerate(out)}


def _curves(frame: pd.DataFrame) -> dict[tuple[Hashable, Hashable], _Rows]:
    """The rows of every domain and method; hover texts, which are slow to write, are made once."""
    ordered = frame.sort_values("budget")
    unknown = np.full(len(frame), np.nan)
    columns = {name: ordered[name].to_numpy(np.float64) if name in ordered else unknown for name in ("low", "high")}
    columns |= {"value": ordered["value"].to_numpy(np.float64), "budget": ordered["budget"].to_numpy()}
    words = {name: style.label(name, 80) for name in {*ordered["method"], *ordered["domain"]}}
    texts = [
        f"{words[method]}<br>{words[domain]}<br>{counted(budget, 'layer')} dropped<br>{_interval(value, low, high)}"
        for method, domain, budget, value, low, high in zip(
            ordered["method"],
            ordered["domain"],
            *(columns[name].tolist() for name in ("budget", "value", "low", "high")),
            strict=True,
        )
    ]
    groups: Any = ordered.groupby(["domain", "method"], sort=False, observed=True).indices.items()
    return {
        key: _Rows(**{name: column[at] for name, column in columns.items()}, hover=[texts[i] for i in at])
        for key, at in groups
    }


def _interval(value: float, low: float, high: float) -> str:
    number = f"{value:.4f}" if math.isfinite(value) else "not measured"
    return number + (f" ({low:.4f} to {high:.4f})" if math.isfinite(low) and math.isfinite(high) else "")


def _facet(
    rows: dict[Hashable, _Rows], looks: dict[str, _Look], ends: tuple[float, float], y_max: float
) -> list[dict[str, Any]]:
    """The traces of one facet, from the back to the front."""
    traces = _random_traces(rows[_RANDOM]) if _RANDOM in rows else []
    traces.append(_dense_line(ends))
    layers = [(method, look, rows[method]) for method, look in looks.items() if method in rows]
    traces += [
        area(curve.budget, curve.low, curve.high, style.translucent(look.colour, 0.2), legendgroup=f"method {method}")
        for method, look, curve in layers
        if look.kind == "band"
    ]
    ends_y = (-math.inf, y_max)
    if thin := [curve for _, look, curve in layers if look.kind == "thin"]:
        curve, marker = _strung(thin), {"color": _THIN, "size": 6}
        traces.append(_thin(_others(looks), curve))
        traces += beyond(curve.budget, curve.value, ends_y, curve.hover, marker, legendgroup="others")
    for method, look, curve in layers:
        if look.kind == "thin":
            continue
        traces.append(_curve(method, look, curve))
        marker, group = {"color": look.colour, "size": 9}, f"method {method}"
        traces += beyond(curve.budget, curve.value, ends_y, curve.hover, marker, legendgroup=group)
    return traces


def _strung(curves: Sequence[_Rows]) -> _Rows:
    """The points of several curves, one curve after the other, with a gap after each: hundreds of them drawn as one trace."""
    columns = {
        name: np.concatenate([np.append(getattr(curve, name), np.nan) for curve in curves])
        for name in ("budget", "value", "low", "high")
    }
    return _Rows(**columns, hover=[text for curve in curves for text in (*curve.hover, "")])


def _random_traces(rows: _Rows) -> list[dict[str, Any]]:
    """The band of random masks and their mean, both grey."""
    look = {"line": {"color": style.GREY, "width": 1.5}, "marker": {"color": style.GREY, "size": 4}}
    mean = points(rows.budget, rows.value.astype(np.float32), rows.hover, name=_RANDOM, legendgroup=_RANDOM, **look)
    return [area(rows.budget, rows.low, rows.high, style.MISSING, legendgroup=_RANDOM), mean]


def _dense_line(ends: tuple[float, float]) -> dict[str, Any]:
    line = {"color": style.GREY, "width": 1.5, "dash": "dot"}
    line_trace = {"type": "scatter", "x": list(ends), "y": [1, 1], "mode": "lines"}
    return line_trace | {"line": line, "name": "dense", "legendgroup": "dense", "hoverinfo": "skip"}


def _thin(name: str, rows: _Rows) -> dict[str, Any]:
    """The curves of all methods that are not highlighted, with a dot only where a line would not be visible."""
    trace = points(rows.budget, rows.value.astype(np.float32), rows.hover, line={"color": _THIN, "width": 1})
    return trace | {"name": name, "legendgroup": "others", "legendrank": 1050} | _dots(rows.value, _THIN)


def _curve(method: str, look: _Look, rows: _Rows) -> dict[str, Any]:
    """One method's curve, with a thick line or with error bars."""
    colour, dash, symbol = style.category(look.index).values()
    trace = points(rows.budget, rows.value.astype(np.float32), rows.hover)
    trace |= {"name": style.label(method, 32), "legendgroup": f"method {method}"}
    line, marker = {"color": colour, "dash": dash, "width": 2}, {"symbol": symbol, "size": 7, "color": colour}
    if look.kind == "band":
        return trace | {"line": line | {"width": 3}, "marker": marker, "legendrank": 900}
    errors = None
    if np.isfinite(rows.low).any():
        ends = {"array": (rows.high - rows.value).astype(np.float32)}
        ends |= {"arrayminus": (rows.value - rows.low).astype(np.float32)}
        errors = {"type": "data", "symmetric": False, "thickness": 1, "width": 2, **ends}
    return trace | {"line": line, "marker": marker, "error_y": errors}


def _dots(values: np.ndarray, colour: str) -> dict[str, Any]:
    single = lone(values)
    if not single.any():
        return {"mode": "lines"}
    return {"marker": {"color": colour, "size": np.where(single, 5, 0).tolist()}}


def _cost_rows(rows: pd.DataFrame) -> _Rows:
    ordered = rows.sort_values("budget")
    budget, value = ordered["budget"].to_numpy(), ordered["value"].to_numpy(np.float64)
    title = style.label(ordered["title"].iloc[0], 80)
    hover = [
        f"{title}<br>{counted(layers, 'layer')} dropped<br>{_interval(ratio, math.nan, math.nan)} of dense"
        for layers, ratio in zip(budget.tolist(), value.tolist(), strict=True)
    ]
    return _Rows(budget, value, value, value, hover)


def _cost_trace(title: Hashable, rows: _Rows, index: int) -> dict[str, Any]:
    line = {"color": style.GREY, "width": 2, "dash": _COST_DASHES[index % len(_COST_DASHES)]}
    trace = points(rows.budget, rows.value.astype(np.float32), rows.hover, line=line, **_dots(rows.value, style.GREY))
    return trace | {"name": style.label(f"cost: {title}", 36), "legendgroup": f"cost {title}", "legendrank": 1100}
