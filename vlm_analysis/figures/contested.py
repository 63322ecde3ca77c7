"""A contest of kinds: what the best edit of each keeps, as it is and recovered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.recovered import _bars

COLOURS = {"depth": "#0072B2", "width": "#E69F00", "vision": "#009E73", "mix": "#CC79A7"}


def contest_bars(table: pd.DataFrame) -> go.Figure:
    """Return a bar for each entry and domain, from 0 to its retention, with 90 % intervals; recovered ones are hatched, beside the plain.

    The dashed line is the dense model. The scale is fixed and ends at 110 %; longer bars are cut there, and hover has the number.

    Args:
        table: that of a Contest.
    """
    rows = table.assign(
        row=[f"{kind} + {way}" if way else kind for kind, way in zip(table["kind"], table["recovered"], strict=True)],
        **{f"{name}_of_dense": table[name] for name in ("retention", "low", "high")},
    )
    domains = list(dict.fromkeys(rows["domain"]))
    entries = [(kind, row) for kind in COLOURS for row in dict.fromkeys(rows.loc[rows["kind"] == kind, "row"])]
    height = max(24 * len(domains) * len(entries), 70) + 30 * len(domains) + 90
    figure = style.empty_figure(height, barmode="overlay", dragmode=False, legend=style.legend_above())
    ticks: dict[str, Any] = {"tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]}
    figure.update_xaxes(style.axis("retention of the dense model's answers", range=[0, 1.16], **ticks))
    figure.update_yaxes(style.row_axis(domains))
    step = 0.84 / len(entries)
    for number, (kind, row) in enumerate(entries):
        its = rows[rows["row"] == row].set_index("domain").loc[domains]
        offset = (number - (len(entries) - 1) / 2) * step
        look: dict[str, Any] = {"color": COLOURS[kind]} | ({} if row == kind else {"pattern": style.HATCH})
        figure.add_trace(_bars(row, its, np.arange(len(domains)) + offset, 0.86 * step, look))
    return figure.add_vline(1.0, line={"color": style.GREY, "width": 1.5, "dash": "dash"})
