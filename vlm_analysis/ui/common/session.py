"""State that outlives a script run: the process-wide workspace, job runner and model, and the session's choices.

Nothing here is drawn. Torch is imported only by the work that jobs do.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.workbench.bench import Bench
from vlm_analysis.workbench.comparisons import Unfinished
from vlm_analysis.workbench.jobs import JobRunner
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

PROJECT = "project"  # the project that this session works in; "" or none for the default one
WORK_OF = "work_of"  # the model that was loaded when another one's work was chosen, and that other one; fingerprints


@st.cache_resource(show_spinner=False)
def _workspace(root: str | None, project: str) -> Workspace:
    return Workspace(Path(root) if root else None, project)


def workspace() -> Workspace:
    """Return this session's project in the workspace of `STRATA_HOME`, else of the user's home."""
    return _workspace(os.environ.get("STRATA_HOME"), project())


def project() -> str:
    """Return the name of the project that this session works in; "" for the default one."""
    return str(st.session_state.get(PROJECT, ""))


def of_project(name: str) -> str:
    """Return the key of the session under which something is kept for its project alone."""
    return f"{name}@{project()}" if project() else name


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
def _last_choices(project: str) -> dict[str, Any]:
    return {}


def last_choices() -> dict[str, Any]:
    """Return what the process remembers of this project for sessions to come: a refresh is a new one, and must not change the work."""
    return _last_choices(project())


def shown_model() -> str | None:
    """Return the fingerprint of the model whose work the pages show: the loaded one, unless another was chosen since it was loaded.

    None where no model is loaded: then the pages show all models' work.
    """
    loaded = model_slot().fingerprint
    since, other = st.session_state.get(WORK_OF, ("", ""))
    return (other if since == loaded else loaded) or None


def look_at(model: str | None) -> None:
    """Show the work of this model on all pages until another one is loaded; nothing changes where none is loaded, or for None."""
    if model is not None and shown_model() not in (None, model):
        st.session_state[WORK_OF] = model_slot().fingerprint, model


def is_shown(work: Item | Unfinished) -> bool:
    """Return whether this is work of the model that is shown, or of no model."""
    return _belongs(work, *_shown_size())


def shown(items: Iterable[Item]) -> list[Item]:
    """Return those of the items that are work of the model that is shown, or of no model."""
    model, n_layers = _shown_size()
    return [item for item in items if _belongs(item, model, n_layers)]


def _shown_size() -> tuple[str | None, int | None]:
    """Return the fingerprint of the model that is shown and, where it is loaded, its number of layers."""
    model, info = shown_model(), model_slot().info
    return model, info.n_layers if info is not None and info.fingerprint == model else None


def _belongs(work: Item | Unfinished, model: str | None, n_layers: int | None) -> bool:
    if model is None or work.model == model:
        return True
    if work.model is not None or not isinstance(work, Item):
        return False
    return n_layers is None or work.details.get("n_layers") in (None, n_layers)


def shown_items(kind: str) -> list[Item]:
    """Return the saved items of a kind that the pages show, newest first: what pages list, and other models' work left out."""
    return shown(workspace().items(kind))


def choose(kind: str, item: Item) -> None:
    """Make `item` the one this session works with, and the one a session after a refresh starts with, while its model is shown."""
    for key in _places(kind, item.model):
        st.session_state[of_project(f"chosen:{key}")] = last_choices()[key] = item.id


def chosen(kind: str, among: list[Item] | None = None) -> Item | None:
    """Return the item this session works with: the chosen one, else the last one chosen in any session, else the newest.

    It is one of the kind, or one `among` others, newest first; and of the model that is shown.
    """
    items, keys = shown_items(kind) if among is None else shown(among), _places(kind, shown_model())
    known = [st.session_state.get(of_project(f"chosen:{key}"), "") for key in keys]
    known += [last_choices().get(key, "") for key in keys]
    by_id = {item.id: item for item in items}
    item = next((by_id[item_id] for item_id in known if item_id in by_id), next(iter(items), None))
    if item is not None:
        for key in keys:
            st.session_state[of_project(f"chosen:{key}")] = (
                item.id
            )  # from now on this session's own, whatever others save
    return item


def _places(kind: str, model: str | None) -> list[str]:
    """Return under which names a choice is kept: the last one, and the last one of the model."""
    return [kind] if model is None or kind == "prompts" else [kind, f"{kind}:{model}"]


def take_result(job_kind: str) -> Item | None:
    """Return the Item that this session's job of the kind made, once, when it is done; the loaded model's is shown from then on."""
    job_id, taken = st.session_state.get(of_project(f"job:{job_kind}")), of_project(f"taken:{job_kind}")
    view = runner().get(job_id) if job_id else None
    if view is None or view.status != "done" or st.session_state.get(taken) == job_id:
        return None
    st.session_state[taken] = job_id
    if not isinstance(view.result, Item):
        return None
    if view.result.model == model_slot().fingerprint:
        look_at(view.result.model)
    return view.result


def choose_result(kind: str, job_kind: str) -> None:
    """After a job of this session ended, choose its result."""
    item = take_result(job_kind)
    if item is not None:
        choose(kind, item)
