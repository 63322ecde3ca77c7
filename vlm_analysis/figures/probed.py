"""The figure of what a probe of the answers tells of each layer: gains of vision and text tokens with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.figures.skipping import panel
from vlm_analysis.model_info import Locks

_PANELS = (  # title, column, what it is made of, unit on hover
    ("gain in accuracy", "functional", "accuracy", ""),
    ("gain in log loss, nats", "informational", "log_loss", " nats"),
)
_GROUPS = {"vision": (style.CATEGORIES[0], "solid", "circle"), "text": (style.CATEGORIES[1], "dot", "square")}


def probe_curves(table: pd.DataFrame, *, locks: Locks | None = None) -> go.Figure:
    """The functional redundancy of every layer over its informational one, vision tokens beside text, each with its 90 % interval.

    Args:
        table: as returned by `probe_table`, by (token_group, layer).
        locks: layers that stay, shown on hover.
    """
    n_layers = len(table.loc["vision"])
    notes = style.layer_notes((), style.checked_locks(locks, n_layers, "probe curves"))
    figure = style.empty_figure(
        90 + 160 * len(_PANELS), dragmode=False, legend=style.legend_above(1.04), margin={"t": 56, "r": 60}
    )
    figure.update_xaxes(style.layer_axis(n_layers, anchor=f"y{len(_PANELS)}"))
    layers = np.arange(n_layers)
    for number, (title, name, of, unit) in enumerate(_PANELS):
        axis = panel(figure, number, len(_PANELS), title, nticks=5, zeroline=True, zerolinecolor=style.GREY)
        for group, (colour, dash, symbol) in _GROUPS.items():
            rows = table.loc[group]
            low, high = (rows[f"{name}{end}"].to_numpy(np.float64) for end in ("_low", "_high"))
            look = {"yaxis": axis, "legendgroup": group}
            figure.add_trace(
                style.band(
                    layers, low, high, style.translucent(colour, 0.16), lone=0.2, name=group, showlegend=False, **look
                )
            )
            figure.add_scatter(
                x=layers,
                y=rows[name].to_numpy(np.float64),
                mode="lines+markers",
                line={"color": colour, "width": 2, "dash": dash},
                marker={"size": 8, "color": colour, "symbol": symbol},
                hovertext=[
                    _hover(group, layer, row, name, of, unit, notes.get(layer, ""))
                    for layer, (_, row) in enumerate(rows.iterrows())
                ],
                hovertemplate="%{hovertext}<extra></extra>",
                name=f"{group} tokens",
                showlegend=number == 0,
                **look,
            )
    return figure


def _hover(group: str, layer: int, row: pd.Series, name: str, of: str, unit: str, note: str) -> str:
    ends = "no interval" if np.isnan(row[f"{name}_low"]) else f"{row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f}"
    words = of.replace("_", " ")
    return (
        f"layer {layer}, {group} tokens<br>{words} {row[f'{of}_before']:.3f} before, {row[f'{of}_behind']:.3f} behind{unit}"
        f"<br>gain {row[name]:+.3f} ({ends}){note}"
    )
