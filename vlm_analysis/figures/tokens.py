"""Where a pruned model's response diverges from the dense one: a strip of tokens, coloured by divergence."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.heatmaps import _hatching
from vlm_analysis.figures.scales import SEQUENTIAL, Scale

_LABELS, _LEAST = 80, 12  # largest number of labels, smallest number of columns
_LETTERS, _SHORT = 14, 6  # longest label, and longest horizontal label
_MARK = -0.85  # y of the triangles, above the cells
_STEP = 0.01  # nats below which the scale is linear, above it logarithmic
_VISIBLE = str.maketrans({" ": "·", "\u00a0": "·", "\n": "↵", "\r": "␍", "\t": "⇥"})


def _shade(nats: np.ndarray) -> np.ndarray:
    return np.log1p(np.clip(nats, 0, None) / _STEP)


_TICKS = (0, 0.01, 0.1, 1, 5)
KL = Scale(
    "KL(dense ‖ pruned), nats, log-like scale",
    _shade,
    (0.0, math.log1p(_TICKS[-1] / _STEP)),
    {math.log1p(nats / _STEP): f"{nats:g}" for nats in _TICKS},
    ".4g",
)


def token_strip(tokens: Sequence[str], kl: np.ndarray, differs: np.ndarray) -> go.Figure:
    """The tokens of the dense response in one row, coloured by KL(dense ‖ pruned), with a triangle where the first choices differ.

    The colours reach from 0 to 5 nats for every response: linear below 0.01, logarithmic above. Spaces, tabs and line ends
    are drawn as symbols. Of more than 80 tokens every n-th has a label; hover boxes show all.

    Args:
        tokens: (n,) any texts.
        kl: (n,) in nats; NaN where it was not measured.
        differs: (n,) true where the pruned model's first choice is another token.

    Raises:
        ValueError: the three differ in length.
    """
    nats, other = np.asarray(kl, dtype=np.float64), np.asarray(differs, dtype=bool)
    if not nats.shape == other.shape == (len(tokens),):
        raise ValueError(
            f"token strip failed: expected {len(tokens)} numbers and marks, got shapes {nats.shape} and {other.shape}."
        )
    hover = _hover(tokens, nats, other)
    figure = _empty_strip(tokens)
    if len(tokens):
        bar = {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 0,
            "yanchor": "top",
            "ypad": 10,
            "xpad": 0,
            "len": 0.5,
        }
        bar |= {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}, "tickvals": list(KL.ticks)}
        bar |= {"ticktext": list(KL.ticks.values()), "title": {"text": KL.unit, "side": "bottom", "font": {"size": 11}}}
        figure.add_heatmap(
            z=KL.shade(np.where(np.isfinite(nats), nats, np.nan))[None].astype(np.float32),
            zmin=KL.ends[0],
            zmax=KL.ends[1],
            colorscale=SEQUENTIAL,
            colorbar=bar,
            hovertext=[hover],
            hovertemplate="%{hovertext}<extra></extra>",
            xgap=1 if len(tokens) <= _LABELS else 0,
            name="tokens",
        )
    if len(unmeasured := np.flatnonzero(~np.isfinite(nats))):
        figure.add_trace(_hatching(np.stack([np.zeros_like(unmeasured), unmeasured], axis=1)))
    if len(columns := np.flatnonzero(other).tolist()):
        marker = {"symbol": "triangle-down", "size": 11 if len(tokens) <= _LABELS else 8, "color": style.DROPPED}
        figure.add_scatter(
            x=columns,
            y=[_MARK] * len(columns),
            mode="markers",
            marker=marker,
            hovertext=[hover[index] for index in columns],
            hovertemplate="%{hovertext}<extra></extra>",
            showlegend=False,
            name="differs",
        )
    return figure


def _empty_strip(tokens: Sequence[str]) -> go.Figure:
    """The axes: tokens on top, below them the row of triangles, then the cells."""
    n = len(tokens)
    labelled = range(0, n, max(1, math.ceil(n / _LABELS)))
    words = [_visible(tokens[index], _LETTERS) for index in labelled]
    longest = max((len(html.unescape(word)) for word in words), default=0)
    upright = n > _LEAST or longest > _SHORT
    figure = style.empty_figure(150 + 7 * (longest if upright else 2), dragmode=False, margin={"t": 8, "b": 70})
    ticks: dict[str, Any] = {
        "tickmode": "array",
        "tickvals": list(labelled),
        "ticktext": words,
        "tickfont": {"size": 11},
    }
    ticks |= {"tickangle": -90} if upright else {"autotickangles": [0, -90]}
    # A few tokens do not fill the width, as very wide cells would mislead.
    figure.update_xaxes(style.axis(range=[-0.5, max(n, _LEAST) - 0.5], side="top", showgrid=False, **ticks))
    rows: dict[str, Any] = {"tickmode": "array", "tickvals": [_MARK, 0], "ticktext": ["first choice differs", "KL"]}
    figure.update_yaxes(style.axis(range=[0.5, -1.25], showgrid=False, ticklabelstandoff=4, **rows))
    return figure


def _visible(token: str, limit: int) -> str:
    """A token with its spaces and line ends as symbols; ∅ where it has no printable character."""
    text = style.label(token.translate(_VISIBLE), limit)
    return text if any(letter.isprintable() for letter in text) else "∅"


def _hover(tokens: Sequence[str], nats: np.ndarray, other: np.ndarray) -> list[str]:
    return [
        f"token {index} {_visible(token, 80)}<br>KL(dense ‖ pruned) "
        + (f"{value:{KL.form}} nats" if math.isfinite(value) else "not measured")
        + f"<br>the pruned model's first choice is {'another token' if differs else 'the same'}"
        for index, (token, value, differs) in enumerate(zip(tokens, nats.tolist(), other.tolist(), strict=True))
    ]
