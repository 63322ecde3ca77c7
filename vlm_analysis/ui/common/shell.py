"""What every page begins with: page settings, our own menu, the model's name and the job at work."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.assets import asset
from vlm_analysis.guard.shared import SAID, is_shared
from vlm_analysis.ui.common.damaged import draw_damaged
from vlm_analysis.ui.common.jobs import sidebar_job
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import set_aside_lines

MENU = {
    "": [("app.py", "Overview", ":material/home:")],
    "Prepare": [
        ("pages/1_model.py", "Model", ":material/deployed_code:"),
        ("pages/2_prompts.py", "Prompts", ":material/add_photo_alternate:"),
    ],
    "Analyse": [
        ("pages/3_similarity.py", "Similarity", ":material/grid_on:"),
        ("pages/4_masks.py", "Masks", ":material/layers:"),
    ],
    "Decide": [
        ("pages/5_evaluate.py", "Evaluate", ":material/fact_check:"),
        ("pages/6_export.py", "Export", ":material/ios_share:"),
    ],
}


def begin(title: str, icon: str, about: str) -> None:
    """Draw what is common to all pages; the first line of each. `about` says in a sentence what the page is for."""
    st.set_page_config(page_title=f"{title} · Strata", page_icon=str(asset("icon.png")), layout="wide")
    with st.sidebar:
        st.markdown("**Strata**  \nwhich layers can go?")
        for section, entries in MENU.items():
            if section:
                st.caption(section)
            for path, label, symbol in entries:
                try:
                    st.page_link(path, label=label, icon=symbol)
                except StreamlitPageNotFoundError:  # a page file run alone
                    st.text(label)
        _model_line()
        sidebar_job()
        draw_damaged()
        if is_shared():
            st.caption(f":material/group: {SAID}")
    st.title(title, icon=icon)
    st.caption(about)


def _model_line() -> None:
    info = model_slot().info
    st.caption("Model")
    if info is None:
        st.text("none loaded")
    else:
        st.text(f"{info.name}\n{info.n_layers} layers, {info.dtype}")


def next_step(message: str, page: str, label: str) -> None:
    """Say on an empty page what to do first, with a link to where."""
    st.info(message, icon=":material/arrow_forward:")
    go_on(page, label)


def say_set_aside(set_aside: Mapping[str, str], n_used: int | None = None) -> None:
    """Name the prompts that were set aside, with the reasons; `n_used` others were not."""
    if lines := set_aside_lines(set_aside, n_used):
        st.warning("  \n".join(escaped(line) for line in lines), icon=":material/playlist_remove:")


def go_on(page: str, label: str) -> None:
    """Draw the link to the page that comes next."""
    try:
        st.page_link(page, label=label, icon=":material/arrow_forward:")
    except StreamlitPageNotFoundError:
        st.text(label)
