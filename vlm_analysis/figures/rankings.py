"""Figures of rankings: their agreement, their stability, and cosine against damage."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.heatmaps import _hatching
from vlm_analysis.figures.scales import DIVERGING
from vlm_analysis.model_info import Locks

TAU = "Kendall tau-b"
_WIDE = 20  # ratio of largest to smallest above which an axis of positive numbers is logarithmic
_MOST_NUMBERS, _MOST_WIDE = 30, 9  # largest number of names for which cells show numbers, and all of their digits
_POINTS = (
    ("near in rank", style.KEPT, "circle", 9),
    ("cosine drops it, damage ranks it high", style.DROPPED, "triangle-up", 13),
    ("cosine keeps it, damage says it can go", style.CATEGORIES[3], "diamond", 12),
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
