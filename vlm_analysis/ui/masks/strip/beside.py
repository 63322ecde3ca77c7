"""What stands beside the strip: what the mask leaves of the model, and what the model keeps of its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.editor import held, narrow, vision
from vlm_analysis.ui.common.inputs import model_is_here
from vlm_analysis.ui.common.sent import Asked, View
from vlm_analysis.ui.common.session import model_slot, opened, workspace
from vlm_analysis.ui.masks.strip.background import Wanted, follow
from vlm_analysis.ui.masks.strip.left import costs_of, key_of
from vlm_analysis.ui.masks.strip.standing import kept_of
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.known import Known, find_known
from vlm_analysis.workbench.workspace import Item

DENSE = "Nothing is dropped: the dense model, which keeps all its answers."
Stamp = tuple[int, ...]


def beside(recording: Recording, edit: Edit, look: View, asked: Asked | None) -> dict[str, Any]:
    """Return costs by layer and the result of the mask; `asked` is what the strip wants to know of it."""
    result = {"words": "", "seconds": None, **_result(recording, edit, look, asked)}
    of = f"{recording.model.fingerprint} {recording.prompts}"
    width = next(iter(held().narrow), "")
    return {"costs": _left(recording), "result": {**result, "of": of, "edit": key_of(edit, width)}}


def _left(recording: Recording) -> dict[str, Any]:
    model, slot, here = recording.model, model_slot(), model_is_here(recording)
    held, latency = slot.held, slot.latency  # a job may unload the model meanwhile
    costs = _costs(str(workspace().root), model.fingerprint, recording.prompts, _stamp("costs"))
    share = latency.layer_ms / latency.total_ms if here and latency is not None else None
    quantised = here and held is not None and held.quantiser is not None
    return costs_of(model, costs, share, quantised=quantised, vision=vision(), narrow=narrow())


def _result(recording: Recording, edit: Edit, look: View, asked: Asked | None) -> dict[str, Any]:
    model, root = recording.model, str(workspace().root)
    item = _prompts(root, recording.prompts, _stamp("prompts"))
    wanted = None
    if item is not None and not edit.is_dense:
        known = _known(root, model, item, _stamp("evaluations", "scores", "scores/*"))
        evaluation = None if known is None else known.evaluation(edit)
        if known is not None and evaluation is not None:
            follow(None, auto=look.auto, rested=False, by_hand=False)
            return _kept(f"{model.fingerprint} {item.id} {edit.key}", evaluation, known.dense, item.name)
        if model_is_here(recording):
            wanted = Wanted(edit, item, recording.n_prompts, model.fingerprint)
    state = follow(
        wanted,
        auto=look.auto,
        rested=asked is not None,
        by_hand=asked is not None and asked.by_hand,
    )
    if wanted is not None:
        return state
    if edit.is_dense:
        return {"state": "dense", "words": DENSE}
    return {"state": "missing", "words": f"Not evaluated. {_missing(recording, item)}"}


def _missing(recording: Recording, prompts: Item | None) -> str:
    """Return the next step to numbers, as plain text."""
    if not model_is_here(recording):
        return f"Load {recording.model.name} on the Model page for numbers."
    return "The recorded prompts are not saved here." if prompts is None else ""


# --- opened once for what lies in the folders now; their times are looked at, no file is -----------------------------------------------


def _stamp(*kinds: str) -> Stamp:
    """Return when the folders of the workspace were last changed."""
    root = workspace().root
    folders = (path for kind in kinds for path in (root.glob(kind) if "*" in kind else [root / kind]))
    return tuple(_changed(path) for path in folders)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_resource(show_spinner=False, max_entries=4)
def _prompts(root: str, prompts: str, stamp: Stamp) -> Item | None:
    return next((item for item in workspace().items("prompts") if item.prompts == prompts), None)


@st.cache_resource(show_spinner=False, max_entries=4)
def _costs(root: str, model: str, prompts: str, stamp: Stamp) -> list[Cost]:
    """Return the costs of a model's masks, newest first; those on these prompts where there are any."""
    here, _ = find_costs(workspace(), model, prompts, opened=opened)
    return here or find_costs(workspace(), model, None, opened=opened)[0]


_BY: dict[str | type[Any], Callable[[Any], Any]] = {
    ModelInfo: lambda model: model.fingerprint,
    Item: lambda item: item.id,
}


@st.cache_resource(show_spinner=False, max_entries=4, hash_funcs=_BY)
def _known(root: str, model: ModelInfo, item: Item, stamp: Stamp) -> Known | None:
    return find_known(workspace(), model.fingerprint, item)


@st.cache_resource(show_spinner=False, max_entries=512)
def _kept(key: str, _evaluation: Evaluation, _dense: Evaluation, name: str) -> dict[str, Any]:
    return kept_of(_evaluation, _dense, name)
