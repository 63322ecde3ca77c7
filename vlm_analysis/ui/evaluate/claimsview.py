"""The Evaluate page's claims: what papers say of rankings, their numbers, yours, and whether your prompts can tell."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.selection.compared.claims import ALPHA, FAILS, HOLDS, SPREAD, UNTOLD
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import telling
from vlm_analysis.ui.common.downloads import offer_table
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import METRIC_TITLES, counted
from vlm_analysis.workbench.claimed import claims_of
from vlm_analysis.workbench.workspace import Item

BADGES = {HOLDS: "green", FAILS: "red", UNTOLD: "gray"}
COLUMNS: dict[str, Any] = {
    "claim": st.column_config.TextColumn("Claim"),
    "domain": st.column_config.TextColumn("Domain"),
    "verdict": st.column_config.TextColumn("With your prompts"),
    "yours": st.column_config.NumberColumn(
        "Yours", format="%.3f", help="A difference in retention, unless the unit says else."
    ),
    "low": st.column_config.NumberColumn(
        "from", format="%.3f", help="90 % interval over groups of prompts, for itself."
    ),
    "high": st.column_config.NumberColumn("to", format="%.3f"),
    "unit": st.column_config.TextColumn("Unit"),
    "n_prompts": st.column_config.NumberColumn("Prompts"),
    "n_groups": st.column_config.NumberColumn("Groups"),
    "would_tell": st.column_config.TextColumn("What would tell", width="large"),
    "theirs": st.column_config.TextColumn("The paper's, for it", width="large"),
    "against": st.column_config.TextColumn("The paper's, against it", width="large"),
    "paper": st.column_config.TextColumn("Paper"),
}


def claims_view() -> None:
    """Draw the table of claims on a saved comparison, and each claim with its paper's own numbers."""
    item = pick_item(
        "comparisons", "Comparison", "Whose masks and prompts the claims are tested on. It opens without the model."
    )
    comparison: Comparison | None = None if item is None else open_or_stop(item)
    if comparison is None:
        st.info(
            "No comparison is saved, so no claim can be tested. Compare the preset's masks: Many masks, “Only the preset”.",
            icon=":material/arrow_forward:",
        )
    table = claims_of(workspace(), comparison)
    if comparison is not None:
        _say_on_what(comparison, table)
    offer_table(
        table,
        "claims",
        alt="Claims of papers beside your numbers",
        has_chart=False,
        column_config=COLUMNS,
        column_order=list(COLUMNS),
    )
    st.caption(
        f"A verdict is a test of the sign of a difference over groups of prompts, all of them corrected together (Holm, {ALPHA:.0%}). "
        "“Cannot be told” means just that. How a paper's sentence becomes a difference is our choice. Published numbers are of other, "
        "larger models that were tuned after pruning, without intervals."
    )
    for _, rows in table.groupby("claim", sort=False):
        _card(rows)
    same_line(line_of("claims", item, model=False) if isinstance(item, Item) else "strata claims")


def _say_on_what(comparison: Comparison, table: pd.DataFrame) -> None:
    told = int((table["verdict"] != UNTOLD).sum())
    lines, metric = counted(len(table), "line"), METRIC_TITLES[telling(comparison)].lower()
    have = "has" if told == 1 else "have"
    st.caption(escaped(f"{told} of {lines} {have} a verdict, by {metric} of {comparison.dense.model.name}."))
    if comparison.n_shared:
        st.warning(
            f"{counted(comparison.n_shared, 'prompt')} reported on also chose the masks, or share a picture with one that did: what "
            "depends on the choice looks better than it is. Choose on one half and report on the other."
        )


def _card(rows: pd.DataFrame) -> None:
    """Draw one claim: what it says, the paper's numbers for and against it, and yours on each domain."""
    first = rows.iloc[0]
    with st.container(border=True):
        st.markdown(f"**{escaped(first['claim'])}** · {escaped(first['paper'])}  \n{escaped(first['says'])}")
        theirs, yours = st.columns(2)
        lines = [f"- {_unbroken(line)}" for line in first["theirs"].split("; ") if line]
        lines += [f"- :red[against it:] {_unbroken(line)}" for line in first["against"].split("; ") if line]
        theirs.markdown("\n".join(["Theirs", "", *lines]))
        yours.markdown("\n".join(["Yours", "", *(f"- {_words(row)}" for _, row in rows.iterrows())]))


def _unbroken(line: str) -> str:
    """Return a line for markdown in which no number parts from its sign."""
    return escaped(line.replace(" %", "\u00a0%"))


def _words(row: pd.Series) -> str:
    where = f"{escaped(row['domain'])}: " if row["domain"] else ""
    number = ""
    if row["yours"] == row["yours"]:
        ends = f" ({row['low']:+.3f} to {row['high']:+.3f})" if row["low"] == row["low"] else ""
        told = f"{row['yours']:+.3f}{ends} {row['unit']}"
        if row["unit"] == SPREAD:
            told = f"spread {row['yours']:.3f}, noise {row['high']:.3f}"
        number = escaped(f"{told}, {counted(int(row['n_prompts']), 'prompt')}. ")
    return f"{where}:{BADGES[row['verdict']]}-badge[{row['verdict']}] {number}{escaped(row['would_tell'])}"
