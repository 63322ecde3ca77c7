"""A table with its downloads, and how a chart's own picture is saved."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.export.tables import table_csv

PICTURE: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtons": [["toImage"]],
    "toImageButtonOptions": {"format": "svg", "filename": "strata"},
}
"""Plotly's settings for a chart whose only button saves it as SVG."""


def offer_table(
    frame: pd.DataFrame, name: str, key: str = "", *, alt: str, has_chart: bool = True, **config: Any
) -> None:
    """Draw a sortable table with its downloads as CSV and Parquet; `alt` is read out, `config` goes to `st.dataframe`.

    Where it `has_chart` beside it, a line says how that is saved.
    """
    looks: dict[str, Any] = {"width": "stretch", "hide_index": True, "placeholder": "–", **config}
    st.dataframe(frame, alt=alt, **looks)
    offer_files(frame, name, key, has_chart=has_chart)


def offer_files(frame: pd.DataFrame, name: str, key: str = "", *, has_chart: bool = True) -> None:
    """Draw the downloads of a table; see `offer_table`."""
    left, right, _ = st.columns([1, 1, 3])
    more: dict[str, Any] = {"on_click": "ignore", "width": "stretch", "icon": ":material/download:"}
    left.download_button("CSV", lambda: table_csv(frame), f"{name}.csv", "text/csv", key=f"csv:{key or name}", **more)
    right.download_button(
        "Parquet",
        lambda: _parquet(frame),
        f"{name}.parquet",
        "application/octet-stream",
        key=f"parquet:{key or name}",
        **more,
    )
    if has_chart:
        st.caption("Pictures are saved as SVG by the camera that shows when the mouse is over them.")


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
