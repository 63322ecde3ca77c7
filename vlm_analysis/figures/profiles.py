"""One number per layer: similarity profiles and a criterion's scores."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.model_info import Locks


def layer_profile(
    series: Mapping[str, np.ndarray],
    *,
    spread: Mapping[str, np.ndarray] | None = None,
    y_title: str,
    scale: tuple[float, float] | None = (0.0, 1.0),
) -> go.Figure:
    """One line per series over the layers, with a band where its spread is known.

    Args:
        series: {name: (n_layers,)}; NaN leaves a gap in the line.
        spread: {name: (n_layers,)}, half the height of the band, in the unit of the series.
        y_title: the quantity and its unit.
        scale: ends of the y axis, the same for all runs to compare; None fits the data.
    """
    figure = style.empty_figure(320, dragmode=False, legend=style.legend_above(), margin={"t": 30})
    n_layers = max((len(values) for values in series.values()), default=1)
    figure.update_xaxes(style.layer_axis(n_layers))
    figure.update_yaxes(style.axis(y_title, range=_with_air(scale)))
    looks = [style.category(index) for index in range(len(series))]
    for (name, values), look in zip(series.items(), looks, strict=True):
        half = (spread or {}).get(name)
        if half is not None:
            colour = style.translucent(look["color"], 0.18)
            layers = np.arange(len(values))
            figure.add_trace(
                style.band(layers, values - half, values + half, colour, legendgroup=name, showlegend=False)
            )
    for (name, values), look in zip(series.items(), looks, strict=True):
        half = (spread or {}).get(name)
        figure.add_scatter(
            x=np.arange(len(values)),
            y=np.asarray(values, dtype=np.float32),
            mode="lines+markers" if n_layers <= 40 else "lines",
            name=style.label(name),
            legendgroup=name,
            line={"color": look["color"], "dash": look["dash"], "width": 2},
            marker={"symbol": look["symbol"], "size": 6},
            hovertext=_profile_hover(name, np.asarray(values), half),
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return figure


def score_bars(
    values: np.ndarray,
    spread: np.ndarray | None,
    order: Sequence[int],
    dropped: Collection[int] = (),
    locks: Locks | None = None,
    *,
    y_title: str = "score",
    scale: tuple[float, float] | None = None,
) -> go.Figure:
    """A criterion's score per layer with its spread; dropped layers in another colour and hatched.

    Args:
        values: (n_layers,) scores in the criterion's unit; NaN is marked "?" instead of a bar.
        spread: (n_layers,) half length of the error bars, or None.
        order: layers in drop order, shown in the hover box.
        dropped: layers the mask drops.
        locks: layers that stay, marked above the bars: P protected, L locked, K kept by the user.
        y_title: name of the criterion and its unit.
        scale: ends of the y axis; None fits the data, as criteria have different units.

    Raises:
        MaskError: a layer is outside of the model.
    """
    scores = np.asarray(values, dtype=np.float64)
    n_layers = len(scores)
    out = style.checked_layers(dropped, n_layers, "score bars")
    style.checked_layers(order, n_layers, "score bars")
    locks = style.checked_locks(locks, n_layers, "score bars")
    notes, marked = style.layer_notes(out, locks), bool(locks.reasons)
    legend = style.legend_above()
    figure = style.empty_figure(300, dragmode=False, barmode="overlay", legend=legend, margin={"t": 30})
    figure.update_xaxes(style.layer_axis(n_layers, anchor="y"))
    figure.update_yaxes(style.axis(y_title, range=scale, domain=[0, 0.92 if marked else 1]))
    _add_bars(figure, scores, spread, out, _score_hover(scores, spread, order, notes))
    _add_unknown(figure, np.flatnonzero(~np.isfinite(scores)))
    if marked:
        figure.update_layout(yaxis2={"domain": [0.92, 1], "range": [0, 1], "visible": False, "fixedrange": True})
        figure.add_trace(style.lock_marks(locks, 0.5, yaxis="y2"))
    return figure


def _with_air(scale: tuple[float, float] | None) -> tuple[float, float] | None:
    """The scale, slightly wider, so that points at its ends are not cut off."""
    if scale is None:
        return None
    air = 0.02 * (scale[1] - scale[0])
    return scale[0] - air, scale[1] + air


def _add_bars(
    figure: go.Figure, scores: np.ndarray, spread: np.ndarray | None, dropped: list[int], hover: list[str]
) -> None:
    """The bars of kept and of dropped layers, one trace each: Plotly hatches a whole trace or warns."""
    others = [layer for layer in range(len(scores)) if layer not in dropped]
    looks = (
        ("kept", others, {"color": style.KEPT}),
        ("dropped", dropped, {"color": style.DROPPED, "pattern": style.HATCH}),
    )
    for name, layers, marker in looks:
        figure.add_bar(
            x=layers,
            y=scores[layers].astype(np.float32),
            width=0.85,
            error_y=None if spread is None else _error_bars(np.asarray(spread)[layers]),
            marker=marker | {"line": {"width": 0}},
            hovertext=[hover[layer] for layer in layers],
            hovertemplate="%{hovertext}<extra></extra>",
            name=name,
            showlegend=bool(dropped),
        )


def _error_bars(spread: np.ndarray) -> dict[str, object]:
    return {"type": "data", "array": np.asarray(spread, dtype=np.float32), "thickness": 1, "width": 2, "color": "#888"}


def _add_unknown(figure: go.Figure, layers: np.ndarray) -> None:
    """A question mark on the zero line for every layer without a score."""
    if len(layers) == 0:
        return
    figure.add_scatter(
        x=layers,
        y=np.zeros(len(layers), dtype=np.float32),
        mode="text",
        text=["?"] * len(layers),
        textposition="top center",
        hovertext=[f"layer {layer}<br>no tokens" for layer in layers],
        hovertemplate="%{hovertext}<extra></extra>",
        name="no tokens",
        showlegend=False,
    )


def _profile_hover(name: str, values: np.ndarray, half: np.ndarray | None) -> list[str]:
    halves = np.full(len(values), np.nan) if half is None else np.asarray(half)
    return [
        f"layer {layer}<br>{style.label(name, 80)}<br>{_number(value, margin)}"
        for layer, (value, margin) in enumerate(zip(values.tolist(), halves.tolist(), strict=True))
    ]


def _score_hover(
    scores: np.ndarray, spread: np.ndarray | None, order: Sequence[int], notes: Mapping[int, str]
) -> list[str]:
    rank_of = {layer: rank for rank, layer in enumerate(order, start=1)}
    halves = np.full(len(scores), np.nan) if spread is None else np.asarray(spread)
    return [
        f"layer {layer}<br>score {_number(value, margin)}"
        + (f"<br>number {rank_of[layer]} of {len(order)} in drop order" if layer in rank_of else "")
        + notes.get(layer, "")
        for layer, (value, margin) in enumerate(zip(scores.tolist(), halves.tolist(), strict=True))
    ]


def _number(value: float, margin: float) -> str:
    if not math.isfinite(value):
        return "no tokens"
    return f"{value:.4f} ± {margin:.4f}" if math.isfinite(margin) else f"{value:.4f}"
