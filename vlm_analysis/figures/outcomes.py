"""Scores of one mask: exact match, or another score, of the dense and the pruned model."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style

_SHARES = {"exact_match": "share of prompts", "token_agreement": "share of tokens"}


def damage_bars(frame: pd.DataFrame, *, metric: str = "exact_match") -> go.Figure:
    """Dense against pruned score, such as the share of exactly matched answers, one pair of bars per domain.

    Args:
        frame: columns domain, metric, dense, pruned; both are shares in [0, 1], or nats. NaN shows as "not measured".
        metric: the rows of `frame` to draw.
    """
    rows = frame[frame["metric"] == metric].reset_index(drop=True)
    most = (
        0.0
        if metric in _SHARES
        else float(np.nan_to_num(rows[["dense", "pruned"]].to_numpy(np.float64)).max(initial=0.0))
    )
    figure = style.empty_figure(
        max(46 * len(rows), 60) + 84, barmode="overlay", dragmode=False, legend=style.legend_above()
    )
    figure.update_xaxes(
        style.axis(
            f"{style.label(metric.replace('_', ' '), 40)} ({_SHARES.get(metric, 'nats')})",
            range=[0, 1.1 if metric in _SHARES else 1.1 * (most or 1.0)],
            **({"tickvals": [0, 0.25, 0.5, 0.75, 1]} if metric in _SHARES else {}),
        )
    )
    figure.update_yaxes(style.row_axis([str(domain) for domain in rows["domain"]]))
    looks = (("dense", -0.2, {"color": style.KEPT}), ("pruned", 0.2, {"color": style.DROPPED, "pattern": style.HATCH}))
    for column, offset, marker in looks:
        shares = rows[column].to_numpy(dtype=np.float64)
        figure.add_bar(
            x=shares.astype(np.float32),
            y=np.arange(len(rows)) + offset,
            width=0.36,
            orientation="h",
            name=column,
            marker=marker | {"line": {"width": 0}},
            text=[f"{share:.2f}" if math.isfinite(share) else "" for share in shares],
            textposition="outside",
            cliponaxis=False,
            hovertext=[
                f"{style.label(domain, 80)}<br>{column} {_share(share)}"
                for domain, share in zip(rows["domain"], shares.tolist(), strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        _add_not_measured(figure, np.flatnonzero(~np.isfinite(shares)) + offset)
    return figure


def _share(share: float) -> str:
    return f"{share:.4f}" if math.isfinite(share) else "not measured"


def _add_not_measured(figure: go.Figure, positions: np.ndarray) -> None:
    """A note in place of each bar that has no value."""
    if len(positions):
        look = {"mode": "text", "textposition": "middle right", "textfont": {"size": 11}}
        text = ["not measured"] * len(positions)
        figure.add_scatter(x=[0.0] * len(positions), y=positions, text=text, hoverinfo="skip", showlegend=False, **look)
