"""The pictures of an Answer: retention over parameters saved, and layers in columns that stand in line from one picture to the next."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vlm_analysis.figures import style
from vlm_analysis.selection.strategies.many import RANDOM
from vlm_analysis.words import counted

COLUMNS = {"l": 92, "r": 56}  # margins, px, of pictures whose layers stand in line
_OTHERS = "rgba(128,128,128,.45)"
_TOP = 1.1


def answer_curve(curve: pd.DataFrame, others: pd.DataFrame, budget: int) -> go.Figure:
    """Retention over the share of parameters saved: a line a domain for the best mask at each budget, a ring around the chosen budget.

    Bands are intervals. Thin grey lines are the other methods, a dotted one random masks, as means over domains. Values above 1.1 are cut.

    Args:
        curve, others: those of an `Answer`.
        budget: the ringed one.
    """
    most = 100 * float(max(curve["saved"].max(), others["saved"].max(), 0.01))
    figure = style.empty_figure(
        265,
        dragmode=False,
        legend=style.legend_above(),
        margin={"l": 52, "r": 12, "t": 8, "b": 44},
        xaxis=style.axis("parameters saved", ticksuffix=" %", range=[-0.02 * most, 1.03 * most]),
        yaxis=style.axis("retention", range=[0, _TOP], tickformat=".0%", dtick=0.25),
    )
    drawn = others[others["method"] != RANDOM]
    figure.add_trace(_thin(drawn, "other methods", {"color": _OTHERS, "width": 1}))
    if len(drawn) < len(others):
        figure.add_trace(
            _thin(others[others["method"] == RANDOM], RANDOM, {"color": style.GREY, "width": 1.5, "dash": "dot"})
        )
    domains = curve["domain"].unique()
    for index, domain in enumerate(domains):
        figure.add_traces(_domain(curve[curve["domain"] == domain], str(domain), index, budget))
    saved = 100 * float(curve[curve["budget"] == budget]["saved"].iloc[0])
    return figure.add_vline(saved, line={"color": style.GREY, "width": 1, "dash": "dot"})


def in_line(figure: go.Figure) -> go.Figure:
    """Return the picture with the margins of `COLUMNS`, so that its layers stand below those of another, and no name beside its scale."""
    names = [text if len(text) <= 13 else text[:12] + "…" for text in figure.layout.yaxis.ticktext or ()]
    figure.update_yaxes(automargin=False, ticktext=names, tickfont={"size": 11})
    figure.update_xaxes(automargin=False)
    figure.update_traces(
        colorbar={"title": {"text": ""}, "thickness": 8, "tickfont": {"size": 10}}, selector={"name": "values"}
    )
    return figure.update_layout(margin={**COLUMNS, "t": 4, "b": 44})


def _thin(rows: pd.DataFrame, name: str, line: dict[str, object]) -> go.Scatter:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for _, here in rows.groupby("method", sort=False):
        ordered = here.sort_values("budget")
        xs += [0.0, *(100 * ordered["saved"]).tolist(), None]
        ys += [1.0, *ordered["value"].clip(upper=_TOP).tolist(), None]
    return go.Scatter(x=xs, y=ys, mode="lines", line=line, name=name, hoverinfo="skip")


def _domain(rows: pd.DataFrame, domain: str, index: int, budget: int) -> list[go.Scatter]:
    rows = rows.sort_values("budget")
    look, saved = style.category(index), 100 * rows["saved"].to_numpy(np.float64)
    value, low, high = (rows[name].to_numpy(np.float64) for name in ("value", "low", "high"))
    methods = rows["method"].astype(str).tolist()
    hover = [
        f"{style.label(domain, 60)}<br>{counted(dropped, 'layer')} dropped, {style.label(method, 40)}<br>retention {kept:.0%}"
        + ("" if np.isnan(least) else f" ({least:.0%} to {most:.0%})")
        for dropped, method, kept, least, most in zip(rows["budget"].tolist(), methods, value, low, high, strict=True)
    ]
    sizes = np.where(rows["budget"] == budget, 14, 6).tolist()
    line = go.Scatter(
        x=saved,
        y=np.minimum(value, _TOP),
        mode="lines+markers",
        name=style.label(domain, 32),
        line={"color": look["color"], "dash": look["dash"], "width": 3},
        marker={
            "color": look["color"],
            "symbol": look["symbol"],
            "size": sizes,
            "line": {"color": "white", "width": 1},
        },
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
    )
    shade = style.band(
        saved, low, np.minimum(high, _TOP), style.translucent(look["color"], 0.13), lone=0.5, showlegend=False
    )
    return [shade, line]
