"""A ledger on screen: the finding, the chart, the table, the recovered edit to go on with, and what came back and what broke."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.telling import telling_line
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recovery.findings import RETURNS, best_row, fresh_words, headline, returned, with_ends
from vlm_analysis.recovery.ledger import Ledger, Row
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.jobs import job_panel
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.session import live, opened, shown_items, workspace
from vlm_analysis.ui.common.text import METRIC_HELP, done_to, escaped
from vlm_analysis.ui.evaluate.gallery import draw_gallery
from vlm_analysis.words import duration, sentence
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.workspace import Item

LEFT_BEHIND = (
    "What was learnt is kept among the saved masks, of tuning the best so far; the same button goes on from there."
)
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def recover_view() -> None:
    """Draw the job, and a saved ledger."""
    job_panel("recover", LEFT_BEHIND, _so_far)
    item = pick_item("ledgers", "Recovery", "Saved recoveries open without the model.")
    if item is None:
        st.caption("Nothing was given back yet.")
        return
    ledger: Ledger = open_or_stop(item)
    st.text(f"{ledger.model.name} ({ledger.model.fingerprint[:8]}) {done_to(ledger.edit)}.")
    draw_finding(ledger)
    draw_chart(ledger)
    _draw_table(ledger)
    if (row := _pick_row(ledger, item)) is not None:
        _draw_ways_on(row)
        _draw_answers(ledger, row, item)


def _so_far() -> None:
    """Draw the rows that are measured while others are learnt."""
    now = live().get("recover")
    if now is not None:
        (ledger,) = now
        st.caption("So far:")
        draw_finding(ledger)
        st.dataframe(_shown(ledger.overall), hide_index=True, width="stretch", alt="Retention of each model so far")


def draw_finding(ledger: Ledger) -> None:
    """Draw the finding in a sentence, on which prompts it was measured, and what changed nothing."""
    st.markdown(f"**{escaped(headline(ledger))}**")
    st.caption(escaped(fresh_words(ledger)))
    if line := telling_line(ledger.metric):
        st.info(escaped(line))
    for row in ledger.rows:
        if row.note:
            st.info(escaped(f"{sentence(row.title)}: {row.note}"))


def draw_chart(ledger: Ledger) -> None:
    """Draw the retention of each model on each domain."""
    from vlm_analysis.figures.recovered import ledger_bars

    st.plotly_chart(
        ledger_bars(ledger.table()),
        key="ledger-bars",
        config=PICTURE,
        alt=f"Retention of each model by domain. {headline(ledger)}",
    )
    st.caption("The dashed line is the dense model. Thin lines are 90 % intervals over groups of prompts.")


def _draw_table(ledger: Ledger) -> None:
    with st.expander("Numbers", icon=":material/table:"):
        formats: dict[str, Any] = {
            name: st.column_config.NumberColumn(format="percent") for name in ("exact_match", *_shares(ledger.table()))
        }
        formats |= {
            name: st.column_config.NumberColumn(format="%.3f", help=METRIC_HELP[name])
            for name in ("answer_nll", "kl_to_dense")
        }
        offer_table(ledger.table(), "recovery", alt="The ledger", column_config=formats)
    st.dataframe(
        _shown(ledger.overall),
        hide_index=True,
        width="stretch",
        column_config={
            "of dense tuned": st.column_config.TextColumn(
                help="Retention of the answers that the dense model gives after the same tuning."
            ),
            "weights": st.column_config.TextColumn(help="Of the model; repairs and merged tuning add none."),
            "kept beside": st.column_config.TextColumn(help="Bytes of what was learnt, beside the edit's file."),
        },
        alt="Each model over all prompts",
    )


def _shares(table: pd.DataFrame) -> list[str]:
    return [name for name in map(str, table) if name.startswith(("retention", "low", "high"))]


def _shown(overall: pd.DataFrame) -> pd.DataFrame:
    """Return the rows over all prompts in words."""
    shown = {
        "model": overall["row"],
        "exact match": [f"{share:.0%}" for share in overall["exact_match"]],
        "NLL": [f"{nats:.3f}" for nats in overall["answer_nll"]],
        "KL": [f"{nats:.3f}" for nats in overall["kl_to_dense"]],
        "of dense": with_ends(overall, "dense"),
    }
    if overall["retention_of_tuned"].notna().any():
        shown["of dense tuned"] = with_ends(overall, "tuned")
    shown["learnt in"] = ["not known" if pd.isna(one) else duration(one) if one else "–" for one in overall["seconds"]]
    shown["weights"] = ["not known" if pd.isna(one) else _size(int(one)) for one in overall["n_bytes"]]
    shown["kept beside"] = [_size(int(one)) if one else "–" for one in overall["learnt_bytes"]]
    return pd.DataFrame(shown)


def _size(n_bytes: int) -> str:
    size, unit = next((one for one in _UNITS if n_bytes >= one[0]), (1, "bytes"))
    return f"{n_bytes / size:,.1f} {unit}"


def _pick_row(ledger: Ledger, item: Item) -> Row | None:
    """Draw the choice of a recovered model, the best one first; None where there is none."""
    rows = {row.way: row for row in ledger.recovered}
    best = best_row(ledger) or next(iter(ledger.recovered), None)
    if best is None:
        return None
    st.subheader("The recovered model")
    picked = st.segmented_control(
        "Recovered model",
        list(rows),
        default=best.way,
        required=True,
        format_func=lambda way: sentence(rows[way].title),
        key=f"recovered:{item.id}",
        label_visibility="collapsed",
    )
    return rows[picked]


def _draw_ways_on(row: Row) -> None:
    """Draw the buttons that use the recovered edit."""
    key = row.evaluation.edit.key
    saved = next((one for one in shown_items("masks") if edit_key(one.details) == key), None)
    if saved is None:
        st.caption("Its edit is not saved any more: the button above makes it again.")
        return
    st.text(saved.name)
    with st.container(horizontal=True):
        for label, icon, tab in (
            ("Evaluate it", ":material/fact_check:", "One mask"),
            ("Ask both", ":material/compare_arrows:", "Ask both"),
            ("Measure its cost", ":material/timer:", "Cost"),
        ):
            st.button(label, icon=icon, on_click=_use, args=(saved.id, tab), key=f"recovered-{tab}")
        try:
            st.page_link(
                "pages/7_export.py", label="Export it", icon=":material/ios_share:", query_params={"mask": str(key)}
            )
        except StreamlitPageNotFoundError:  # a page file run alone
            st.text("Export it")


def _use(mask: str, tab: str) -> None:
    """Choose a saved mask and open a tab, as a button's callback."""
    st.session_state["pick:mask"] = mask
    st.session_state["evaluate_tab"] = tab


def _draw_answers(ledger: Ledger, row: Row, item: Item) -> None:
    """Draw what came back, what is still lost and what broke, a card an answer."""
    st.subheader("What came back, and what broke")
    changes = returned(ledger, row)
    counts = changes["outcome"].value_counts()
    lost = counts.get("came back", 0) + counts.get("still lost", 0)
    st.text(
        f"Of {lost} answers that the cut took away {counts.get('came back', 0)} came back; "
        f"{counts.get('broke', 0)} that it had kept broke."
    )
    sides = {"dense_says": "Dense model", "cut_says": "Cut", "edited_says": sentence(row.title)}
    says = "What came back first. Words that the dense model does not say are marked."
    advice = "tick “Write the responses” and get it back again."
    draw_gallery(changes, _prompts(ledger.prompts), f"{item.id}:{row.way}", sides, RETURNS, says, advice)


def _prompts(fingerprint: str) -> PromptSet | None:
    """Return the saved prompts of a fingerprint; None where they are not saved any more, or damaged."""
    item = next((one for one in workspace().items("prompts") if one.prompts == fingerprint), None)
    try:
        return None if item is None else opened(item)
    except StrataError:
        return None
