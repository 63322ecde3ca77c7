"""The FLOPs of a prefill by formula: in the decoder layers, where vision tokens may skip some, and in the layers of the vision encoder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.tower import tower_dropped
from vlm_analysis.edits.skipping import ABSENT, FROZEN, FULL, vision_row
from vlm_analysis.errors import EvaluationError
from vlm_analysis.model_info import ModelInfo


@dataclass(frozen=True)
class Shape:
    """What the FLOPs of a prefill depend on besides the parameters of the layers.

    Attributes:
        n_vision, n_text: vision tokens and all other tokens of a prompt; means over prompts are fractions.
        attention_size: heads times their size, of a layer's queries.
        kv_parameters: parameters of a layer that make keys and values.
    """

    n_vision: float
    n_text: float
    attention_size: int
    kv_parameters: int


@dataclass(frozen=True)
class EncoderShape:
    """What the FLOPs of the vision encoder depend on besides the parameters of its layers; means over prompts.

    Attributes:
        tokens: (n_tower,) tokens of a prompt's pictures that run through each layer, padding included.
        attention: (n_tower,) in each layer, numbers of a query, all heads together, times pairs of a query and a key that it sees.
    """

    tokens: tuple[float, ...]
    attention: tuple[float, ...]


def prefill_flops(model: ModelInfo, edit: Edit, shape: Shape) -> tuple[float, float]:
    """Return the FLOPs of a prefill in the decoder layers of the dense and of the edited model, vision tokens sliced.

    Two FLOPs for each parameter of a layer and token that runs through it, and four for each pair of query and key and number of
    a query; a part of a layer that is left out counts for nothing. Where vision tokens are frozen they run through what makes keys and
    values. Of layers with experts all count. Vision encoder (see `encoder_flops`) and head are not in it. Vision tokens stand before the
    text (our choice; it matters in frozen layers only).

    Raises:
        EvaluationError: the parameters of the layers were not counted.
    """
    parameters, does, gone = model.layer_parameters, vision_row(edit), set(edit.gone)
    if len(parameters) != edit.n_layers:
        raise EvaluationError(f"The parameters of {model.name}'s layers are not known. Load the model.")
    saved, shares = Counter[int](), dict[int, float]()
    for change in edit.changes:
        saved.update(change.saved_by_layer(model))
        shares |= change.attention_shares(model)
    whole = sum(_layer_flops(count, FULL, shape) for count in parameters)
    left = sum(
        _layer_flops(count - saved[layer], does[layer], shape, shares.get(layer, 1.0))
        for layer, count in enumerate(parameters)
        if layer not in gone
    )
    return whole, left


def encoder_flops(model: ModelInfo, edit: Edit, shape: EncoderShape) -> tuple[float, float]:
    """Return the FLOPs of a prefill in the layers of the vision encoder of the dense and of the edited model.

    They are counted as those of decoder layers: two for each parameter and token, four for each number of a query and key that it sees.
    What stands before, between and behind the layers is not in it. That biases and norms count as other parameters do is our choice.

    Raises:
        EvaluationError: the parameters of so many layers were not counted.
    """
    parameters = () if model.tower is None else model.tower.layer_parameters
    if not len(parameters) == len(shape.tokens) == len(shape.attention):
        raise EvaluationError(
            f"The FLOPs of a vision encoder cannot be told: expected the parameters of {len(shape.tokens)} layers, got those of "
            f"{len(parameters)}. Load the model."
        )
    by_layer = [
        2 * count * tokens + 4 * attention
        for count, tokens, attention in zip(parameters, shape.tokens, shape.attention, strict=True)
    ]
    whole = sum(by_layer)
    return whole, whole - sum(by_layer[layer] for layer in tower_dropped(edit.changes))


def _layer_flops(parameters: int, what: str, shape: Shape, share: float = 1.0) -> float:
    """Return the FLOPs of a layer with so many parameters, and with this share of its attention groups."""
    text, seen, size = shape.n_text, shape.n_vision, share * shape.attention_size
    if what == ABSENT:
        return 2 * parameters * text + 4 * size * _pairs(text)
    if what == FROZEN:
        pairs = _pairs(text) + text * seen
        return 2 * (parameters * text + share * shape.kv_parameters * seen) + 4 * size * pairs
    return 2 * parameters * (text + seen) + 4 * size * _pairs(text + seen)


def _pairs(n_tokens: float) -> float:
    """Return the pairs of a query and a key that it sees under a causal mask."""
    return n_tokens * (n_tokens + 1) / 2
