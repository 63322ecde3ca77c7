"""What outlives a script run: the process-wide workspace, job runner and model, and the session's choices.

Nothing here is drawn. Torch is imported only by the work that jobs do.
"""

from __future__ import annotations

import atexit
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from vlm_analysis.errors import ModelError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.progress import Progress
from vlm_analysis.workbench.jobs import JobRunner
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation
    from vlm_analysis.evaluation.run.latency import Latency
    from vlm_analysis.models.load import LoadedModel


class ModelSlot:
    """The one loaded model of the process, with the dense evaluations made of it. Only jobs load into it."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self.info: ModelInfo | None = None
        self.dense: dict[str, Evaluation] = {}
        self.latency: Latency | None = None

    @property
    def loaded(self) -> LoadedModel:
        """Return the loaded model; raises ModelError where there is none."""
        if self._loaded is None:
            raise ModelError("No model is loaded. Load one on the Model page.")
        return self._loaded

    def expected(self, fingerprint: str) -> LoadedModel:
        """Return the loaded model if it is still the one a job was started for.

        Raises:
            ModelError: another model was loaded, or this one unloaded, while the job waited.
        """
        if self.info is None or self.info.fingerprint != fingerprint:
            raise ModelError(
                "The model this was started for is no longer loaded. Load it again, or start anew with the one there."
            )
        return self.loaded

    @property
    def fingerprint(self) -> str:
        """Return the loaded model's fingerprint, "" where there is none."""
        return "" if self.info is None else self.info.fingerprint

    def load(self, source: str, options: dict[str, Any], on_progress: Progress) -> LoadedModel:
        """Check that the source would fit in the present model's place, unload that, then load.

        A source that is refused leaves the present model loaded. The garbage collector is told to leave the new one's objects alone.
        """
        from vlm_analysis.models.load import check_source, load_model

        asked = {name: value for name, value in options.items() if name != "max_vision_tokens"}
        check_source(source, **asked, given_back=0 if self._loaded is None else self._loaded.n_bytes)
        self.unload()
        self._loaded = load_model(source, **options, on_progress=on_progress)
        self.info = self._loaded.info
        gc.collect()
        gc.freeze()
        return self._loaded

    def unload(self) -> None:
        """Let go of the model and give its memory back."""
        if self._loaded is None:
            return
        loaded, self._loaded, self.info = self._loaded, None, None
        self.dense.clear()
        self.latency = None
        gc.unfreeze()
        loaded.close()


@st.cache_resource(show_spinner=False)
def _workspace(root: str | None) -> Workspace:
    return Workspace(Path(root) if root else None)


def workspace() -> Workspace:
    """Return the workspace of `STRATA_HOME`, else of the user's home."""
    return _workspace(os.environ.get("STRATA_HOME"))


@st.cache_resource(show_spinner=False, on_release=JobRunner.close)
def runner() -> JobRunner:
    """Return the process-wide job runner; a worker still in torch at exit would abort the process, so exit waits for it."""
    made = JobRunner()
    atexit.register(made.close)
    return made


@st.cache_resource(show_spinner=False)
def model_slot() -> ModelSlot:
    """Return the process-wide place of the one loaded model."""
    return ModelSlot()


@st.cache_resource(show_spinner=False)
def live() -> dict[str, Any]:
    """Return what running jobs show before they end, by the kind of job; a job replaces its entry as a whole, pages only read it."""
    return {}


@st.cache_resource(show_spinner=False, max_entries=12)
def _opened(kind: str, item_id: str, root: str, _item: Item) -> Any:
    return open_item(_item)


def opened(item: Item) -> Any:
    """Return the value behind a saved item, kept open between script runs; callers must not change it."""
    return _opened(item.kind, item.id, str(workspace().root), item)


@st.cache_resource(show_spinner=False)
def last_choices() -> dict[str, Any]:
    """Return what the process remembers for sessions to come: a refresh is a new session, and must not change the work."""
    return {}


def choose(kind: str, item: Item) -> None:
    """Make `item` the one this session works with, and the one a session after a refresh starts with."""
    st.session_state[f"chosen:{kind}"] = last_choices()[kind] = item.id


def chosen(kind: str) -> Item | None:
    """Return the item this session works with: the one chosen, else the last one chosen by anybody, else the newest."""
    for item_id in (st.session_state.get(f"chosen:{kind}", ""), last_choices().get(kind, "")):
        if (found := workspace().find(kind, item_id)) is not None:
            break
    else:
        found = workspace().newest(kind)
    if found is not None:
        st.session_state[f"chosen:{kind}"] = found.id  # from now on this session's own, whatever others save
    return found


def take_result(job_kind: str) -> Item | None:
    """Return the Item that this session's job of the kind made, once, when it is done."""
    job_id = st.session_state.get(f"job:{job_kind}")
    view = runner().get(job_id) if job_id else None
    if view is None or view.status != "done" or st.session_state.get(f"taken:{job_kind}") == job_id:
        return None
    st.session_state[f"taken:{job_kind}"] = job_id
    return view.result if isinstance(view.result, Item) else None


def choose_result(kind: str, job_kind: str) -> None:
    """After a job of this session ended, work with what it made."""
    made = take_result(job_kind)
    if made is not None:
        choose(kind, made)
