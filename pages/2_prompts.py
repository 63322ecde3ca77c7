"""Prompts: images with questions from bundled packs, uploads, files or earlier work; then a look at the set in use."""

import streamlit as st

from vlm_analysis.guard.shared import is_shared
from vlm_analysis.ui.common.address import check_tab, write_address
from vlm_analysis.ui.common.shell import begin
from vlm_analysis.ui.prompts.hubform import hub_tab
from vlm_analysis.ui.prompts.promptsources import file_tab, images_tab, packs_tab
from vlm_analysis.ui.prompts.promptview import FILES, HUB, OWN_IMAGES, draw_in_use, in_hand, saved_tab
from vlm_analysis.ui.prompts.suiteform import suites_tab

TABS = {
    "Bundled packs": packs_tab,
    OWN_IMAGES: images_tab,
    FILES: file_tab,
    **({} if is_shared() else {HUB: hub_tab}),
    "Probe suites": suites_tab,
    "Saved sets": saved_tab,
}

begin(
    "Prompts",
    ":material/add_photo_alternate:",
    "Choose the images and questions, in [[domain|domains]], that the [[layer|layers]] are judged by.",
)
st.session_state.setdefault("way-in", st.session_state.get("last-way-in", "Bundled packs"))
check_tab("way-in", TABS)
for tab, draw in zip(
    st.tabs(list(TABS), key="way-in", on_change="rerun", bind="query-params"), TABS.values(), strict=True
):
    if tab.open:
        with tab:
            draw()
st.session_state["last-way-in"] = st.session_state["way-in"]
if not in_hand(st.session_state["way-in"]):
    draw_in_use()
write_address()
