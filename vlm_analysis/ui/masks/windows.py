"""Two windows on one mask: each follows the other's edits within a second, or says that the mask was changed elsewhere."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.editor import edited_elsewhere, keep_own, show_edited_elsewhere
from vlm_analysis.ui.common.text import does, escaped

LOOK_S = 0.5  # how often a page that is open looks whether the mask was edited elsewhere
_TOLD = "windows:told"  # the edit of another window that this one was last told of


@st.fragment(run_every=LOOK_S, key="windows")
def follow_windows(model: ModelInfo) -> None:
    """Run the page again when another window has edited the mask since: it follows, or says so."""
    other = edited_elsewhere(model)
    if other is not None and other is not st.session_state.get(_TOLD):
        st.session_state[_TOLD] = other
        st.rerun()


def say_changed_elsewhere(model: ModelInfo) -> None:
    """Say that the mask was changed in another window where this one has changed it too, with the choice between both."""
    other = edited_elsewhere(model)
    if other is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.info(f"The mask was changed elsewhere: there it {escaped(does(other))}.", width="stretch")
        st.button("Show it", on_click=show_edited_elsewhere, args=(model,), help="Undo brings yours back.")
        st.button(
            "Keep mine", on_click=keep_own, args=(model,), help="The other window is asked the same when you edit it."
        )
