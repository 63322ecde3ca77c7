"""A contest on screen: which kind keeps most and how sure that is, the chart, the table, and each edit to go on with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.telling import telling_line
from vlm_analysis.selection.contest.contest import Contest, Entry
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.editor import edit
from vlm_analysis.ui.common.held import fits_editor, why_not_narrow
from vlm_analysis.ui.common.jobs import job_panel
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.session import live, shown_items, workspace
from vlm_analysis.ui.common.text import METRIC_HELP, escaped
from vlm_analysis.ui.contest.contestform import JOB
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Item

LEFT_BEHIND = "What was measured is kept: the same button goes on from there."
PROBLEM = "contest_problem"


def contest_view() -> None:
    """Draw the job with its entries so far, and a saved contest, the newest first."""
    job = job_panel(JOB, LEFT_BEHIND, _so_far)
    item = pick_item("contests", "Contest", "Saved contests open without the model.")
    if item is None:
        if job is None or not job.active:
            st.caption("No contest was held to its end yet.")
        return
    contest: Contest = open_or_stop(item)
    st.text(f"{contest.model.name} ({contest.model.fingerprint[:8]}): {contest.budget} go.")
    _draw_finding(contest)
    _draw_chart(contest)
    _draw_table(contest)
    _draw_entries(contest, item)


def _so_far() -> None:
    """Draw what the entries keep that are measured while others are recovered."""
    now = live().get(JOB)
    if now is not None:
        (contest,) = now
        st.caption("So far:")
        _draw_finding(contest)


def _draw_finding(contest: Contest) -> None:
    """Draw which kind keeps most and how sure that is, and on which prompts."""
    st.markdown(f"**{escaped(contest.verdict())}**")
    words = escaped(contest.fresh_words())
    if contest.n_shared:
        st.warning(words)
    else:
        st.caption(words)
    if line := telling_line(contest.metric):
        st.info(escaped(line))


def _draw_chart(contest: Contest) -> None:
    from vlm_analysis.figures.contested import contest_bars

    st.plotly_chart(
        contest_bars(contest.table()),
        key="contest-bars",
        config=PICTURE,
        alt=f"Retention of each kind by domain. {contest.verdict()}",
    )
    st.caption(
        "The dashed line is the dense model. Thin lines are 90 % intervals over groups of prompts. Hatched: after recovery."
    )


def _draw_table(contest: Contest) -> None:
    """Draw a row for each entry and domain, with downloads."""
    table = contest.table()
    columns: dict[str, Any] = {
        "entry": [
            f"{kind} + {way}" if way else kind for kind, way in zip(table["kind"], table["recovered"], strict=True)
        ]
    }
    for name in ("retention", "low", "high"):
        columns[name] = 100 * table[name]
    shown = pd.DataFrame({"entry": columns.pop("entry"), "domain": table["domain"], "n": table["n"], **columns})
    shown["exact_match"], shown["kl_to_dense"] = 100 * table["exact_match"], table["kl_to_dense"]
    shown["answer_nll"], shown["saved"] = table["answer_nll"], 100 * table["saved"]
    shown["speedup"] = [f"{value:.2f} ×" if pd.notna(value) else "not timed" for value in table["speedup"]]
    shown["tried"] = table["tried"]
    percent: dict[str, Any] = {"format": "%.1f %%"}
    number = st.column_config.NumberColumn
    config = {
        "retention": number(**percent, help=METRIC_HELP["retention"]),
        "low": number(**percent),
        "high": number(**percent),
        "exact_match": number("exact match", **percent),
        "kl_to_dense": number("KL to dense, nats", format="%.3f"),
        "answer_nll": number("answer NLL, nats", format="%.3f"),
        "saved": number("parameters saved", **percent, help="Of the decoder layers."),
        "speedup": st.column_config.TextColumn("prefill, times as fast"),
        "tried": number("tried", help="Edits of the kind that were measured on the choosing prompts."),
    }
    offer_table(shown, "contest", alt="Retention of each entry by domain, and what it saves", column_config=config)
    if contest.timed:
        st.caption(escaped(f"Prefills were timed on {contest.timed}."))


def _draw_entries(contest: Contest, item: Item) -> None:
    """Draw what the edit of each entry is, with the ways to go on with it."""
    st.subheader("The edits")
    if problem := st.session_state.pop(PROBLEM, ""):
        st.error(escaped(problem))
    entries = [entry for way in contest.ways for entry in contest.ranked(way)]
    figure, drawn = _strips(contest, entries), f"contest-strips:{item.id}"
    st.plotly_chart(
        figure, key=drawn, config=PICTURE, alt="; ".join(f"{one.title}: {one.edit.words()}" for one in entries)
    )
    for entry in entries:
        with st.container(border=True):
            _draw_entry(contest, entry, f"{item.id}:{entry.title}")


def _strips(contest: Contest, entries: list[Entry]) -> Any:
    from vlm_analysis.figures.heatmaps import edit_strips

    return edit_strips([(one.title, one.edit) for one in entries], contest.model.n_layers, locks=contest.model.locks)


def _draw_entry(contest: Contest, entry: Entry, key: str) -> None:
    st.markdown(f"**{escaped(sentence(entry.title))}**")
    picked = (
        f" Picked by a retention of {entry.chosen_score:.0%} on the choosing prompts." if entry.chosen_score else ""
    )
    tried = f" {counted(entry.tried, 'edit')} of the kind tried." if not entry.recovered else ""
    st.text(f"{sentence(entry.edit.words())}. Saves {entry.saved:.1%}. Made by: {entry.method}.{picked}{tried}")
    if reason := why_not_narrow(entry.edit):
        st.caption(escaped(f"A view, and no smaller checkpoint: {reason}. Export writes zeros where Masked is ticked."))
    mask = _named(contest, entry)
    saved = next((one for one in shown_items("masks") if edit_key(one.details) == mask.key), None)
    with st.container(horizontal=True):
        if fits_editor(mask):
            st.button(
                "Edit this mask",
                icon=":material/edit:",
                key=f"contest-edit:{key}",
                on_click=edit,
                args=(mask, contest.model),
                help="Takes it into the editor of the Masks page, in place of what is there; undo brings that back.",
            )
        if saved is None:
            st.button("Save as a mask", icon=":material/save:", key=f"contest-save:{key}", on_click=_save, args=(mask,))
        else:
            _link("pages/5_evaluate.py", "Evaluate it", ":material/fact_check:", mask)
            _link("pages/7_export.py", "Export it", ":material/ios_share:", mask)


def _named(contest: Contest, entry: Entry) -> Edit:
    """Return the edit of an entry under a name of its own, with the prompts that it was chosen on."""
    name = entry.edit.name or f"{entry.title}, {contest.share:.0%} of {contest.of}"
    origin = {"prompts": contest.chosen_on, "contest": entry.title, **entry.edit.provenance}
    return replace(entry.edit, name=name, model=contest.model, provenance=origin)


def _link(page: str, label: str, icon: str, mask: Edit) -> None:
    try:
        st.page_link(page, label=label, icon=icon, query_params={"mask": mask.key})
    except StreamlitPageNotFoundError:  # a page file run alone
        st.text(label)


def _save(mask: Edit) -> None:
    """Save the edit of an entry, as a button's callback."""
    try:
        keep_mask(workspace(), mask)
    except StrataError as error:
        st.session_state[PROBLEM] = str(error)
