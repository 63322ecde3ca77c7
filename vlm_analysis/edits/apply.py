"""Applying an edit as a pure function: a view of the model that shares every weight which the edit leaves as it is.

Nothing of the dense model is touched, so there is nothing to undo, and what is evaluated is what is exported.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.view import View, check_config
from vlm_analysis.errors import EditError, MaskError
from vlm_analysis.models.layers import layer_info

M = TypeVar("M", bound=nn.Module)


def apply_edit(model: M, edit: Edit) -> M:
    """Return the edited model, which shares the dense weights; `model` is untouched.

    Args:
        model: a transformers model; it may itself be edited, or spread over devices by accelerate.
        edit: what is done to it.

    Raises:
        EditError: the edit is of another number of layers, or a change cannot be done to this model.
        MaskError: it drops a locked layer, or leaves a stack that cannot be built again.
        ModelError: the decoder layers cannot be found, or a module's forward was replaced by something unknown.
    """
    _check(model, edit)
    view = View(model, [layer for layer, _ in edit.steps.layers])
    for change in edit.changes:
        change.apply(view)
    return view.model


def why_not(model: nn.Module, edit: Edit) -> str:
    """Return why an edit cannot be applied to a model, "" where it can."""
    try:
        _check(model, edit)
        check_config(model, [layer for layer, _ in edit.steps.layers])
    except EditError as error:
        return str(error)
    return ""


def _check(model: nn.Module, edit: Edit) -> None:
    info = layer_info(model)
    if not isinstance(edit, Edit):
        raise EditError(
            f"There is no edit: expected an Edit, got a {type(edit).__name__}. Write PruneMask({info.n_layers}, layers)."
        )
    reason = edit.refuses(info)
    if reason:
        raise (MaskError if edit.is_mask else EditError)(reason)
