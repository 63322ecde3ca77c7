"""Figures of rankings: their agreement, their stability, cosine against damage, and Skip-It's curves with their bands."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.heatmaps import _hatching
from vlm_analysis.figures.scales import DIVERGING
from vlm_analysis.model_info import Locks

if TYPE_CHECKING:
    from vlm_analysis.selection.criteria.bands import SkipBands

TAU = "Kendall tau-b"
_WIDE = 20  # ratio of largest to smallest above which an axis of positive numbers is logarithmic
_MOST_NUMBERS, _MOST_WIDE = 30, 9  # largest number of names for which cells show numbers, and all of their digits
_POINTS = (
    ("near in rank", style.KEPT, "circle", 9),
    ("cosine drops it, damage ranks it high", style.DROPPED, "triangle-up", 13),
    ("cosine keeps it, damage says it can go", style.CATEGORIES[3], "diamond", 12),
)
_CURVES = (
    ("mean 1 − cosine", "geometric", "epsilon", "ε", 2.0),
    ("changed tokens", "proximal", "eta", "η", 1.0),
    ("visual attention", "attention", "tau", "τ", 1.0),
)


def agreement_heatmap(frame: pd.DataFrame) -> go.Figure:
    """Kendall's tau-b of every two rankings: orange where they agree, grey where unrelated, blue where opposite.

    The scale reaches from -1 to 1 for every recording; cells without a number (NaN) are hatched.

    Args:
        frame: (n, n), the same names on both sides.

    Raises:
        ValueError: `frame` is not square.
    """
    matrix, names = frame.to_numpy(np.float64), [str(name) for name in frame.index]
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(names):
        raise ValueError(f"agreement heatmap failed: expected a square matrix, got shape {matrix.shape}.")
    n = len(names)
    figure = style.empty_figure(90 + max(28 * n, 90), dragmode=False, margin={"t": 8, "b": 8})
    rows = [f"{number} {name}" for number, name in enumerate(names, start=1)]
    figure.update_yaxes(style.row_axis(rows))
    across = style.row_axis([str(number) for number in range(1, n + 1)], range=[-0.5, n - 0.5], side="top")
    figure.update_xaxes(across | {"ticklabelstandoff": 0})
    bar = {"orientation": "h", "y": 0, "yanchor": "top", "ypad": 14, "thickness": 10, "outlinewidth": 0, "len": 1}
    bar |= {"tickvals": [-1, -0.5, 0, 0.5, 1], "tickfont": {"size": 11}}
    finite = np.where(np.isfinite(matrix), matrix, np.nan)
    figure.add_heatmap(
        z=finite.astype(np.float32),
        zmin=-1,
        zmax=1,
        colorscale=[list(stop) for stop in DIVERGING],
        colorbar=bar | {"title": {"text": TAU, "side": "bottom", "font": {"size": 11}}},
        text=_numbers(finite) if n <= _MOST_NUMBERS else None,
        texttemplate="%{text}" if n <= _MOST_NUMBERS else None,
        textfont={"size": 11 if n <= _MOST_WIDE else 10},
        hovertext=_pair_hover(matrix, names),
        hovertemplate="%{hovertext}<extra></extra>",
        xgap=1,
        ygap=1,
        name="tau",
    )
    if len(empty_cells := np.argwhere(~np.isfinite(matrix))):
        figure.add_trace(_hatching(empty_cells))
    return figure


def _numbers(matrix: np.ndarray) -> list[list[str]]:
    """Two digits behind the point; without the zero before it where cells are narrow."""
    words = [[f"{value:.2f}" if math.isfinite(value) else "" for value in row] for row in matrix]
    narrow = len(words) > _MOST_WIDE
    return [[_short(word.replace("-0.00", "0.00"), narrow) for word in row] for row in words]


def _short(word: str, narrow: bool) -> str:
    return {"0.00": "0", "1.00": "1", "-1.00": "-1"}.get(word, word.replace("0.", ".")) if narrow else word


def _pair_hover(matrix: np.ndarray, names: Sequence[str]) -> list[list[str]]:
    words = [style.label(name, 80) for name in names]
    return [
        [
            f"{one}<br>{other}<br>{TAU} " + (f"{value:.3f}" if math.isfinite(value) else "not defined")
            for other, value in zip(words, line, strict=True)
        ]
        for one, line in zip(words, matrix.tolist(), strict=True)
    ]


def rank_intervals(
    low: np.ndarray,
    high: np.ndarray,
    order: Sequence[int],
    budget: int,
    *,
    unsure: Collection[int] = (),
    locks: Locks | None = None,
) -> go.Figure:
    """Each layer's position in the drop order, 1 on top, with its interval over draws of the prompts.

    Args:
        low, high: (n_layers,) ends of the interval, ranks from 0 for the layer that is dropped first; NaN where a layer does not compete.
        order: the layers that compete, in drop order.
        budget: number of layers to drop; a line is drawn below them.
        unsure: layers that the prompts do not settle, drawn as open squares in another colour.
        locks: layers that stay, marked on top: P protected, L locked, K kept by the user.

    Raises:
        MaskError: a layer is outside of the model.
    """
    n_layers, number = len(low), len(order)
    style.checked_layers({*order, *unsure}, n_layers, "rank intervals")
    locks = style.checked_locks(locks, n_layers, "rank intervals")
    rank_of = {layer: rank for rank, layer in enumerate(order)}
    figure = style.empty_figure(
        min(560, 130 + 14 * max(number, 8)), dragmode=False, legend=style.legend_above(), margin={"t": 30}
    )
    figure.update_xaxes(style.layer_axis(n_layers))
    step = next(step for step in (1, 2, 5, 10, 20, 50, max(number, 1)) if number <= 12 * step)
    ticks = {
        "tickmode": "array",
        "tickvals": sorted({1, *range(step, number + 1, step)} - ({2} if step > 2 else set())),
    }
    figure.update_yaxes(style.axis("place in the drop order", range=[number + 0.7, -0.6], **ticks))
    for name, there, colour, symbol in (
        ("settled", [layer for layer in order if layer not in unsure], style.KEPT, "circle"),
        ("cannot be told apart", [layer for layer in order if layer in unsure], style.DROPPED, "square-open"),
    ):
        if there:
            figure.add_trace(_interval_trace(name, sorted(there), rank_of, low, high, colour, symbol, number))
    if 0 < budget < number:
        line = {"color": style.GREY, "width": 2, "dash": "dash"}
        figure.add_hline(y=budget + 0.5, line=line, annotation_text=f"budget: {budget} go", annotation_font_size=11)
    if locks.reasons:
        figure.add_trace(style.lock_marks(locks, 0.1))
    return figure


def _interval_trace(
    name: str,
    layers: list[int],
    rank_of: Mapping[int, int],
    low: np.ndarray,
    high: np.ndarray,
    colour: str,
    symbol: str,
    number: int,
) -> go.Scatter:
    at = np.array([rank_of[layer] for layer in layers], dtype=np.float64)
    ends = {"array": np.maximum(high[layers] - at, 0), "arrayminus": np.maximum(at - low[layers], 0)}
    return go.Scatter(
        x=layers,
        y=at + 1,
        mode="markers",
        marker={"symbol": symbol, "size": 9, "color": colour, "line": {"width": 2, "color": colour}},
        error_y={"type": "data", "symmetric": False, "thickness": 2, "width": 3, "color": colour, **ends},
        hovertext=[
            f"layer {layer}<br>place {rank_of[layer] + 1} of {number}<br>from {low[layer] + 1:g} to {high[layer] + 1:g}<br>{name}"
            for layer in layers
        ],
        hovertemplate="%{hovertext}<extra></extra>",
        name=name,
    )


def damage_scatter(frame: pd.DataFrame, by: str = "damage_kl", *, y_title: str = "damage, nats") -> go.Figure:
    """Every layer by 1 − cosine and by measured damage, with its number; outliers in another colour and shape.

    An axis is logarithmic where its numbers are all above 0 and span more than a factor of 20.

    Args:
        frame: as returned by `cosine_against_damage`.
        by: the column of the damage.
        y_title: the damage and its unit.
    """
    there = frame[np.isfinite(frame["block_influence"].astype(float)) & np.isfinite(frame[by].astype(float))]
    kinds = np.where(~there["outlier"].astype(bool), 0, np.where(there["rank_gap"] > 0, 1, 2))
    figure = style.empty_figure(430, dragmode=False, legend=style.legend_above(), margin={"t": 30})
    figure.update_xaxes(_spread_axis("1 − cosine (block influence)", there["block_influence"].to_numpy(np.float64)))
    figure.update_yaxes(_spread_axis(y_title, there[by].to_numpy(np.float64)))
    for kind, (name, colour, symbol, size) in enumerate(_POINTS):
        rows = there[kinds == kind]
        if rows.empty:
            continue
        layers = rows["layer"].astype(int).tolist()
        figure.add_scatter(
            x=rows["block_influence"].to_numpy(np.float64),
            y=rows[by].to_numpy(np.float64),
            mode="markers+text",
            text=[f"<b>layer {layer}</b>" if kind else str(layer) for layer in layers],
            textposition="middle right",
            textfont={"size": 12 if kind else 10},
            marker={"symbol": symbol, "size": size, "color": colour},
            hovertext=[_point_words(row, by) for _, row in rows.iterrows()],
            hovertemplate="%{hovertext}<extra></extra>",
            name=name,
            cliponaxis=False,
        )
    return figure


def _point_words(row: pd.Series, by: str) -> str:
    return (
        f"layer {int(row['layer'])}<br>1 − cosine {row['block_influence']:.4g}, place {row['cosine_rank'] + 1:g}"
        f"<br>damage {row[by]:.4g} nats, place {row['damage_rank'] + 1:g}"
    )


def _spread_axis(title: str, values: np.ndarray) -> dict[str, Any]:
    """An axis that fits the values with room for labels; logarithmic where they span a large factor."""
    if not len(values):
        return style.axis(title)
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > _WIDE:
        ends = math.log10(low), math.log10(high)
        air = 0.08 * (ends[1] - ends[0])
        look = {
            "type": "log",
            "range": [ends[0] - air, ends[1] + air],
            "dtick": 1,
            "exponentformat": "power",
            "tickfont": {"size": 11},
        }
        return style.axis(f"{title}, log scale", **look)
    air = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return style.axis(title, range=[low - air, high + air])


def skip_curves(
    bands: SkipBands,
    *,
    epsilon: float,
    eta: float,
    tau: float,
    locks: Locks | None = None,
) -> go.Figure:
    """Skip-It's curves over the layers, one above the other, each with its threshold; selected layers are shaded.

    Args:
        bands: as returned by `skip_bands`.
        epsilon, eta, tau: the thresholds, a dashed line for each curve.
        locks: layers that stay, shown on hover.
    """
    limits = {"epsilon": epsilon, "eta": eta, "tau": tau}
    rows = [row for row in _CURVES if getattr(bands, row[1]) is not None]
    n_layers, n = len(bands.geometric), len(rows)
    figure = style.empty_figure(60 + 130 * n, dragmode=False, showlegend=False, margin={"t": 26, "r": 60})
    figure.update_xaxes(style.layer_axis(n_layers, anchor="y" if n == 1 else f"y{n}"))
    notes = style.layer_notes((), style.checked_locks(locks, n_layers, "skip curves"))
    for number, (title, field, limit, letter, most) in enumerate(rows, start=1):
        values = np.asarray(getattr(bands, field), dtype=np.float64)
        top = 1.0 if not np.isfinite(values).any() or np.nanmax(values) <= 1 else most
        ends = [1 - number / n + 0.03, 1 - (number - 1) / n - 0.03]
        suffix = "" if number == 1 else str(number)
        look = {"range": [-0.04 * top, 1.04 * top], "domain": ends, "nticks": 4, "anchor": "x"}
        figure.update_layout({f"yaxis{suffix}": style.axis(title, **look)})
        figure.add_trace(_curve(title, values, limits[limit], f"y{suffix}", number - 1, notes))
        figure.add_trace(_threshold(letter, limits[limit], n_layers, f"y{suffix}"))
    figure.update_layout(shapes=_shades(bands), annotations=_band_names(bands))
    return figure


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
        name=title,
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
    look = {"xref": "x", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False, "font": {"size": 12}}
    named = (("late entry", bands.late_entry, "left"), ("early exit", bands.early_exit, "right"))
    return [
        {**look, "text": name, "x": min(band) - 0.5 if side == "left" else max(band) + 0.5, "xanchor": side}
        for name, band, side in named
        if band
    ]
