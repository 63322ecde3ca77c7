"""Widths of saved masks: an address names one by its key."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.address import say_unknown
from vlm_analysis.ui.common.held import narrow_key, narrow_of
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.workbench.workspace import Item

_KEYS = "narrow:keys"  # of saved masks' widths, by item


def saved_narrow(model: ModelInfo, key: str) -> Narrow | None:
    """Return the width of this key, of the newest saved mask of the model that has it; None where there is none, which is said."""
    item = _saved(model, key)
    if item is None:
        say_unknown("width", key)
        return None
    return narrow_of(opened(item))


def is_saved(model: ModelInfo, key: str) -> bool:
    """Return whether a saved mask of the model has the width of this key."""
    return _saved(model, key) is not None


def _saved(model: ModelInfo, key: str) -> Item | None:
    items = (item for item in workspace().items("masks") if item.model == model.fingerprint)
    return next((item for item in items if not item.is_mask and _key_of(item, model.n_layers) == key), None)


def _key_of(item: Item, n_layers: int) -> str:
    """Return the key of a saved mask's width, worked out once a session; "" of one that is damaged, which its page tells."""
    known: dict[str, str] = st.session_state.setdefault(_KEYS, {})
    if item.id not in known:
        known[item.id] = ""
        with suppress(StrataError):
            known[item.id] = narrow_key(narrow_of(opened(item)), n_layers)
    return known[item.id]
