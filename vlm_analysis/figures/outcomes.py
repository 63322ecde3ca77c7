"""What a mask cost: retention over the number of dropped layers, exact match dense against pruned."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlm_analysis.figures import style

_FACETS_PER_LINE, _FACET_PX = 3, 230
_RANDOM = "random"


def retention_curve(
    frame: pd.DataFrame, *, y_title: str = "retention (pruned / dense)", y_max: float = 1.05
) -> go.Figure:
    """Value over the number of dropped layers: one facet per domain, one colour and symbol per method.

    The method "random" is a grey band between `low` and `high` behind the others. A dotted line at 1
    stands for the dense model. The y axis ends at `y_max`; higher values show as a triangle there.

    Args:
        frame: columns method, domain, budget (layers dropped), value, and optionally low and high;
            NaN values leave gaps.
        y_title: what `value` is.
        y_max: end of the y axis.
    """
    domains, methods = list(frame["domain"].unique()), list(frame["method"].unique())
    named = [method for method in methods if method != _RANDOM]
    figure = _facets(domains, y_title, y_max, int(frame["budget"].max()) if len(frame) else 1)
    for place, domain in enumerate(domains):
        at = {"row": place // _FACETS_PER_LINE + 1, "col": place % _FACETS_PER_LINE + 1}
        here = frame[frame["domain"] == domain].sort_values("budget")
        first = {"showlegend": place == 0}
        if _RANDOM in methods:
            for trace in _random_traces(here[here["method"] == _RANDOM], first):
                figure.add_trace(trace, **at)
        figure.add_trace(_dense_line(figure.layout.xaxis.range, first), **at)
        for index, method in enumerate(named):
            rows = here[here["method"] == method]
            figure.add_trace(_method_trace(rows, str(method), index, first), **at)
            if (rows["value"] > y_max).any():
                figure.add_trace(_beyond(rows[rows["value"] > y_max], str(method), index, y_max), **at)
    return figure


def damage_bars(frame: pd.DataFrame, *, metric: str = "exact_match") -> go.Figure:
    """Dense against pruned share of exactly matched answers, one pair of bars per domain.

    Args:
        frame: columns domain, metric, dense, pruned, both shares in [0, 1]; NaN shows as "not measured".
        metric: the rows of `frame` to draw.
    """
    rows = frame[frame["metric"] == metric].reset_index(drop=True)
    figure = style.empty_figure(
        max(46 * len(rows), 60) + 84, barmode="overlay", dragmode=False, legend=style.legend_above()
    )
    figure.update_xaxes(
        style.axis(
            f"{style.label(metric.replace('_', ' '), 40)} (share of prompts)",
            range=[0, 1.1],
            tickvals=[0, 0.25, 0.5, 0.75, 1],
        )
    )
    figure.update_yaxes(style.row_axis([str(domain) for domain in rows["domain"]]))
    looks = (("dense", -0.2, {"color": style.KEPT}), ("pruned", 0.2, {"color": style.DROPPED, "pattern": style.HATCH}))
    for column, offset, marker in looks:
        shares = rows[column].to_numpy(dtype=np.float64)
        figure.add_bar(
            x=shares.astype(np.float32),
            y=np.arange(len(rows)) + offset,
            width=0.36,
            orientation="h",
            name=column,
            marker=marker | {"line": {"width": 0}},
            text=[f"{share:.2f}" if math.isfinite(share) else "" for share in shares],
            textposition="outside",
            cliponaxis=False,
            hovertext=[
                f"{style.label(domain, 80)}<br>{column} {_share(share)}"
                for domain, share in zip(rows["domain"], shares.tolist(), strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        _add_not_measured(figure, np.flatnonzero(~np.isfinite(shares)) + offset)
    return figure


def _share(share: float) -> str:
    return f"{share:.4f}" if math.isfinite(share) else "not measured"


def _add_not_measured(figure: go.Figure, positions: np.ndarray) -> None:
    """A note in place of each bar that has no value."""
    if len(positions):
        look = {"mode": "text", "textposition": "middle right", "textfont": {"size": 11}}
        text = ["not measured"] * len(positions)
        figure.add_scatter(x=[0.0] * len(positions), y=positions, text=text, hoverinfo="skip", showlegend=False, **look)


def _facets(domains: list[object], y_title: str, y_max: float, largest: int) -> go.Figure:
    """Empty plots side by side, one per domain, with the same fixed axes."""
    columns = max(1, min(len(domains), _FACETS_PER_LINE))
    lines = max(1, math.ceil(len(domains) / columns))
    height = _FACET_PX * lines + 100
    legend = style.legend_above(1 + 26 / (_FACET_PX * lines))
    figure = make_subplots(
        figure=style.empty_figure(height, dragmode=False, legend=legend, margin={"t": 30}),
        rows=lines,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=[style.label(domain, 72 // columns) for domain in domains],
        horizontal_spacing=0.03,
        vertical_spacing=0.0 if lines == 1 else 44 / height,
    )
    figure.update_annotations(font={"size": 13})
    step = max(1, math.ceil(largest / 8))
    figure.update_xaxes(style.axis(range=[-0.4, largest + 0.4], tick0=0, dtick=step, showgrid=False))
    figure.update_yaxes(style.axis(range=[0, y_max], dtick=0.25, tickformat=".2~f"))
    for place in range(len(domains)):
        row, column = divmod(place, columns)
        if place + columns >= len(domains):
            figure.update_xaxes(title_text="layers dropped", showticklabels=True, row=row + 1, col=column + 1)
        if column == 0:
            figure.update_yaxes(title_text=y_title, row=row + 1, col=1)
    return figure


def _random_traces(rows: pd.DataFrame, first: dict[str, bool]) -> list[go.Scatter]:
    """The band of random masks and their mean, both grey."""
    budget = rows["budget"].to_numpy(dtype=np.float64)
    traces = []
    if {"low", "high"} <= set(rows.columns):
        low, high = (rows[column].to_numpy(dtype=np.float64) for column in ("low", "high"))
        traces.append(style.band(budget, low, high, style.MISSING, legendgroup=_RANDOM, showlegend=False, name="band"))
    look = {"line": {"color": style.GREY, "width": 1.5}, "marker": {"color": style.GREY, "size": 4}}
    values = rows["value"].to_numpy(dtype=np.float32)
    traces.append(
        go.Scatter(
            x=budget, y=values, mode="lines+markers", legendgroup=_RANDOM, name=_RANDOM, **look, **_boxes(rows), **first
        )
    )
    return traces


def _dense_line(ends: tuple[float, float], first: dict[str, bool]) -> go.Scatter:
    line = {"color": style.GREY, "width": 1.5, "dash": "dot"}
    return go.Scatter(x=list(ends), y=[1, 1], mode="lines", line=line, name="dense", hoverinfo="skip", **first)


def _method_trace(rows: pd.DataFrame, method: str, index: int, first: dict[str, bool]) -> go.Scatter:
    """One method's curve, with error bars where `low` and `high` are known."""
    look = style.category(index)
    errors = None
    if {"low", "high"} <= set(rows.columns):
        up, down = rows["high"] - rows["value"], rows["value"] - rows["low"]
        ends = {"array": up.to_numpy(dtype=np.float32), "arrayminus": down.to_numpy(dtype=np.float32)}
        errors = {"type": "data", "symmetric": False, "thickness": 1, "width": 2, **ends}
    return go.Scatter(
        x=rows["budget"].to_numpy(),
        y=rows["value"].to_numpy(dtype=np.float32),
        error_y=errors,
        mode="lines+markers",
        name=style.label(method),
        legendgroup=method,
        line={"color": look["color"], "dash": look["dash"], "width": 2},
        marker={"symbol": look["symbol"], "size": 7},
        **_boxes(rows),
        **first,
    )


def _beyond(rows: pd.DataFrame, method: str, index: int, y_max: float) -> go.Scatter:
    """Triangles at the upper edge for values above it, the number in the hover box."""
    return go.Scatter(
        x=rows["budget"].to_numpy(),
        y=[y_max] * len(rows),
        mode="markers",
        marker={"symbol": "triangle-up", "size": 9, "color": style.category(index)["color"]},
        cliponaxis=False,
        legendgroup=method,
        showlegend=False,
        name="beyond",
        **_boxes(rows),
    )


def _boxes(rows: pd.DataFrame) -> dict[str, object]:
    """The hover boxes of a method's rows."""
    known = {"low", "high"} <= set(rows.columns)
    texts = []
    for row in rows.to_dict("records"):
        text = f"{style.label(row['method'], 80)}<br>{style.label(row['domain'], 80)}<br>{row['budget']} layers dropped"
        text += f"<br>{row['value']:.4f}" if math.isfinite(row["value"]) else "<br>not measured"
        if known and math.isfinite(row["low"]) and math.isfinite(row["high"]):
            text += f" ({row['low']:.4f} to {row['high']:.4f})"
        texts.append(text)
    return {"hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>"}
