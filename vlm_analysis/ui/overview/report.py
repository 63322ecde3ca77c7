"""The answer handed on: its presentation, and the same document as a file with title, author, date and the user's price."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.export.document.document import Cover, Document
from vlm_analysis.export.document.page import document_html
from vlm_analysis.export.document.price import Price
from vlm_analysis.ui.common.sameline import same_line
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.overview.present.present import present
from vlm_analysis.workbench.documents import document_for, report_line
from vlm_analysis.workbench.workspace import Item

PRESENTING = "presenting"


def hand_on(item: Item, budget: int | None) -> None:
    """Draw the buttons that present the answer of a saved comparison and that write it as a report."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Present",
            icon=":material/slideshow:",
            key="present",
            on_click=st.session_state.update,
            args=({PRESENTING: item.id},),
            help="Steps through the answer over the whole screen: arrow keys, space or a swipe; Esc ends it.",
        )
        with st.popover("Report", icon=":material/description:", key="report", width="content"):
            _report(item, budget)
    if st.session_state.get(PRESENTING) == item.id:
        _present(item, budget)


def _present(item: Item, budget: int | None) -> None:
    try:
        document = document_for(workspace(), item, budget, cover=_cover(), price=_price())
    except StrataError as error:
        _end()
        st.error(escaped(error))
        return
    present(document_html(document, presenting=True), _end)


def _end() -> None:
    st.session_state.pop(PRESENTING, None)


def _report(item: Item, budget: int | None) -> None:
    """Draw what the user says about the report, and its download."""
    st.text_input("Title", key="report_title", placeholder="The question that it answers", persist_state="session")
    left, right = st.columns(2)
    left.text_input("Author", key="report_author", persist_state="session")
    right.text_input("Date", key="report_date", placeholder="Today", persist_state="session")
    st.caption("What a million tokens cost you; without it, no cost in money is shown.")
    one, other, unit = st.columns(3)
    one.number_input("Prompts", 0.0, value=None, key="report_price_in", persist_state="session")
    other.number_input("Responses", 0.0, value=None, key="report_price_out", persist_state="session")
    unit.text_input("Currency", key="report_currency", max_chars=10, placeholder="EUR", persist_state="session")
    try:
        cover, price = _cover(), _price()
    except StrataError as error:
        st.error(escaped(error))
        return
    shelf = workspace()

    def document() -> Document:
        return document_for(shelf, item, budget, cover=cover, price=price)

    st.download_button(
        "Download",
        data=lambda: document_html(document()).encode("utf-8", errors="replace"),
        file_name="strata-report.html",
        mime="text/html",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
        help="One file with all pictures that opens without a network, prints, and can be presented.",
    )
    same_line(report_line(item, budget, cover, price))


def _cover() -> Cover:
    title, author, date = (st.session_state.get(f"report_{name}") or "" for name in ("title", "author", "date"))
    return Cover(title, author, date)


def _price() -> Price | None:
    """Return the user's price; None where none was given."""
    said = st.session_state
    prompt, response = (said.get(f"report_price_{side}") or 0.0 for side in ("in", "out"))
    return Price(prompt, response, said.get("report_currency") or "") if prompt or response else None
