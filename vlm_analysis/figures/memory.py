"""The memory that a model needs: one bar with its parts side by side, and a line at the free memory."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from vlm_analysis.figures import style

_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_SHAPES = ("", "/", "\\", "x", "-", "+")  # neighbouring parts can be told apart without colour

_HATCH = {"fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.7, "size": 8, "solidity": 0.12}


def memory_bar(parts: Mapping[str, int], margin: int, free: int) -> go.Figure:
    """Bytes of each part of a model and of a margin, as one stacked bar; a dashed line marks the free memory.

    The axis ends at the needed memory, or at the line where that is at most three times as far, so that a small model stays
    readable on a large machine; else the free memory is written at the edge.

    Args:
        parts: {part: bytes} in the order to draw; parts of 0 bytes are left out.
        margin: bytes kept for activations.
        free: bytes that are free.
    """
    required = max(1, sum(parts.values()) + margin)
    size, unit = _unit(required)
    figure = style.empty_figure(
        150, barmode="stack", bargap=0.2, legend=style.legend_above(1.18) | {"traceorder": "normal"}, margin={"t": 56}
    )
    bars = [
        (name, part, style.CATEGORIES[index % len(style.CATEGORIES)])
        for index, (name, part) in enumerate(parts.items())
    ]
    for index, (name, part, colour) in enumerate([*bars, ("margin", margin, style.GREY)]):
        if part > 0:
            figure.add_bar(
                x=[part / size],
                y=[""],
                orientation="h",
                name=style.label(name),
                marker={"color": colour, "pattern": _HATCH | {"shape": _SHAPES[index % len(_SHAPES)]}},
                hovertemplate=f"{style.label(name)}<br>{part / size:,.2f} {unit}<extra></extra>",
            )
    _mark_free(figure, required, free)
    return figure


def _mark_free(figure: go.Figure, required: int, free: int) -> None:
    """Draw the memory axis, and the line of the free memory where it is near."""
    size, unit = _unit(required)
    is_near = free <= 3 * required
    end = max(required, free if is_near else 0) / size * 1.05
    figure.update_xaxes(style.axis(f"memory in {unit}", range=[0, end]))
    figure.update_yaxes(style.axis(showticklabels=False, showgrid=False))
    x = free / size if is_near else end
    if is_near:
        figure.add_vline(x=x, line={"dash": "dash", "width": 2, "color": style.GREY})
    free_size, free_unit = _unit(free)
    text = f"free: {free / free_size:,.1f} {free_unit}" + ("" if is_near else " →")
    side = "right" if x > end / 2 else "left"
    figure.add_annotation(x=x, y=1, yref="paper", yanchor="bottom", xanchor=side, text=text, showarrow=False)


def _unit(n_bytes: int) -> tuple[int, str]:
    """The largest unit that is not larger than `n_bytes`, and its name."""
    return next(((size, unit) for size, unit in _UNITS if n_bytes >= size), (1, "bytes"))
