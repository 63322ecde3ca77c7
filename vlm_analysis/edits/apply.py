"""Apply an edit as a pure function: return a view of the model that shares every weight that the edit does not change.

The dense model is not changed, so there is nothing to undo, and what is evaluated is what is exported.
"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from vlm_analysis.edits.edit import Edit, check_edit
from vlm_analysis.edits.view import Copies, View, check_config
from vlm_analysis.errors import EditError, MaskError, ModelError
from vlm_analysis.models.layers import find_decoder_layers, find_decoder_path, layer_info, whole_layer_info

M = TypeVar("M", bound=nn.Module)


def apply_edit(model: M, edit: Edit, *, copies: Copies | None = None) -> M:
    """Return the edited model, which shares the dense weights; `model` is untouched.

    Args:
        model: a transformers model; it may itself be edited, or spread over devices by accelerate.
        edit: the changes to apply.
        copies: modules for many masks of one model to share (see `View`): of two masks, those that keep a layer at the same place have
            one copy of it. What is put on it is on all of them. Only masks take from it.

    Raises:
        EditError: the edit is of another number of layers, or a change cannot be applied to this model.
        MaskError: it drops a locked layer, or leaves a stack of layers that cannot be rebuilt.
        ModelError: the decoder layers cannot be found, a module's forward was replaced by something unknown, or a change wrote
            into the dense model.
    """
    _check(model, edit)
    before = _touched_sums(model, edit)
    view = View(model, [layer for layer, _ in edit.steps.layers], copies if edit.is_mask else None)
    for change in edit.changes:
        change.apply(view)
    if before != _touched_sums(model, edit):
        raise ModelError(
            f"The edit changed the dense model itself: expected changes to the view's own tensors ({edit.words()}), got other weights "
            "in the dense model. Give a module its own tensor with View.own before changing it, and load the model again."
        )
    return view.model


def why_not(model: nn.Module, edit: Edit) -> str:
    """Return why an edit cannot be applied to a model, "" where it can."""
    try:
        _check(model, edit)
        check_config(model, [layer for layer, _ in edit.steps.layers])
    except EditError as error:
        return str(error)
    return ""


def _touched_sums(model: nn.Module, edit: Edit) -> dict[str, float]:
    """Return the sum of each dense tensor that a change of this edit could write to by mistake; empty for an edit that only drops."""
    owning = [change for change in edit.changes if change.owns_tensors]
    if edit.is_mask or not owning:
        return {}
    path, layers = find_decoder_path(model)
    touched = sorted({layer for change in owning for layer, text in change.layers.items() if text is not None})
    parts: list[tuple[str, nn.Module]] = [(f"{path}.{layer}", layers[layer]) for layer in touched]
    if any(change.before or change.after for change in owning):
        parts = [("", model)]
    tensors = ((f"{part}.{name}", tensor) for part, module in parts for name, tensor in module.named_parameters())
    return {
        name: float(tensor.detach().double().abs().sum()) for name, tensor in tensors if tensor.device.type != "meta"
    }


def _check(model: nn.Module, edit: Edit) -> None:
    check_edit(edit, len(find_decoder_layers(model)))
    reason = edit.refuses(whole_layer_info(model) if edit.is_mask else layer_info(model))
    if reason:
        raise (MaskError if edit.is_mask else EditError)(reason)
