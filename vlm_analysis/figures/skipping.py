"""Figures of vision tokens that skip layers: Skip-It's curves with their bands, and the measured damage of skipping on the same layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.model_info import Locks
from vlm_analysis.words import consecutive

if TYPE_CHECKING:
    from vlm_analysis.selection.criteria.bands import SkipBands

LEAST_KL = 1e-6  # nats; what is less is drawn there
_MARKS = {  # of what an edit does: how tokens are covered, and the line around them
    "absent": ("rgba(60,60,60,.8)", "solid"),
    "frozen": ("rgba(60,60,60,.35)", "dot"),
    "dropped": ("rgba(60,60,60,.9)", "dash"),
}
_CURVES = (
    ("mean 1 − cosine", "geometric", "epsilon", "ε", 2.0),
    ("changed tokens", "proximal", "eta", "η", 1.0),
    ("visual attention", "attention", "tau", "τ", 1.0),
)


def skip_curves(
    bands: SkipBands,
    *,
    epsilon: float,
    eta: float,
    tau: float,
    text: Mapping[str, np.ndarray] = MappingProxyType({}),
    damage: Mapping[str, np.ndarray] = MappingProxyType({}),
    locks: Locks | None = None,
) -> go.Figure:
    """Skip-It's curves over the layers, one above the other, each with its threshold; selected layers are shaded.

    Below them, on the same layers, the measured damage of skipping there, on a logarithmic scale.

    Args:
        bands: as returned by `skip_bands`.
        epsilon, eta, tau: the thresholds, a dashed line for each curve.
        text: (n_layers,) the curves of text tokens, "geometric" and "proximal", drawn beside those of vision tokens.
        damage: (n_layers,) KL to the dense model in nats by the way in which vision tokens skip, at the layer at which they enter, leave
            or are frozen; NaN where it was not measured.
        locks: layers that stay, shown on hover.
    """
    limits = {"epsilon": epsilon, "eta": eta, "tau": tau}
    rows = [row for row in _CURVES if getattr(bands, row[1]) is not None]
    n_layers, n = len(bands.geometric), len(rows) + bool(damage)
    figure = style.empty_figure(
        90 + 130 * n, dragmode=False, legend=style.legend_above(1.04), margin={"t": 56, "r": 60}
    )
    figure.update_xaxes(style.layer_axis(n_layers, anchor="y" if n == 1 else f"y{n}"))
    notes = style.layer_notes((), style.checked_locks(locks, n_layers, "skip curves"))
    for number, (title, field, limit, letter, most) in enumerate(rows):
        values = np.asarray(getattr(bands, field), dtype=np.float64)
        beside = np.asarray(text.get(field, np.full(n_layers, np.nan)), dtype=np.float64)
        top = 1.0 if not np.isfinite(values).any() or np.nanmax([*values, *beside]) <= 1 else most
        axis = panel(figure, number, n, title, range=[-0.04 * top, 1.04 * top], nticks=4)
        if np.isfinite(beside).any():
            figure.add_trace(_beside(title, beside, axis, notes))
        figure.add_trace(_curve(title, values, limits[limit], axis, number, notes))
        figure.add_trace(_threshold(letter, limits[limit], n_layers, axis))
    if damage:
        _add_damage(
            figure, damage, panel(figure, n - 1, n, "KL, nats", type="log", dtick=2, exponentformat="power"), notes
        )
    figure.update_layout(shapes=_shades(bands), annotations=_band_names(bands))
    return figure


def mark_skipped(figure: go.Figure, kinds: np.ndarray, does: Sequence[str]) -> go.Figure:
    """Mark in a `token_heatmap` in which layers an edit lets vision tokens skip: a veil where they are absent, a frame where frozen.

    Args:
        figure: the picture; it is changed and returned.
        kinds: (n_tokens,) 0 for vision tokens.
        does: (n_layers,) "full", "frozen" or "absent" (see `vision_row`); "dropped" veils all tokens of the layer.
    """
    vision = consecutive(np.flatnonzero(np.asarray(kinds) == 0).tolist())
    for state, (fill, dash) in _MARKS.items():
        for layers in consecutive([layer for layer, one in enumerate(does) if one == state]):
            for tokens in [range(len(kinds))] if state == "dropped" else vision:
                figure.add_shape(
                    type="rect",
                    x0=tokens[0] - 0.5,
                    x1=tokens[-1] + 0.5,
                    y0=layers[0] - 0.5,
                    y1=layers[-1] + 0.5,
                    fillcolor=fill,
                    line={"color": style.GREY, "width": 2, "dash": dash},
                    label={"text": state, "font": {"size": 12, "color": "white"}},
                    name=state,
                )
    return figure


def panel(figure: go.Figure, number: int, n: int, title: str, **look: Any) -> str:
    """Lay out the panel of this number of `n`, counted from the top; returns the name of its axis."""
    ends = [1 - (number + 1) / n + 0.03, 1 - number / n - 0.03]
    suffix = "" if number == 0 else str(number + 1)
    figure.update_layout({f"yaxis{suffix}": style.axis(title, domain=ends, anchor="x", **look)})
    return f"y{suffix}"


def _beside(title: str, values: np.ndarray, axis: str, notes: Mapping[int, str]) -> go.Scatter:
    """The curve of text tokens, dotted and grey."""
    return go.Scatter(
        x=np.arange(len(values)),
        y=values,
        yaxis=axis,
        mode="lines",
        line={"color": style.GREY, "width": 2, "dash": "dot"},
        hovertext=[
            f"layer {layer}<br>{title} of text {value:.4f}{notes.get(layer, '')}"
            for layer, value in enumerate(values.tolist())
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        name="text tokens",
        legendgroup="text",
        showlegend=axis == "y",
    )


def _add_damage(figure: go.Figure, damage: Mapping[str, np.ndarray], axis: str, notes: Mapping[int, str]) -> None:
    for number, (way, given) in enumerate(damage.items()):
        values = np.asarray(given, dtype=np.float64)
        look = style.category(number + 3)
        figure.add_scatter(
            x=np.arange(len(values)),
            y=np.where(np.isfinite(values), np.maximum(values, LEAST_KL), np.nan),
            yaxis=axis,
            mode="lines+markers",
            line={"color": look["color"], "width": 2},
            marker={"size": 8, "symbol": look["symbol"]},
            hovertext=[
                f"layer {layer}<br>{way}: KL {value:.3g} nats{notes.get(layer, '')}"
                for layer, value in enumerate(values.tolist())
            ],
            hovertemplate="%{hovertext}<extra></extra>",
            name=way,
        )


def _curve(title: str, values: np.ndarray, limit: float, axis: str, index: int, notes: Mapping[int, str]) -> go.Scatter:
    """One curve; points at or below its threshold are filled, the others open."""
    colour, symbol = style.CATEGORIES[index], style.category(index)["symbol"]
    below = np.less_equal(values, limit)
    return go.Scatter(
        x=np.arange(len(values)),
        y=values,
        yaxis=axis,
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={"size": 8, "color": colour, "symbol": [symbol if low else f"{symbol}-open" for low in below]},
        hovertext=[
            f"layer {layer}<br>{title} "
            + (
                f"{value:.4f}, {'at or below' if low else 'above'} {limit:g}"
                if math.isfinite(value)
                else "not measured"
            )
            + notes.get(layer, "")
            for layer, (value, low) in enumerate(zip(values.tolist(), below.tolist(), strict=True))
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        name="vision tokens",
        meta=title,
        legendgroup="vision",
        showlegend=axis == "y",
    )


def _threshold(letter: str, limit: float, n_layers: int, axis: str) -> go.Scatter:
    return go.Scatter(
        x=[-0.5, n_layers - 0.5],
        y=[limit, limit],
        yaxis=axis,
        mode="lines+text",
        text=["", f" {letter} = {limit:g}"],
        textposition="middle right",
        cliponaxis=False,
        textfont={"size": 11},
        line={"color": style.GREY, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        name=f"threshold {letter}",
        showlegend=False,
    )


def _shades(bands: SkipBands) -> list[dict[str, Any]]:
    """Selected layers lightly shaded, those of the two bands outlined as well."""
    ends = {*bands.late_entry, *bands.early_exit}
    shapes = [_shade(layer, layer, 0.16, 0) for layer in np.flatnonzero(bands.selected).tolist() if layer not in ends]
    return shapes + [_shade(min(band), max(band), 0.28, 1.5) for band in (bands.late_entry, bands.early_exit) if band]


def _shade(first: int, last: int, alpha: float, width: float) -> dict[str, Any]:
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": first - 0.5,
        "x1": last + 0.5,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "fillcolor": style.translucent(style.CATEGORIES[1], alpha),
        "line": {"width": width, "color": style.CATEGORIES[1]},
    }


def _band_names(bands: SkipBands) -> list[dict[str, Any]]:
    look = {"xref": "x", "yref": "paper", "y": 1, "yanchor": "top", "showarrow": False, "font": {"size": 12}}
    named = (("late entry", bands.late_entry, "left"), ("early exit", bands.early_exit, "right"))
    return [
        {**look, "text": name, "x": min(band) - 0.5 if side == "left" else max(band) + 0.5, "xanchor": side}
        for name, band, side in named
        if band
    ]
