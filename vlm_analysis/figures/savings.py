"""Time saved by dropping layers: measured points, and the line expected from the layers' shares of the dense time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlm_analysis.figures import style
from vlm_analysis.words import counted

Y_MAX = 1.3
_PHASES = {"prefill": "prefill, a prompt's pass", "decode": "decode, each token written"}


def cost_chart(frame: pd.DataFrame, n_layers: int) -> go.Figure:
    """Time relative to the dense model over the number of dropped layers: prefill on the left, decoding on the right.

    A point is a measured mask, its bar reaches from the lower to the upper quartile of the rounds. The dashed line is the expected time
    if each layer saves its share; it starts at the dense model. Points above 1.3 are triangles at the edge. Edits that do more than drop
    decoder layers are open points, whose hover says what they do; the dashed line leaves them out.

    Args:
        frame: columns budget (layers dropped), phase ("prefill" or "decode"), value, low, high, expected and more (what an edit does
            beside dropping decoder layers, "" for a mask).
        n_layers: of the dense model; the layer axis reaches to half of them, or to the largest budget.
    """
    figure = make_subplots(
        figure=style.empty_figure(340, dragmode=False, legend=style.legend_above(1.1), margin={"t": 60}),
        cols=2,
        shared_yaxes="all",
        subplot_titles=list(_PHASES.values()),
        horizontal_spacing=0.04,
    )
    figure.update_annotations(font={"size": 13})
    end = max(1, n_layers // 2, int(frame["budget"].max()) if len(frame) else 1)
    ticks = {"tick0": 0, "dtick": max(1, -(-end // 8)), "showgrid": False}
    figure.update_xaxes(style.axis("decoder layers dropped", range=[-0.4, end + 0.4], **ticks))
    figure.update_yaxes(style.axis(range=[0, Y_MAX], dtick=0.25, tickformat=".2~f"))
    figure.update_yaxes(title_text="time (pruned / dense)", col=1)
    for column, phase in enumerate(_PHASES, start=1):
        rows = frame[frame["phase"] == phase].sort_values("budget")
        first = {"showlegend": column == 1}
        masks, others = rows[rows["more"] == ""], rows[rows["more"] != ""]
        for trace in (_dense(end, first), _expected(masks, first), _measured(masks, column - 1, first)):
            figure.add_trace(trace, row=1, col=column)
        if len(others):
            figure.add_trace(_measured(others, column - 1, first, is_open=True), row=1, col=column)
        beyond = rows[rows["value"] > Y_MAX]
        if len(beyond):
            figure.add_trace(_beyond(beyond, column - 1), row=1, col=column)
    return figure


def _dense(end: int, first: dict[str, bool]) -> go.Scatter:
    look = {"line": {"color": style.GREY, "width": 1.5, "dash": "dot"}, "hoverinfo": "skip"}
    return go.Scatter(x=[-0.4, end + 0.4], y=[1, 1], mode="lines", name="dense", legendgroup="dense", **look, **first)


def _expected(rows: pd.DataFrame, first: dict[str, bool]) -> go.Scatter:
    """The line through the expected time of each budget, averaged over masks of equal budget."""
    line = rows.groupby("budget")["expected"].mean()
    return go.Scatter(
        x=np.concatenate([[0], line.index.to_numpy()]),
        y=np.concatenate([[1.0], line.to_numpy()]).astype(np.float32),
        mode="lines",
        name="expected from the layers' shares",
        legendgroup="expected",
        line={"color": style.GREY, "width": 2, "dash": "dash"},
        hovertemplate="dropped layers: %{x}<br>expected %{y:.3f}<extra></extra>",
        **first,
    )


def _measured(rows: pd.DataFrame, index: int, first: dict[str, bool], *, is_open: bool = False) -> go.Scatter:
    look = style.category(index)
    ends = {
        "array": (rows["high"] - rows["value"]).to_numpy(np.float32),
        "arrayminus": (rows["value"] - rows["low"]).to_numpy(np.float32),
    }
    return go.Scatter(
        x=rows["budget"].to_numpy(),
        y=rows["value"].to_numpy(np.float32),
        error_y={"type": "data", "symmetric": False, "thickness": 1.5, "width": 4, **ends},
        mode="markers",
        name="more than decoder layers dropped" if is_open else "measured, with quartiles",
        legendgroup="more" if is_open else "measured",
        marker={"color": look["color"], "symbol": look["symbol"] + ("-open" if is_open else ""), "size": 9},
        **_boxes(rows),
        **first,
    )


def _beyond(rows: pd.DataFrame, index: int) -> go.Scatter:
    return go.Scatter(
        x=rows["budget"].to_numpy(),
        y=[Y_MAX] * len(rows),
        mode="markers",
        name="beyond",
        legendgroup="measured",
        showlegend=False,
        cliponaxis=False,
        marker={"color": style.category(index)["color"], "symbol": "triangle-up", "size": 10},
        **_boxes(rows),
    )


def _boxes(rows: pd.DataFrame) -> dict[str, object]:
    texts = [
        f"{counted(budget, 'decoder layer')} dropped{_also(str(row.more))}<br>"
        f"{row.value:.3f} of the dense time ({row.low:.3f} to {row.high:.3f})"
        f"<br>expected {row.expected:.3f}"
        for budget, row in zip(rows["budget"].astype(int).tolist(), rows.itertuples(), strict=True)
    ]
    return {"hovertext": texts, "hovertemplate": "%{hovertext}<extra></extra>"}


def _also(more: str) -> str:
    return f"<br>{style.label(more, 80)}" if more else ""
