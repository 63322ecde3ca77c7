"""The list of all jobs of the process, on every page: what runs, waits and has just ended, each with its page, cancel and result."""

from __future__ import annotations

import streamlit as st
from streamlit.errors import StreamlitPageNotFoundError

from vlm_analysis.ui.common.address import go_to
from vlm_analysis.ui.common.jobs import Place, cancel, here, progress_text, project_of
from vlm_analysis.ui.common.session import of_project, project, runner
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import duration
from vlm_analysis.workbench.jobs import JobView
from vlm_analysis.workbench.projects import DEFAULT

MOST_ENDED = 5
LOOK_S = 3.0  # a page draws its own job more often, and this list is mostly closed


def job_list() -> None:
    """Draw the list behind a button; nothing before the first job. It updates itself while a job is active."""
    if not (views := runner().list()):
        return

    @st.fragment(run_every=LOOK_S if any(view.active for view in views) else None, key="job-list")
    def drawn(was_active: bool) -> None:
        now = runner().list()
        n_active = sum(view.active for view in now)
        if was_active and not n_active:
            st.rerun()
        label = f"Jobs ({n_active})" if n_active else "Jobs"
        with st.popover(label, icon=":material/pending_actions:", key="jobs", width="content"):
            for view in in_order(now):
                with st.container(border=True, key=f"listed-{view.id}"):
                    _row(view)

    drawn(any(view.active for view in views))


def in_order(views: list[JobView]) -> list[JobView]:
    """Return the job that runs, those that wait by their place in the queue, and the last that ended, newest first."""
    active = sorted((view for view in views if view.active), key=lambda view: view.position)
    ended = sorted((view for view in views if not view.active), key=lambda view: -(view.finished or 0))
    return active + ended[:MOST_ENDED]


def _row(view: JobView) -> None:
    if view.active:
        st.progress(view.fraction, text=progress_text(view))
    else:
        st.text(view.label)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        page = view.origin.title if isinstance(view.origin, Place) else ""
        end = "" if view.active else _end(view)
        other = (where := project_of(view.origin)) is not None and where != project()
        study = f"project {where or DEFAULT}" if other else ""
        st.caption(escaped(" · ".join(filter(None, (page, study, end)))), width="content")
        if view.active:
            st.button(
                "Cancelling" if view.cancelling else "Cancel",
                key=f"listed-cancel-{view.id}",
                on_click=cancel,
                args=(view.id,),
                disabled=view.cancelling,
            )
        elif view.status == "done" and isinstance(view.origin, Place):
            _link(view, view.origin)
    if view.status == "failed":
        st.code(view.error, language=None, wrap_lines=True)


def _end(view: JobView) -> str:
    if view.started is None:
        return "cancelled before it began"
    return f"{view.status} after {duration(view.elapsed_s)}"


def _link(view: JobView, place: Place) -> None:
    """Draw the button that leads to what a job made."""
    if st.button("Show result", key=f"listed-show-{view.id}", on_click=_take, args=(view.id, view.kind, place)):
        try:
            st.switch_page(place.path, query_params=dict(place.query))
        except StreamlitPageNotFoundError:  # a page file run alone
            st.rerun()


def _take(job_id: str, kind: str, place: Place) -> None:
    """Make the job this session's own, with its result not yet taken, and open the project and the tab where it was started."""
    go_to(place.project)
    st.session_state[of_project(f"job:{kind}")] = job_id
    st.session_state.pop(of_project(f"taken:{kind}"), None)
    if (
        now := here()
    ) is not None and now.path == place.path:  # a page that is left forgets its tab, and reads the address
        st.session_state.update({key: tab for key, tab in place.query.items() if key in st.session_state})
