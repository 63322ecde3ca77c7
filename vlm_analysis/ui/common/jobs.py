"""Jobs on screen: starting one, its progress with time left and cancel, and its error at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.session import of_project, project, runner
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import duration
from vlm_analysis.workbench.jobs import JobView

POLL_S = 1.0  # between two looks at the line of a job
RESULTS_S = 2.0  # at its results so far, which take the browser longer
_ACTIVE = "active_where_the_page_began"
OF_MODEL = ("load", "unload", "fit")  # kinds of jobs on the one model of the process, which belong to no project


@dataclass(frozen=True)
class Place:
    """Where a job was started: a page's title and file, its address, which tells the open tab, and the project."""

    title: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    project: str = ""


def stand_on(title: str, path: str) -> None:
    """Note which page the session is on, as jobs that are started there belong to it, and what is active where it begins."""
    st.session_state["page"] = Place(title, path)
    st.session_state[_ACTIVE] = frozenset(view.id for view in runner().list() if view.active)


def here() -> Place | None:
    """Return where the session is; None before any page has begun."""
    page: Place | None = st.session_state.get("page")
    return None if page is None else replace(page, query=st.query_params.to_dict(), project=project())


def start(kind: str, label: str, work: Callable[[Progress], Any], *arguments: object) -> None:
    """Start a job as a button's callback; a double click, or a second tab with the same arguments, joins the running one."""
    said = tuple((one.key, one.name) if isinstance(one, Edit) else one for one in arguments)  # its repr is cut
    dedupe = repr((said, project()))
    st.session_state[of_project(f"job:{kind}")] = runner().submit(kind, label, work, dedupe=dedupe, origin=here())


def cancel(job_id: str) -> None:
    """Ask a job to stop, as a button's callback."""
    runner().cancel(job_id)


def current(kind: str) -> JobView | None:
    """Return this session's job of the kind, else the newest of all sessions in the project (after a refresh, in another tab)."""
    own = runner().get(st.session_state.get(of_project(f"job:{kind}"), ""))
    newest = runner().latest(kind, lambda origin: kind in OF_MODEL or project_of(origin) in (None, project()))
    if own is not None and (own.active or newest is None or not newest.active):
        return own
    return newest


def project_of(origin: object) -> str | None:
    """Return the project in which a job was started, by its origin; None where that is not known."""
    return origin.project if isinstance(origin, Place) else None


def job_panel(
    kind: str, left_behind: str = "It left no result.", so_far: Callable[[], None] | None = None
) -> JobView | None:
    """Draw the job of this kind: it updates itself, and the page reruns when it ends. Returns the JobView.

    `left_behind` says what a cancelled job leaves; `so_far` draws partial results while it runs.
    """
    view = current(kind)
    if view is None:
        return view
    if not view.active and view.id in st.session_state.get(_ACTIVE, ()):
        st.rerun()  # it ended while the page was drawn: what is above was looked up too early, and nothing would draw it again
    if view.active:
        st.session_state[of_project(f"job:{kind}")] = view.id  # also after a refresh, its result will be this session's

    @st.fragment(run_every=POLL_S if view.active else None, key=f"panel-{kind}")
    def panel(job_id: str, was_active: bool) -> None:
        now = runner().get(job_id)
        if now is None or (was_active and not now.active):
            st.rerun()
        _draw(now, kind, left_behind)

    panel(view.id, view.active)
    if so_far is not None:  # also when the job ended: what is drawn below stays at its place
        _results(kind, view, so_far)
    return view


def _results(kind: str, view: JobView, so_far: Callable[[], None]) -> None:
    """Draw the results of a running job so far, less often than its line."""

    @st.fragment(run_every=RESULTS_S if view.active else None, key=f"so-far-{kind}")
    def drawn(job_id: str) -> None:
        now = runner().get(job_id)
        if now is not None and now.status == "running":
            so_far()

    drawn(view.id)


def _draw(view: JobView, kind: str, left_behind: str) -> None:
    if view.active:
        left, right = st.columns([6, 1], vertical_alignment="center")
        left.progress(view.fraction, text=progress_text(view))
        right.button(
            "Cancelling" if view.cancelling else "Cancel",
            key=f"cancel-{kind}",
            on_click=cancel,
            args=(view.id,),
            disabled=view.cancelling,
            width="stretch",
        )
    elif view.status == "failed":
        st.error(escaped(view.error))
        if view.traceback:
            with st.expander("For a bug report"):
                st.code(view.traceback)
    elif view.status == "cancelled":
        st.warning(f"{escaped(view.label)}: cancelled after {duration(view.elapsed_s)}. {left_behind}")


def progress_text(view: JobView) -> str:
    """Return what an active job does, and its time left or its place in the queue."""
    if view.status == "queued":
        return f"{escaped(view.label)}: waiting, position {view.position} in the queue"
    time_left = "" if view.seconds_left is None else f" · about {duration(view.seconds_left)} left"
    return f"{escaped(view.label)}: {escaped(view.message or 'starting')}{time_left}"
