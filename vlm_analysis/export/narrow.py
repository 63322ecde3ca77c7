"""Narrow layers in a checkpoint: cut where a stock class builds them so, else as zeros in weights of the dense shapes."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.narrow import SMALL, ZEROED, Narrow
from vlm_analysis.errors import ExportError


def masked_weights(edit: Edit) -> Edit:
    """Return the edit with zeros in place of cut weights: a stock class loads it, and it is as large as the dense model."""
    changes = (replace(change, form=ZEROED) if isinstance(change, Narrow) else change for change in edit.changes)
    return replace(edit, changes=tuple(changes))


def check_builds(view: Any, edit: Edit) -> None:
    """Raise ExportError where the class of an edited model does not build layers as narrow as the edit's from its configuration.

    Some compute the size of a head from the number of heads, as Qwen2.5-VL does when it is built and DeepSeek-OCR-2 when its configuration
    is read. So the configuration is read again, and the model built without numbers; what cannot be built so is left to the proof.
    """
    if not any(isinstance(change, Narrow) and change.form == SMALL for change in edit.changes):
        return
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False):
            built = type(view)._from_config(type(view.config).from_dict(copy.deepcopy(view.config.to_dict())))
    except (AttributeError, TypeError, ValueError, RuntimeError, KeyError):
        return
    state, wanted = built.state_dict(), view.state_dict()
    for name, tensor in wanted.items():
        if name in state and state[name].shape != tensor.shape:
            units = "attention groups" if "att" in name else "MLP neurons"
            raise ExportError(
                f"This edit cannot be exported with cut weights: expected {name} of {tuple(tensor.shape)}, got "
                f"{tuple(state[name].shape)} from {type(view).__name__}, as it computes them from its configuration. Export it with masked "
                f"weights (masked=True, --masked), or keep all {units}."
            )
