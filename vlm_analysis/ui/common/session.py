"""State that outlives a script run: the process-wide workspace, job runner and model, and the session's choices.

Nothing here is drawn. Torch is imported only by the work that jobs do.
"""

from __future__ import annotations

import atexit
import os
from pathlib import Path
from typing import Any

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.workbench.bench import Bench
from vlm_analysis.workbench.jobs import JobRunner
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace


@st.cache_resource(show_spinner=False)
def _workspace(root: str | None) -> Workspace:
    return Workspace(Path(root) if root else None)


def workspace() -> Workspace:
    """Return the workspace of `STRATA_HOME`, else of the user's home."""
    return _workspace(os.environ.get("STRATA_HOME"))


@st.cache_resource(show_spinner=False, on_release=JobRunner.close)
def runner() -> JobRunner:
    """Return the process-wide job runner; a worker still in torch at exit would abort the process, so exit waits for it."""
    jobs = JobRunner()
    atexit.register(jobs.close)
    return jobs


@st.cache_resource(show_spinner=False)
def model_slot() -> ModelSlot:
    """Return the process-wide slot of the one loaded model."""
    return ModelSlot()


def bench() -> Bench:
    """Return the Bench of the loaded model: a job that is given it runs on this model or not at all."""
    return Bench(model_slot(), workspace())


@st.cache_resource(show_spinner=False)
def live() -> dict[str, Any]:
    """Return what running jobs show before they end, by the kind of job; a job replaces its entry as a whole, pages only read it."""
    return {}


@st.cache_resource(show_spinner=False, max_entries=12)
def _opened(kind: str, item_id: str, root: str, _item: Item) -> Any:
    return open_item(_item)


@st.cache_resource(show_spinner=False)
def unopened() -> dict[tuple[str, str], tuple[Item, str]]:
    """Return the items whose files turned out to be damaged, by kind and id, with the message."""
    return {}


def opened(item: Item) -> Any:
    """Return the value behind a saved item, kept open between script runs; callers must not change it."""
    try:
        value = _opened(item.kind, item.id, str(workspace().root), item)
    except StrataError as error:
        unopened()[item.kind, item.id] = item, f"{item.name}: {error}"
        raise
    unopened().pop((item.kind, item.id), None)
    return value


@st.cache_resource(show_spinner=False)
def last_choices() -> dict[str, Any]:
    """Return what the process remembers for sessions to come: a refresh is a new session, and must not change the work."""
    return {}


def choose(kind: str, item: Item) -> None:
    """Make `item` the one this session works with, and the one a session after a refresh starts with."""
    st.session_state[f"chosen:{kind}"] = last_choices()[kind] = item.id


def chosen(kind: str, among: list[Item] | None = None) -> Item | None:
    """Return the item this session works with: the chosen one, else the last one chosen in any session, else the newest.

    It is one of the kind, or one `among` others, newest first.
    """
    by_id = {item.id: item for item in among or ()}
    for item_id in (st.session_state.get(f"chosen:{kind}", ""), last_choices().get(kind, "")):
        if (item := workspace().find(kind, item_id) if among is None else by_id.get(item_id)) is not None:
            break
    else:
        item = workspace().newest(kind) if among is None else next(iter(among), None)
    if item is not None:
        st.session_state[f"chosen:{kind}"] = item.id  # from now on this session's own, whatever others save
    return item


def take_result(job_kind: str) -> Item | None:
    """Return the Item that this session's job of the kind made, once, when it is done."""
    job_id = st.session_state.get(f"job:{job_kind}")
    view = runner().get(job_id) if job_id else None
    if view is None or view.status != "done" or st.session_state.get(f"taken:{job_kind}") == job_id:
        return None
    st.session_state[f"taken:{job_kind}"] = job_id
    return view.result if isinstance(view.result, Item) else None


def choose_result(kind: str, job_kind: str) -> None:
    """After a job of this session ended, choose its result."""
    item = take_result(job_kind)
    if item is not None:
        choose(kind, item)
