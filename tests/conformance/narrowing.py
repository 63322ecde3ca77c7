"""Which layers of a class can be made narrow, and that cut weights give what masked activations give."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from vlm_analysis import Edit, Narrow, apply_edit
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers, layer_info
from vlm_analysis.models.widths import has_experts

from .build import N_LAYERS
from .checks import Inputs, cached, logits, text_inputs, uncached
from .rows import EXCEPTIONS

# Layers whose neurons and whose attention groups can be cut, of the classes in which not all can: numbers of both.
NARROW: dict[str, tuple[int, int]] = {
    "aria": (0, 6),
    "blip": (0, 0),
    "chameleon": (6, 0),
    "deepseek_ocr2": (3, 6),
    "dots3_note": (3, 0),
    "ernie4_5_vl_moe": (3, 6),
    "fuyu": (6, 0),
    "gemma3n": (6, 0),
    "gemma4": (6, 0),
    "git": (0, 0),
    "glm4v_moe": (1, 6),
    "glm5_next": (3, 0),
    "inkling2": (0, 0),
    "inkling_mm_model": (0, 0),
    "kimi_k25": (3, 0),
    "kosmos-2": (0, 0),
    "kosmos-2.5": (0, 6),
    "lfm2_vl": (6, 3),
    "lfm3_vl": (6, 4),
    "llama4": (0, 6),
    "minicpm_ocr": (6, 3),
    "minicpmv4_6": (6, 3),
    "minicpmv4_7": (6, 3),
    "minimax_m3_vl": (0, 6),
    "mistral4": (0, 0),
    "mistral_large4": (3, 0),
    "mllama": (6, 4),
    "muse_spark": (0, 6),
    "nemotron_h_omni": (2, 2),
    "qwen3_5": (6, 3),
    "qwen3_5_moe": (0, 3),
    "qwen3_omni_moe_thinker": (0, 6),
    "qwen3_vl_moe": (0, 6),
    "qwen4_exp": (0, 0),
    "step3p7": (3, 6),
    "unlimited_ocr": (3, 6),
}

_MLP, _ATTENTION = ("down_proj", "w2", "fc2", "dense_4h_to_h"), ("o_proj", "out_proj")  # what writes into the stream
N_GROUPS = 2  # of every tiny model


# Classes that are refused with fewer groups: they compute the size of a head from the number of heads, or have heads of two sizes, which
# `fit_config` writes no number for.
OF_ONE_SIZE = (
    "blip-2",
    "deepseek_ocr2",
    "gemma4_unified",
    "glm46v",
    "glm4v",
    "glmga",
    "instructblip",
    "instructblipvideo",
    "kosmos-2.5",
    "qwen2_5_vl",
    "qwen2_vl",
    "unlimited_ocr",
)


def narrow_mark(kind: str) -> str:
    """Return the mark of a class: ✓ where all layers can be narrow, – where none can, else numbers of layers: neurons / groups."""
    found = NARROW.get(kind, (N_LAYERS, N_LAYERS))
    return {(N_LAYERS, N_LAYERS): "✓", (0, 0): "–"}.get(found, f"{found[0]} / {found[1]}")


def narrow_edits(model: Any) -> list[Edit]:
    """Return edits that keep a half of what can be cut in all layers, small and zeroed; none where nothing can."""
    widths = layer_info(model).widths
    neurons = {layer: range(layer % 2, width.neurons, 2) for layer, width in enumerate(widths) if width.neurons}
    groups = {layer: [layer % width.kv_groups] for layer, width in enumerate(widths) if width.kv_groups}
    if not neurons and not groups:
        return []
    return [Edit(N_LAYERS, (Narrow(neurons, groups, form=form),)) for form in ("small", "zeroed")]


def refused_changes(model: Any) -> Iterator[tuple[Narrow, str]]:
    """Yield for each layer that stays whole, in its MLP or its attention, a change of it and the reason why it is refused."""
    for layer, width in enumerate(layer_info(model).widths):
        if width.mlp_locked:
            yield Narrow({layer: [0]}), width.mlp_locked
        if width.attention_locked:
            yield Narrow({}, {layer: [0]}), width.attention_locked


def masked_by_hand(model: Any, edit: Edit, inputs: Inputs) -> torch.Tensor:
    """Return the logits in float64 of a model whose projections into the stream do not see what goes.

    In float32 of a model with experts: torch multiplies groups of matrices in no other precision.
    """
    double, (change,) = copy.deepcopy(model), edit.changes
    assert isinstance(change, Narrow)
    precision = torch.float32 if any(map(has_experts, find_decoder_layers(model))) else torch.float64
    if precision is torch.float64:
        double.double()
    given = {name: value.to(precision) if value.is_floating_point() else value for name, value in inputs.items()}
    layers = find_decoder_layers(double)
    for pairs, names, n_units in ((change.neurons, _MLP, 0), (change.kv_groups, _ATTENTION, N_GROUPS)):
        for number, kept in pairs:
            found = next(one for name, one in layers[number].named_modules() if name.rpartition(".")[2] in names)
            found.register_forward_pre_hook(_seeing(kept, found.in_features // n_units if n_units else 1))
    return logits(double, given)


def _seeing(kept: Any, size: int) -> Any:
    columns = [unit * size + column for unit in kept for column in range(size)]
    return lambda _, args: (torch.zeros_like(args[0]).index_copy(-1, torch.tensor(columns), args[0][..., columns]),)


def check_narrow(kind: str, model: Any) -> str:
    """Return the mark of a class, after checking it."""
    widths, inputs = layer_info(model).widths, text_inputs(kind)
    assert all(bool(width.neurons) != bool(width.mlp_locked) for width in widths)
    assert all(bool(width.kv_groups) != bool(width.attention_locked) for width in widths)
    numbers = sum(bool(width.neurons) for width in widths), sum(bool(width.kv_groups) for width in widths)
    assert numbers == NARROW.get(kind, (N_LAYERS, N_LAYERS))
    dense = logits(model, inputs)
    edits = narrow_edits(model)
    wanted = masked_by_hand(model, edits[0], inputs) if edits else dense
    decodes = (kind, "decode") not in EXCEPTIONS
    told = wanted.abs() < 1e30  # Chameleon forbids some tokens by the least number there is
    for edit in edits:
        view = apply_edit(model, edit)
        found = logits(view, inputs)
        assert float((found.double() - wanted)[told].abs().max()) <= 1e-5 * max(1.0, float(wanted[told].abs().max()))
        assert float((found - dense).abs().max()) > 1e-3
        assert not decodes or cached(view, inputs) == uncached(view, inputs)
    for change, reason in refused_changes(model):
        with pytest.raises(EditError, match=f"cannot be made narrow: {re.escape(reason)}"):
            apply_edit(model, Edit(N_LAYERS, (change,)))
    assert torch.equal(logits(model, inputs), dense)
    return narrow_mark(kind)
