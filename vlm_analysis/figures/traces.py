"""Traces as plain dictionaries, to be added to a figure all at once, which is much faster than one `add_trace` each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlm_analysis.figures import style

_LONE = 0.15  # half width of a band of one point


def hover_boxes(hover: Sequence[str]) -> dict[str, Any]:
    """Hover boxes with the texts `hover`, one per point, and nothing else."""
    return {"hovertext": list(hover), "hovertemplate": "%{hovertext}<extra></extra>"}


def points(x: Any, y: Any, hover: Sequence[str], **more: Any) -> dict[str, Any]:
    """A scatter trace, by default lines and markers, with its hover texts."""
    return {"type": "scatter", "x": x, "y": y, "mode": "lines+markers", **hover_boxes(hover), **more}


def area(x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, **more: Any) -> dict[str, Any]:
    """The area between `low` and `high`, as `style.band` draws it; a single point has some width."""
    band: dict[str, Any] = style.band(x, low, high, colour, lone=_LONE).to_plotly_json()
    return band | {"name": "band", "showlegend": False} | more


def named_once(traces: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same traces, each legend group named by its first trace only."""
    named_groups: set[str] = set()
    named = []
    for trace in traces:
        first = trace.get("showlegend", True) and trace["legendgroup"] not in named_groups
        named_groups |= {trace["legendgroup"]} if first else set()
        named.append(trace | {"showlegend": first})
    return named


def lone(values: np.ndarray) -> np.ndarray:
    """(n,) true where a number has no neighbours, so that a line without markers would not show it."""
    finite = np.isfinite(values)
    before, after = np.append(False, finite[:-1]), np.append(finite[1:], False)
    return finite & ~before & ~after


def beyond(
    x: np.ndarray, y: np.ndarray, ends: tuple[float, float], hover: Sequence[str], marker: dict[str, Any], **more: Any
) -> list[dict[str, Any]]:
    """Triangles at the ends of the y axis for values outside of them; no trace without such values.

    Args:
        x, y: (n,) points; NaN is not drawn.
        ends: of the y axis.
        hover: (n,) texts with the values.
        marker: the look of the triangles.
        more: other settings of the trace.
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
