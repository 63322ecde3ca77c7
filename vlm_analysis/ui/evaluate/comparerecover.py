"""The Evaluate page's question to many masks: how each of them is recovered too."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.recovery.solving import HOWS
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.recovery.ways import THEN
from vlm_analysis.workbench.workspace import Item


def ask_recoveries(choose: Item, report: Item) -> tuple[str, ...]:
    """Draw the choice of ways in which every mask is recovered too; none where masks are reported on the prompts they are chosen on."""
    if choose.prompts == report.prompts:
        return ()
    picked = st.multiselect(
        "Recover every mask too",
        [*HOWS, *TUNINGS, *(f"{how}{THEN}small" for how in HOWS)],
        key="compare_recover",
        persist_state="session",
        placeholder="Only the masks as they are",
        help="Each mask is compared as it is and recovered in each of these ways, on the prompts that masks are chosen on. A repair takes "
        "seconds a mask, a tuning a minute or more. Recovered masks are saved, and are methods of their own below.",
    )
    return tuple(picked)
