"""Plots side by side, one per domain, all on the same fixed axes over the number of dropped layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from vlm_analysis.figures import style

_PER_LINE, _LINE_PX, _GAP_PX = 3, 230, 44
_GAP = 0.03  # between two facets of a line, as a share of its width
# A legend's lines, its letters, the signs before its names; the width of a figure.
_LEGEND_PX, _LETTER_PX, _SIGN_PX, _WIDTH_PX = 20, 7, 48, 880


def facets(
    domains: Sequence[object],
    largest: int,
    y: dict[str, Any],
    *,
    room: float = 0.4,
    right: dict[str, Any] | None = None,
    strip: float = 0.0,
    names: Sequence[str] = (),
) -> go.Figure:
    """Empty plots, one per domain, three to a line; the legend lies above them.

    Args:
        domains: names, any text.
        largest: the largest number of dropped layers.
        y: what all left axes share, as `style.axis` takes it.
        room: free space on both sides of the x axis, in layers.
        right: what all right axes share; None draws none.
        strip: share of each facet's height that an axis from 0 to 1 without labels takes at its top, instead of a right one.
        names: what the legend says; from its third line on the figure grows.
    """
    columns, lines = _shape(len(domains))
    height = _LINE_PX * lines + 60 + _LEGEND_PX * max(2, _legend_lines(names))
    legend = style.legend_above(1 + 26 / (_LINE_PX * lines)) | {"tracegroupgap": 0}
    steps = {"tick0": 0, "dtick": max(1, math.ceil(largest / 8)), "range": [-room, largest + room]}
    layout: dict[str, Any] = {"annotations": []}
    for place, domain in enumerate(domains):
        x_name, y_name = axes(place).values()
        across, (bottom, top) = _across(place, columns), _down(place, columns, lines, height)
        low, leftmost = place + columns >= len(domains), place % columns == 0
        rightmost = place % columns == columns - 1 or place == len(domains) - 1
        middle = top - strip * (top - bottom)
        below = {"domain": across, "anchor": y_name, "showgrid": False, "showticklabels": low}
        layout[_key(x_name)] = style.axis("layers dropped" if low else "", **steps | below)
        layout[_key(y_name)] = _labelled(y | {"domain": [bottom, middle], "anchor": x_name}, leftmost)
        second = _key(second_axes(place, len(domains))["yaxis"])
        if strip:
            layout[second] = _labelled(
                {"domain": [middle, top], "anchor": x_name, "range": [0, 1], "showgrid": False}, False
            )
        elif right is not None:
            over = {"overlaying": y_name, "anchor": x_name, "side": "right", "showgrid": False}
            layout[second] = _labelled(right | over, rightmost)
        layout["annotations"].append(_title(style.label(domain, 72 // columns), sum(across) / 2, top))
    return style.empty_figure(height, dragmode=False, legend=legend, margin={"t": 30}, **layout)


def axes(place: int) -> dict[str, str]:
    """The axes of the `place`-th facet, as a trace names them."""
    number = str(place + 1) if place else ""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def second_axes(place: int, n_domains: int) -> dict[str, str]:
    """The same with the facet's second y axis: the right one, or the strip."""
    return axes(place) | {"yaxis": f"y{n_domains + place + 1}"}


def _shape(n_domains: int) -> tuple[int, int]:
    """How many facets stand in a line, and how many lines there are; at least one of each."""
    columns = max(1, min(n_domains, _PER_LINE))
    return columns, max(1, math.ceil(n_domains / columns))


def _legend_lines(names: Sequence[str]) -> int:
    """About how many lines the names take; a narrow window needs more."""
    return math.ceil(sum(_SIGN_PX + _LETTER_PX * len(name) for name in names) / _WIDTH_PX)


def _across(place: int, columns: int) -> list[float]:
    width = (1 - _GAP * (columns - 1)) / columns
    left = place % columns * (width + _GAP)
    return [left, min(1.0, left + width)]


def _down(place: int, columns: int, lines: int, height: int) -> tuple[float, float]:
    gap = _GAP_PX / height if lines > 1 else 0.0
    size = (1 - gap * (lines - 1)) / lines
    top = 1 - place // columns * (size + gap)
    return max(0.0, top - size), top


def _labelled(look: dict[str, Any], shown: bool) -> dict[str, Any]:
    """An axis that has its title and labels only where they are `shown`."""
    return style.axis(**look | ({} if shown else {"title": "", "showticklabels": False}))


def _title(text: str, x: float, y: float) -> dict[str, Any]:
    place = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 13}, **place}


def _key(name: str) -> str:
    """The axis `x2` is `xaxis2` in a layout."""
    return f"{name[0]}axis{name[1:]}"
