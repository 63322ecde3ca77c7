"""Where the choice of a ranking matters: spread between rankings, noise of the prompts, gain of spaced masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.facets import axes, facets, second_axes
from vlm_analysis.figures.traces import area, beyond, hover_boxes, named_once, points
from vlm_analysis.words import counted

_ENDS = (-0.25, 0.5)
_STRIP, _CELL = 0.14, 0.84  # the cells' share of a facet's height, and of the space between two budgets
_SPREAD, _GAIN = style.CATEGORIES[0], style.CATEGORIES[4]
# A regime has the colour of the line that explains it, if any.
REGIMES = {
    "ranking-sensitive": ("R", _SPREAD),
    "converging": ("C", style.CATEGORIES[2]),
    "structure-dominated": ("S", _GAIN),
    "spacing hurts": ("H", style.CATEGORIES[3]),
}
"""{regime: (letter, colour)}."""
_LINES = {
    "noise": ("noise of the prompts (95 %)", style.GREY, "circle", "dot", 4),
    "spread": ("spread between rankings", _SPREAD, "circle", "solid", 7),
    "gain": ("gain of spaced masks", _GAIN, "diamond", "dash", 7),
}
_NUMBERS = ("spread", "noise", "gain", "gain_low", "gain_high")


def regime_chart(frame: pd.DataFrame) -> go.Figure:
    """Spread between rankings, noise of the prompts and gain of spaced masks over the number of dropped layers, by domain.

    The axis reaches from -0.25 to 0.5 for every comparison; values beyond are triangles at its ends. Along the top, one cell
    per budget shows the regime by letter and colour.

    Args:
        frame: columns domain, budget (layers dropped), spread (standard deviation between the rankings' retention), noise
            (what the spread of equally good rankings stays below in 95 % of cases), gain (mean retention of spaced masks minus that of
            plain rankings), gain_low, gain_high, and regime: a key of `REGIMES`, or "" where it was not computed.
            NaN values leave gaps.

    Raises:
        ValueError: a regime is not in `REGIMES`.
    """
    unknown = sorted({str(regime) for regime in frame["regime"]} - {"", *REGIMES})
    if unknown:
        raise ValueError(f"regime chart failed: expected regimes {sorted(REGIMES)} or '', got {unknown}.")
    domains, width = list(frame["domain"].unique()), _cell_width(frame["budget"].to_numpy(np.float64))
    scale = {"title": "difference in retention", "range": list(_ENDS), "dtick": 0.25, "tickformat": ".2~f"}
    scale |= {"zeroline": True, "zerolinecolor": style.GREY, "zerolinewidth": 1}
    largest = int(frame["budget"].max()) if len(frame) else 1
    figure = facets(
        domains,
        largest,
        scale,
        room=max(0.4, 0.55 * width),
        strip=_STRIP,
        names=[*(name for name, *_ in _LINES.values()), *REGIMES],
    )
    traces: list[dict[str, Any]] = []
    for index, domain in enumerate(domains):
        rows = frame[frame["domain"] == domain].sort_values("budget")
        hover = _hover(rows)
        traces += [trace | axes(index) for trace in _lines(rows, hover)]
        traces += [trace | second_axes(index, len(domains)) for trace in _cells(rows, hover, width)]
    return figure.update_layout(barmode="overlay").add_traces(named_once(traces))


def _cell_width(budgets: np.ndarray) -> float:
    """The width of the cells: they touch where budgets are close, and stay narrow where few budgets are far apart."""
    steps = np.diff(np.unique(budgets))
    return _CELL * min(float(steps.min(initial=math.inf)), max(1.0, float(budgets.max(initial=1.0)) / 8))


def _lines(rows: pd.DataFrame, hover: list[str]) -> list[dict[str, Any]]:
    """Noise as a grey area from 0; spread and gain as lines, the latter with its interval."""
    x = rows["budget"].to_numpy(np.float64)
    numbers = {name: rows[name].to_numpy(np.float64) for name in _NUMBERS}
    traces = [
        area(x, np.zeros(len(x)), numbers["noise"], style.MISSING, legendgroup="noise"),
        area(x, numbers["gain_low"], numbers["gain_high"], style.translucent(_GAIN, 0.2), legendgroup="gain"),
    ]
    for group, (name, colour, symbol, dash, size) in _LINES.items():
        look = {
            "line": {"color": colour, "width": 2, "dash": dash},
            "marker": {"symbol": symbol, "size": size, "color": colour},
        }
        traces.append(points(x, numbers[group].astype(np.float32), hover, name=name, legendgroup=group, **look))
        traces += beyond(x, numbers[group], _ENDS, hover, {"color": colour}, legendgroup=group)
    return traces


def _cells(rows: pd.DataFrame, hover: list[str], width: float) -> list[dict[str, Any]]:
    """One bar per budget for each regime, with its letter in the font colour, readable on the translucent fill."""
    x, regimes = rows["budget"].to_numpy(np.float64), rows["regime"].astype(str).to_numpy()
    traces: list[dict[str, Any]] = []
    for rank, (regime, (letter, colour)) in enumerate(REGIMES.items(), start=1001):
        at = np.flatnonzero(regimes == regime)
        if not len(at):
            continue
        colours = {"color": style.translucent(colour, 0.4), "line": {"color": colour, "width": 1}}
        bar = {"type": "bar", "x": x[at], "y": np.full(len(at), 0.65), "base": 0.3, "width": width, "marker": colours}
        boxes = hover_boxes([hover[i] for i in at.tolist()])
        traces.append(bar | boxes | {"name": f"{letter} {regime}", "legendgroup": regime, "legendrank": rank})
        letters = {"x": x[at], "y": np.full(len(at), 0.61), "mode": "text", "text": [letter] * len(at)}
        words = {"textfont": {"size": 11}, "hoverinfo": "skip", "name": "letters", "showlegend": False}
        traces.append({"type": "scatter", **letters, **words, "legendgroup": regime})
    return traces


def _hover(rows: pd.DataFrame) -> list[str]:
    """The hover text of each budget, the same for all its points."""
    return [
        f"{style.label(row['domain'], 80)}<br>{counted(int(row['budget']), 'layer')} dropped"
        f"<br>spread between rankings {_number(row['spread'])}<br>noise of the prompts {_number(row['noise'])}"
        f"<br>gain of spaced masks {_number(row['gain'], '+')} ({_number(row['gain_low'], '+')} to {_number(row['gain_high'], '+')})"
        f"<br>{row['regime'] or 'regime not computed'}"
        for row in rows.to_dict("records")
    ]


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if math.isfinite(value) else "not measured"
