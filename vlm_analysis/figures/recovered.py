"""What a cut model gets back: the retention of each model of a ledger, by domain, beside the dense model's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style

MOST = 1.1  # the retention at which the axis ends
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.DROPPED, "pattern": style.HATCH},
    *({"color": colour} for colour in ("#56B4E9", "#009E73", "#E69F00", "#CC79A7", "#0072B2")),
)
"""Of the cut model, then of each way: the cut is hatched too, so that no colour alone tells it."""


def ledger_bars(table: pd.DataFrame) -> go.Figure:
    """Return a bar for each model and domain, from 0 to the retention of the dense model's answers, with 90 % intervals.

    The dashed line is the dense model. The scale ends at 110 %; longer bars are cut there, and hover has the number.

    Args:
        table: that of a Ledger; the dense model's own rows are not drawn.
    """
    rows = table[table["row"] != "dense"]
    domains, models = list(dict.fromkeys(rows["domain"])), list(dict.fromkeys(rows["row"]))
    height = max(24 * len(domains) * len(models), 70) + 30 * len(domains) + 90
    figure = style.empty_figure(height, barmode="overlay", dragmode=False, legend=style.legend_above())
    figure.update_xaxes(
        style.axis(
            "retention of the dense model's answers",
            range=[0, 1.16],
            tickformat=".0%",
            tickvals=[0, 0.25, 0.5, 0.75, 1],
        )
    )
    figure.update_yaxes(style.row_axis(domains))
    step = 0.84 / len(models)
    for number, model in enumerate(models):
        its = rows[rows["row"] == model].set_index("domain").loc[domains]
        offset = (number - (len(models) - 1) / 2) * step
        figure.add_trace(_bars(model, its, np.arange(len(domains)) + offset, 0.86 * step, _LOOKS[number % len(_LOOKS)]))
    return figure.add_vline(1.0, line={"color": style.GREY, "width": 1.5, "dash": "dash"})


def _bars(model: str, rows: pd.DataFrame, y: np.ndarray, width: float, look: dict[str, Any]) -> go.Bar:
    shares, low, high = (rows[f"{name}_of_dense"].to_numpy(np.float64) for name in ("retention", "low", "high"))
    drawn = np.minimum(shares, MOST)
    ends = {
        "array": np.nan_to_num(np.maximum(np.minimum(high, MOST) - drawn, 0)),
        "arrayminus": np.nan_to_num(np.maximum(drawn - low, 0)),
    }
    return go.Bar(
        x=drawn,
        y=y,
        width=width,
        orientation="h",
        name=style.label(model, 48),
        marker=look | {"line": {"width": 0}},
        error_x={"type": "data", "color": style.GREY, "thickness": 1.2, "width": 3, **ends},
        hovertext=[
            f"{style.label(domain, 80)}<br>{style.label(model, 80)}: {_words(*numbers)}"
            for domain, *numbers in zip(rows.index, shares, low, high, strict=True)
        ],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _words(share: float, low: float, high: float) -> str:
    if not math.isfinite(share):
        return "not defined: the dense model's score is 0"
    return f"{share:.1%}" + (f" (90 % interval {low:.1%} to {high:.1%})" if math.isfinite(low) else ", no interval")
