"""The choice of the project in the sidebar: one of those that are there, or a new one by its name."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.ui.common.address import go_to
from vlm_analysis.ui.common.editor import take_sent
from vlm_analysis.ui.common.session import project, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.projects import DEFAULT

_PICK, _PROBLEM = "project:pick", "project:problem"


def draw_project() -> None:
    """Draw the project that this session works in, and the choice of another; call it in the sidebar."""
    now = project() or DEFAULT
    st.session_state[_PICK] = now
    st.selectbox(
        "Project",
        dict.fromkeys([DEFAULT, *workspace().projects(), now]),
        key=_PICK,
        accept_new_options=True,
        on_change=_switch,
        help="Each project has prompts, recordings, masks and results of its own. Type a new name to begin one. The loaded model and "
        "running jobs stay; a job keeps its results in the project where it was started.",
    )
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(escaped(problem))


def _switch() -> None:
    """Work in the project that was picked; make its folder where it is new. What goes wrong is said in the next run."""
    take_sent()
    try:
        go_to(workspace().begin_project(st.session_state[_PICK] or "").project)
    except StrataError as error:
        st.session_state[_PROBLEM] = str(error)
