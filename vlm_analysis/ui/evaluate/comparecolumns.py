"""The columns of a table of masks on the Evaluate page: titles, formats and explanations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.evaluation.telling import title_of


def mask_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return a mask table with the columns that a small view has room for."""
    return table.drop(columns=["nll_above_dense", "token_agreement", "on_front"])


def column_config(domains: Sequence[str], metric: str = "exact_match") -> dict[str, Any]:
    """Return titles, formats and explanations of the columns of a mask table that keeps retention of `metric`."""
    of = title_of(metric)
    config: dict[str, Any] = {
        f"retention, {domain}": st.column_config.NumberColumn(
            f"Retention, {domain}", help=f"Pruned over dense model's {of} on this domain.", format="percent"
        )
        for domain in domains
    }
    return config | {
        "chosen_by": st.column_config.TextColumn(
            "Chosen by", help="The first method that chooses this mask; the last column has them all."
        ),
        "methods": st.column_config.TextColumn(
            "Chosen by, all", help="Every method that chooses this mask.", width="large"
        ),
        "budget": st.column_config.NumberColumn("Layers dropped"),
        "worst": st.column_config.NumberColumn(
            "Worst domain", help="The least retention of any domain.", format="percent"
        ),
        "nll_above_dense": st.column_config.NumberColumn(
            "NLL above dense", help="Mean answer NLL minus the dense model's, in nats a token.", format="%.3f"
        ),
        "kl_to_dense": st.column_config.NumberColumn("KL to dense", help="In nats, mean over prompts.", format="%.3f"),
        "token_agreement": st.column_config.NumberColumn("Token agreement", format="percent"),
        "parameters_left": st.column_config.NumberColumn(
            "Parameters left", help="Of the whole model, vision tower and head included.", format="percent"
        ),
        "on_front": st.column_config.CheckboxColumn(
            "On the front",
            help="No other mask keeps as much of every domain with as few parameters, and more of one or with fewer.",
        ),
        "dropped": st.column_config.TextColumn("Layers"),
    }
