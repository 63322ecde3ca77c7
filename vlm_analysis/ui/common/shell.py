"""What every page begins with: page settings, our own menu, the model's name and the list of jobs."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.assets import asset
from vlm_analysis.guard.shared import SAID, is_shared
from vlm_analysis.ui.common.address import arrive, links, say_unknown
from vlm_analysis.ui.common.damaged import draw_damaged
from vlm_analysis.ui.common.joblist import job_list
from vlm_analysis.ui.common.jobs import stand_on
from vlm_analysis.ui.common.projectbox import draw_project
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.whose import draw_work_of, say_whose
from vlm_analysis.words import MOST_LISTED, counted, set_aside_lines

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
        ("pages/6_depth_or_width.py", "Depth or width?", ":material/swap_horiz:"),
        ("pages/7_export.py", "Export", ":material/ios_share:"),
    ],
    "Read": [("pages/8_glossary.py", "Glossary", ":material/menu_book:")],
}

# What Streamlit draws too faintly to read: what is chosen of a few, on a dark ground, and text of charts, on a light one. And the link of
# this page has no ring of the focus.
_ACCESS = """<style>
button[data-variant][data-selected] { color: inherit !important; }
[data-testid="stPageLink-NavLink"]:focus-visible { outline: 2px solid currentColor; outline-offset: -2px; }
.js-plotly-plot text[style*='fill: rgb(128, 132, 149)'] { fill: currentColor !important; fill-opacity: 0.8 !important; }
</style>"""


def begin(title: str, icon: str, about: str) -> None:
    """Draw what is common to all pages; the first line of each. `about` says what the page is for, with terms marked (`explained`)."""
    stand_on(title, next((path for entries in MENU.values() for path, label, _ in entries if label == title), ""))
    st.set_page_config(page_title=f"{title} · Strata", page_icon=str(asset("icon.png")), layout="wide")
    st.html(_ACCESS)
    unknown = arrive()
    workspace().look_again()
    linked = links()
    with st.sidebar:
        st.markdown("**Strata**  \nwhich layers can go?")
        for section, entries in MENU.items():
            if section:
                st.caption(section)
            for path, label, symbol in entries:
                try:
                    st.page_link(path, label=label, icon=symbol, query_params=linked.get(path))
                except StreamlitPageNotFoundError:  # a page file run alone
                    st.text(label)
        draw_project()
        _model_line()
        draw_work_of()
        draw_damaged()
        if is_shared():
            st.caption(f":material/group: {SAID}")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title(title, icon=icon, width="content")
        job_list()
    explained(about, is_first=True)
    for name, value in unknown:
        say_unknown(name, value)
    say_whose()


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
    if len(set_aside) > MOST_LISTED:
        with st.expander(f"All {counted(len(set_aside), 'prompt')} set aside"):
            st.text("\n".join(set_aside.values()))


def go_on(page: str, label: str) -> None:
    """Draw the link to the page that comes next."""
    try:
        st.page_link(page, label=label, icon=":material/arrow_forward:")
    except StreamlitPageNotFoundError:
        st.text(label)
