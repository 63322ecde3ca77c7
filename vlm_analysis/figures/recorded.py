"""Figures of the contents of a recording beside the layer similarity: any measure, spans, tokens, several models side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from vlm_analysis.figures import style
from vlm_analysis.figures.heatmaps import _add_cells, _grid_figure, _hover
from vlm_analysis.figures.scales import SCALES, SEQUENTIAL, Scale
from vlm_analysis.model_info import Locks

_OVERLAY_PX = 420
_KINDS = (("vision", style.CATEGORIES[0]), ("text", style.CATEGORIES[1]), ("answer", style.CATEGORIES[2]))


def measure_heatmap(
    values: np.ndarray,
    rows: Sequence[str],
    measure: str,
    *,
    locks: Locks | None = None,
) -> go.Figure:
    """Any measure of layers, one row per domain, on the fixed scale of the measure (see `scales`).

    Args:
        values: (n_rows, n_layers); NaN where it was not measured.
        rows: (n_rows,) names, any text.
        measure: a key of `SCALES`.
        locks: layers that stay, marked below the cells: P protected, L locked, K kept by the user.

    Raises:
        ValueError: `values` has not one line per row.
        MaskError: a layer is outside of the model.
    """
    matrix, scale = style.checked_matrix(values, rows, "measure heatmap"), SCALES[measure]
    locks = style.checked_locks(locks, matrix.shape[1], "measure heatmap")
    figure = _grid_figure(rows, matrix.shape[1], above=False, below=bool(locks.reasons))
    hover = _hover(matrix, rows, scale.unit, scale.form, style.layer_notes((), locks))
    _add_cells(figure, scale.shade(matrix), hover, scale.ends, scale.colours, scale.unit, ticks=scale.ticks)
    if locks.reasons:
        figure.add_trace(style.lock_marks(locks, (len(rows) - 0.5 + figure.layout.yaxis.range[0]) / 2))
    return figure


def span_heatmap(matrix: np.ndarray, *, outlined: tuple[int, int] | None = None) -> go.Figure:
    """Cosine of the inputs of layer i (down) and layer j (across); the span between them is layers i to j - 1.

    Args:
        matrix: (n_layers + 1, n_layers + 1), as returned by `Recording.span_similarity`; the upper half is drawn.
        outlined: a span (i, j) to mark.

    Raises:
        ValueError: `matrix` is not square.
    """
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"span heatmap failed: expected a square matrix, got shape {values.shape}.")
    n, scale = len(values), SCALES["span"]
    upper = np.where(np.triu(np.ones_like(values), 1) > 0, values, np.nan)
    hover = [[_span_words(i, j, values[i, j], n) if j > i else "" for j in range(n)] for i in range(n)]
    figure = style.empty_figure(440, dragmode=False, margin={"l": 50, "t": 20, "b": 44})
    ticks = {"tickvals": list(range(0, n, max(1, n // 12))), "showgrid": False, "zeroline": False}
    figure.update_xaxes(style.axis("enters layer j", range=[0.5, n - 0.5], **ticks))
    figure.update_yaxes(style.axis("enters layer i", range=[n - 1.5, -0.5], **ticks))
    bar = {"thickness": 10, "outlinewidth": 0, "tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    figure.add_heatmap(
        z=scale.shade(upper).astype(np.float32),
        zmin=scale.ends[0],
        zmax=scale.ends[1],
        colorscale=SEQUENTIAL,
        colorbar=bar | {"title": {"text": scale.unit, "side": "right"}},
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        name="spans",
    )
    if outlined is not None:
        i, j = outlined
        box = {"type": "rect", "x0": j - 0.5, "x1": j + 0.5, "y0": i - 0.5, "y1": i + 0.5}
        figure.add_shape(**box, line={"color": style.DROPPED, "width": 3})
    return figure


def _span_words(i: int, j: int, value: float, n: int) -> str:
    layers = f"layer {i}" if j == i + 1 else f"layers {i} to {j - 1}"
    number = f"{value:.4f}" if np.isfinite(value) else "not measured"
    return f"{layers}<br>cosine of what enters layer {i} and what {'leaves the last' if j == n - 1 else f'enters layer {j}'}: {number}"


def token_heatmap(cosine: np.ndarray, kinds: np.ndarray, texts: Sequence[str]) -> go.Figure:
    """Every token's cosine at every layer, tokens across; a strip above shows vision, text and answer.

    Args:
        cosine: (n_layers, n_tokens); NaN for layers that did not run.
        kinds: (n_tokens,) 0 vision, 1 text, 2 answer.
        texts: (n_tokens,) text of each token.
    """
    n_layers, n_tokens = cosine.shape
    scale, words = SCALES["cosine"], [style.label(text, 30) for text in texts]
    figure = style.empty_figure(140 + 14 * n_layers, dragmode=False, margin={"l": 50, "t": 8, "b": 40})
    figure.update_xaxes(style.axis("token", range=[-0.5, n_tokens - 0.5], showgrid=False))
    figure.update_yaxes(style.axis("layer", range=[n_layers - 0.5, -2.2], showgrid=False, tickvals=_every(n_layers)))
    bar = {"thickness": 10, "outlinewidth": 0, "tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    names = [name for name, _ in _KINDS]
    figure.add_heatmap(
        z=scale.shade(cosine.astype(np.float32)),
        zmin=scale.ends[0],
        zmax=scale.ends[1],
        colorscale=SEQUENTIAL,
        colorbar=bar | {"title": {"text": scale.unit, "side": "right"}},
        customdata=np.broadcast_to(
            np.array([f"{text} ({names[kind]})" for text, kind in zip(words, kinds, strict=True)]), cosine.shape
        ),
        text=cosine.astype(np.float64).round(4),
        hovertemplate="token %{x}: %{customdata}<br>layer %{y}<br>cosine %{text}<extra></extra>",
        hoverongaps=False,
        name="tokens",
    )
    for kind, (name, colour) in enumerate(_KINDS):
        columns = np.flatnonzero(kinds == kind)
        figure.add_scatter(
            x=columns,
            y=np.full(len(columns), -1.4),
            mode="markers",
            marker={"symbol": "square", "size": 7, "color": colour},
            name=name,
            hoverinfo="skip",
        )
    figure.update_layout(legend=style.legend_above(), margin={"t": 34})
    return figure


def image_overlay(image: Image.Image, values: np.ndarray, *, scale: Scale = SCALES["cosine"]) -> go.Figure:
    """The image with the values of its vision tokens over it, each at the token's patch.

    Args:
        image: the user's image; it is shrunk for drawing.
        values: (rows, columns) of the image's vision tokens, in reading order.
        scale: the colour scale.
    """
    rows, columns = values.shape
    small = image.convert("RGB")
    small.thumbnail((_OVERLAY_PX, _OVERLAY_PX))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    height = int(min(_OVERLAY_PX, _OVERLAY_PX * small.height / small.width)) + 20
    figure = style.empty_figure(max(height, 160), dragmode=False, margin={"l": 8, "r": 8, "t": 8, "b": 8})
    figure.add_layout_image(
        source="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode(),
        x=0,
        y=0,
        sizex=columns,
        sizey=rows,
        xref="x",
        yref="y",
        sizing="stretch",
        layer="below",
    )
    hidden = {"visible": False, "fixedrange": True}
    figure.update_xaxes(range=[0, columns], constrain="domain", **hidden)
    shape = (small.height / rows) / (small.width / columns)
    figure.update_yaxes(range=[rows, 0], scaleanchor="x", scaleratio=shape, **hidden)
    bar = {"thickness": 10, "outlinewidth": 0, "tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    figure.add_heatmap(
        x=np.arange(columns) + 0.5,
        y=np.arange(rows) + 0.5,
        z=scale.shade(values.astype(np.float32)),
        zmin=scale.ends[0],
        zmax=scale.ends[1],
        colorscale=scale.colours,
        colorbar=bar | {"title": {"text": scale.unit, "side": "right"}},
        opacity=0.6,
        text=values.astype(np.float64).round(4),
        hovertemplate="%{text}<extra></extra>",
        name="vision tokens",
    )
    return figure


def depth_profile(series: Mapping[str, np.ndarray], measure: str) -> go.Figure:
    """Models of different depth on one axis: a measure over relative depth, 0 at the first layer, 1 at the last.

    Args:
        series: {name: (n_layers,)}, of any lengths; NaN leaves a gap.
        measure: a key of `SCALES`; its shade is the y axis, so that cosines near 1 are distinguishable.
    """
    scale = SCALES[measure]
    figure = style.empty_figure(360, dragmode=False, legend=style.legend_above(), margin={"t": 30})
    figure.update_xaxes(style.axis("relative depth", range=[-0.02, 1.02]))
    air = 0.03 * (scale.ends[1] - scale.ends[0])
    ends = [scale.ends[0] - air, scale.ends[1] + air]
    ticks = {"tickvals": list(scale.ticks), "ticktext": list(scale.ticks.values())}
    figure.update_yaxes(style.axis(scale.unit, range=ends, **ticks))
    for index, (name, values) in enumerate(series.items()):
        look, n_layers = style.category(index), len(values)
        shades = np.clip(scale.shade(np.asarray(values, dtype=np.float64)), *scale.ends)
        figure.add_scatter(
            x=np.linspace(0, 1, n_layers) if n_layers > 1 else np.zeros(1),
            y=shades.astype(np.float32),
            mode="lines+markers",
            name=style.label(name, 40),
            line={"color": look["color"], "dash": look["dash"], "width": 2},
            marker={"symbol": look["symbol"], "size": 6},
            hovertext=[
                f"{style.label(name, 80)}<br>layer {layer} of {n_layers}<br>{scale.unit} {value:{scale.form}}"
                for layer, value in enumerate(np.asarray(values).tolist())
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    return figure


def _every(n_layers: int) -> list[int]:
    return list(range(0, n_layers, max(1, n_layers // 16)))
