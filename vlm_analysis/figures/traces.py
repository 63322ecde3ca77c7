"""Traces as plain dictionaries, to be handed to a figure all at once: one `add_trace` after the other takes much longer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_analysis.figures import style

_LONE = 0.15  # how far a band of one point reaches to both sides


def told(hover: Sequence[str]) -> dict[str, Any]:
    """Hover boxes that say `hover`, one text a point, and nothing else."""
    return {"hovertext": list(hover), "hovertemplate": "%{hovertext}<extra></extra>"}


def points(x: Any, y: Any, hover: Sequence[str], **more: Any) -> dict[str, Any]:
    """A scatter trace, lines and markers unless said otherwise, with its hover texts."""
    return {"type": "scatter", "x": x, "y": y, "mode": "lines+markers", **told(hover), **more}


def area(x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, **more: Any) -> dict[str, Any]:
    """The area between `low` and `high`, as `style.band` draws it; a single point has some width."""
    band: dict[str, Any] = style.band(x, low, high, colour, lone=_LONE).to_plotly_json()
    return band | {"name": "band", "showlegend": False} | more


def named_once(traces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same traces, each legend group named by its first trace only."""
    seen: set[str] = set()
    named = []
    for trace in traces:
        first = trace.get("showlegend", True) and trace["legendgroup"] not in seen
        seen |= {trace["legendgroup"]} if first else set()
        named.append(trace | {"showlegend": first})
    return named


def lone(values: np.ndarray) -> np.ndarray:
    """(n,) true where a number has none beside it: a line without markers would not show it."""
    known = np.isfinite(values)
    left, right = np.append(False, known[:-1]), np.append(known[1:], False)
    return known & ~left & ~right


def beyond(
    x: np.ndarray, y: np.ndarray, ends: tuple[float, float], hover: Sequence[str], marker: dict[str, Any], **more: Any
) -> list[dict[str, Any]]:
    """Triangles at the ends of the y axis for values outside of them; no trace without such values.

    Args:
        x, y: (n,) points; NaN is nowhere.
        ends: of the y axis.
        hover: (n,) texts that tell the number.
        marker: the look of the triangles.
        more: what else the trace holds.
    """
    out = np.flatnonzero((y < ends[0]) | (y > ends[1]))
    if not len(out):
        return []
    high = y[out] > ends[1]
    edge, shapes = np.where(high, ends[1], ends[0]), np.where(high, "triangle-up", "triangle-down").tolist()
    look = {"mode": "markers", "marker": {"size": 9, "symbol": shapes} | marker, "cliponaxis": False}
    return [
        points(x[out], edge, [hover[i] for i in out.tolist()], **look | {"showlegend": False, "name": "beyond"} | more)
    ]
