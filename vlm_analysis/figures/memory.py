"""What a model takes of the free memory: one bar, its parts side by side, and a line where memory ends."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from vlm_analysis.figures import style

_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_SHAPES = ("", "/", "\\", "x", "-", "+")  # beside the colour, so that neighbours are told apart without it

_HATCH = {"fillmode": "overlay", "fgcolor": "white", "fgopacity": 0.7, "size": 8, "solidity": 0.12}


def memory_bar(parts: Mapping[str, int], margin: int, free: int) -> go.Figure:
    """Bytes of each part of a model and of a margin, as one stacked bar; a dashed line marks the free memory.

    The axis ends at what is needed, and reaches to the line where that is at most three times as far, so that a small model
    on a large machine is still read; else the line's place is written at the edge.

    Args:
        parts: {part: bytes} in the order to draw; parts of 0 bytes are left out.
        margin: bytes kept for activations.
        free: bytes that are free.
    """
    needed = max(1, sum(parts.values()) + margin)
    size, unit = _unit(needed)
    figure = style.empty_figure(
        150, barmode="stack", bargap=0.2, legend=style.legend_above(1.18) | {"traceorder": "normal"}, margin={"t": 56}
    )
    drawn = [
        (name, part, style.CATEGORIES[index % len(style.CATEGORIES)])
        for index, (name, part) in enumerate(parts.items())
    ]
    for index, (name, part, colour) in enumerate([*drawn, ("margin", margin, style.GREY)]):
        if part > 0:
            figure.add_bar(
                x=[part / size],
                y=[""],
                orientation="h",
                name=style.label(name),
                marker={"color": colour, "pattern": _HATCH | {"shape": _SHAPES[index % len(_SHAPES)]}},
                hovertemplate=f"{style.label(name)}<br>{part / size:,.2f} {unit}<extra></extra>",
            )
    _mark_free(figure, needed, free)
    return figure


def _mark_free(figure: go.Figure, needed: int, free: int) -> None:
    """Draw the memory axis up to what is needed, and the line of what is free where it lies near."""
    size, unit = _unit(needed)
    seen = free <= 3 * needed
    end = max(needed, free if seen else 0) / size * 1.05
    figure.update_xaxes(style.axis(f"memory in {unit}", range=[0, end]))
    figure.update_yaxes(style.axis(showticklabels=False, showgrid=False))
    place = free / size if seen else end
    if seen:
        figure.add_vline(x=place, line={"dash": "dash", "width": 2, "color": style.GREY})
    free_size, free_unit = _unit(free)
    text = f"free: {free / free_size:,.1f} {free_unit}" + ("" if seen else " →")
    side = "right" if place > end / 2 else "left"
    figure.add_annotation(x=place, y=1, yref="paper", yanchor="bottom", xanchor=side, text=text, showarrow=False)


def _unit(n_bytes: int) -> tuple[int, str]:
    """The largest unit that `n_bytes` holds at least one of."""
    return next(((size, unit) for size, unit in _UNITS if n_bytes >= size), (1, "bytes"))
