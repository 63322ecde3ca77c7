"""Widths of saved masks: an address names one by its key."""

from __future__ import annotations

from contextlib import suppress

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.address import say_unknown
from vlm_analysis.ui.common.held import narrow_key, narrow_of
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.workbench.details import edit_key, is_mask


def saved_narrow(model: ModelInfo, key: str) -> Narrow | None:
    """Return the width of this key, of the newest saved mask of the model that has it; None where there is none, which is said."""
    for item in workspace().items("masks"):
        if item.model != model.fingerprint or is_mask(item.details):
            continue
        with suppress(StrataError):  # a damaged one is told on its page
            narrow = narrow_of(opened(item))
            if narrow_key(narrow, model.n_layers) == key:
                return narrow
    say_unknown("width", key)
    return None


def is_saved(edit: Edit) -> bool:
    """Return whether an edit is among the saved masks."""
    return any(edit_key(item.details) == edit.key for item in workspace().items("masks"))
