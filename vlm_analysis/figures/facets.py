"""Plots side by side, one per domain, all on the same fixed axes over the number of dropped layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from vlm_analysis.figures import style

_PER_LINE, _LINE_PX, _GAP_PX = 3, 230, 44
_GAP = 0.03  # between two facets of a line, as a share of its width
# Sizes of a legend's lines, letters and symbols; the width of a figure.
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
    """Empty plots, one per domain, three to a line, with the legend above them.

    Args:
        domains: names, any text.
        largest: the largest number of dropped layers.
        y: settings of all left axes, as for `style.axis`.
        room: free space on both sides of the x axis, in layers.
        right: settings of all right axes; None draws none.
        strip: share of each facet's height for an axis from 0 to 1 without labels at its top, instead of a right one.
        names: entries of the legend; from its third line on the figure grows.
    """
    columns, lines = _shape(len(domains))
    height = _LINE_PX * lines + 60 + _LEGEND_PX * max(2, _legend_lines(names))
    legend = style.legend_above(1 + 26 / (_LINE_PX * lines)) | {"tracegroupgap": 0}
    steps = {"tick0": 0, "dtick": max(1, math.ceil(largest / 8)), "range": [-room, largest + room]}
    layout: dict[str, Any] = {"annotations": []}
    for index, domain in enumerate(domains):
        x_name, y_name = axes(index).values()
        across, (bottom, top) = _across(index, columns), _down(index, columns, lines, height)
        low, leftmost = index + columns >= len(domains), index % columns == 0
        rightmost = index % columns == columns - 1 or index == len(domains) - 1
        middle = top - strip * (top - bottom)
        below = {"domain": across, "anchor": y_name, "showgrid": False, "showticklabels": low}
        layout[_key(x_name)] = style.axis("layers dropped" if low else "", **steps | below)
        layout[_key(y_name)] = _labelled(y | {"domain": [bottom, middle], "anchor": x_name}, leftmost)
        second = _key(second_axes(index, len(domains))["yaxis"])
        if strip:
            layout[second] = _labelled(
                {"domain": [middle, top], "anchor": x_name, "range": [0, 1], "showgrid": False}, False
            )
        elif right is not None:
            over = {"overlaying": y_name, "anchor": x_name, "side": "right", "showgrid": False}
            layout[second] = _labelled(right | over, rightmost)
        layout["annotations"].append(_title(style.label(domain, 72 // columns), sum(across) / 2, top))
    return style.empty_figure(height, dragmode=False, legend=legend, margin={"t": 30}, **layout)


def axes(index: int) -> dict[str, str]:
    """The axes of facet number `index`, from 0, as keys of a trace."""
    number = str(index + 1) if index else ""
    return {"xaxis": f"x{number}", "yaxis": f"y{number}"}


def second_axes(index: int, n_domains: int) -> dict[str, str]:
    """The same with the second y axis of the facet: the right one, or the strip."""
    return axes(index) | {"yaxis": f"y{n_domains + index + 1}"}


def _shape(n_domains: int) -> tuple[int, int]:
    """The number of facets in a line, and the number of lines; at least one of each."""
    columns = max(1, min(n_domains, _PER_LINE))
    return columns, max(1, math.ceil(n_domains / columns))


def _legend_lines(names: Sequence[str]) -> int:
    """The approximate number of lines of the names; a narrow window needs more."""
    return math.ceil(sum(_SIGN_PX + _LETTER_PX * len(name) for name in names) / _WIDTH_PX)


def _across(index: int, columns: int) -> list[float]:
    width = (1 - _GAP * (columns - 1)) / columns
    start = index % columns * (width + _GAP)
    return [start, min(1.0, start + width)]


def _down(index: int, columns: int, lines: int, height: int) -> tuple[float, float]:
    gap = _GAP_PX / height if lines > 1 else 0.0
    size = (1 - gap * (lines - 1)) / lines
    top = 1 - index // columns * (size + gap)
    return max(0.0, top - size), top


def _labelled(look: dict[str, Any], is_labelled: bool) -> dict[str, Any]:
    """An axis with its title and labels only where `is_labelled`."""
    bare: dict[str, Any] = {"title": "", "showticklabels": False}
    return style.axis(**(look if is_labelled else look | bare))


def _title(text: str, x: float, y: float) -> dict[str, Any]:
    position = {"x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "center", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 13}, **position}


def _key(name: str) -> str:
    """The key of an axis in a layout: `xaxis2` for `x2`."""
    return f"{name[0]}axis{name[1:]}"
