"""Histories of Torch-Pruning (DepGraph, arXiv:2301.12900): `DependencyGraph.pruning_history()` as JSON, read by `load_pruning_history`.

An entry is [module, whether its outputs go, numbers that go]. Numbers are those of the module as the entries before it left it. With the
named rows or columns Torch-Pruning takes all that depends on them: the neurons of an MLP are the outputs of its first projections, or
the inputs of its last.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign.masks import refuse
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.errors import EditError, NoLayerCountError
from vlm_analysis.model_info import ModelInfo

LAYERS, FIRST = "model.language_model.layers", "mlp.gate_proj"
_ROWS, _COLUMNS = ("gate_proj", "up_proj", "fc1", "w1", "w3"), ("down_proj", "fc2", "w2")
_MODULE = re.compile(r"(?:[A-Za-z_]\w*\.)*layers\.(\d{1,6})\.(?:mlp|feed_forward|ffn)\.(\w+)")
_VISION = re.compile(r"(?:^|\.)(?:vision|visual|vit|image|audio)")
_MOST_ENTRIES = 100_000


def of_json(content: Any, model: ModelInfo | None, name: str) -> Edit | None:
    """Return the edit of a history; None where the content is none.

    Raises:
        MaskError: an entry takes something else than MLP neurons of decoder layers, or ones that a layer does not have.
        NoLayerCountError: `model`, whose widths say how many neurons there are, is None.
    """
    if not isinstance(content, list) or not content or not all(map(_is_entry, content)):
        return None
    if model is None or not model.widths:
        raise NoLayerCountError(name, widths=True)
    if len(content) > _MOST_ENTRIES:
        refuse(name, f"at most {_MOST_ENTRIES:,} entries", f"{len(content):,}", "Write what goes in fewer.")
    kept: dict[int, list[int]] = {}
    for module, is_output, numbers in content:
        layer = _layer_of(module, is_output, model, name)
        left = kept.setdefault(layer, list(range(model.widths[layer].neurons)))
        wrong = [number for number in numbers if not is_whole(number) or not 0 <= number < len(left)]
        if wrong or len(set(numbers)) < len(numbers) or len(numbers) == len(left):
            expected = f"different neurons in 0..{len(left) - 1} of layer {layer}, and one that stays"
            refuse(name, expected, wrong or numbers, "Take the history of this model.")
        gone = set(numbers)
        kept[layer] = [neuron for place, neuron in enumerate(left) if place not in gone]
    return Edit(model.n_layers, (Narrow(kept),), model=model, provenance={"opened_from": "Torch-Pruning"})


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 3
        and isinstance(entry[0], str)
        and isinstance(entry[1], bool)
        and isinstance(entry[2], list)
    )


def _layer_of(module: str, is_output: bool, model: ModelInfo, name: str) -> int:
    """Return the layer whose neurons an entry takes; refuses others."""
    found = None if _VISION.search(module) else _MODULE.fullmatch(module)
    if found is None or found[2] not in (_ROWS if is_output else _COLUMNS):
        got = f"{'outputs' if is_output else 'inputs'} of {module}"
        refuse(
            name,
            "neurons of the MLPs of decoder layers",
            got,
            "Leave other entries out; what they take is not an edit's.",
        )
    layer = int(found[1])
    if layer >= model.n_layers:
        refuse(name, f"layers 0..{model.n_layers - 1}", f"layer {layer}", "Take the history of this model.")
    if reason := model.widths[layer].mlp_locked:
        refuse(name, "MLPs that can be made narrow", f"layer {layer}: {reason}", "Leave it out.")
    return layer


def edit_to_torch_pruning(edit: Edit, *, layers: str = LAYERS, first: str = FIRST) -> str:
    """Return the history of an edit that makes MLPs narrow, for `load_pruning_history` with the dense model.

    Args:
        edit: with the model that it was made for, whose widths say which neurons go.
        layers: the path of the decoder layers in that model.
        first: the path, in a layer, of a projection whose outputs are the neurons.

    Raises:
        EditError: the edit does something else, or does not know its model's widths.
    """
    narrow = next((change for change in edit.changes if isinstance(change, Narrow)), None)
    if narrow is None or len(edit.changes) > 1 or narrow.kv_groups:
        _cannot("an edit that only makes MLPs narrow", f"one that {edit.words()}")
    if edit.model is None or not edit.model.widths:
        _cannot(
            "an edit that knows its model's widths",
            "one that does not; choose it with make_narrow, or from a new recording",
        )
    entries = [
        [f"{layers}.{layer}.{first}", True, sorted({*range(edit.model.widths[layer].neurons)} - {*kept})]
        for layer, kept in narrow.neurons
    ]
    return json.dumps([entry for entry in entries if entry[2]]) + "\n"


def _cannot(expected: str, got: str) -> NoReturn:
    raise EditError(f"The edit cannot be written for Torch-Pruning: expected {expected}, got {got}.")
