"""Products of weights and gradients in classes with biases and with fused projections, on tiny random models of float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    Glm4vConfig,
    Glm4vForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from vlm_analysis.models.inputs import Encoded
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.widths import Part, find_attention, find_mlp
from vlm_analysis.selection.width.passes import GradientPasses

N_NEURONS, N_GROUPS, ANSWER = 24, 2, (8, 9, 2)
TEXT = {
    "hidden_size": 32,
    "intermediate_size": N_NEURONS,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "num_key_value_heads": N_GROUPS,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
}
VISION = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 32}
TOKENS = {"image_token_id": 48, "video_token_id": 47, "vision_start_token_id": 46, "vision_end_token_id": 45}
CLASSES = [(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), (Glm4vConfig, Glm4vForConditionalGeneration)]


def made(config: Any, kind: Any) -> Any:
    torch.manual_seed(0)
    model = kind(config(text_config=TEXT, vision_config=VISION, **TOKENS)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight + 0.1 * torch.randn_like(weight))  # biases begin as 0
    return model


def product(linear: Any) -> torch.Tensor:
    """Return weight times gradient, with the bias as a column more where there is one."""
    weights = linear.weight * linear.weight.grad
    return weights if linear.bias is None else torch.cat([weights, (linear.bias * linear.bias.grad)[:, None]], dim=1)


def by_hand(layer: Any) -> dict[str, torch.Tensor]:
    mlp, attention = layer.mlp, layer.self_attn
    rows = (
        product(mlp.gate_up_proj)
        if hasattr(mlp, "gate_up_proj")
        else torch.cat([product(mlp.gate_proj), product(mlp.up_proj)])
    )
    neurons = rows.sum(1).reshape(2, -1).sum(0) + (mlp.down_proj.weight * mlp.down_proj.weight.grad).sum(0)
    out = (attention.o_proj.weight * attention.o_proj.weight.grad).sum(0)
    return {"neurons": neurons, "kv_groups": (product(attention.q_proj).sum(1) + out).reshape(N_GROUPS, -1).sum(1)}


@pytest.mark.parametrize(("config", "kind"), CLASSES, ids=["biases of queries", "gate and up in one"])
def test_products_are_those_of_true_weight_gradients_also_with_biases_and_fused_rows(config, kind):
    model = made(config, kind)
    layers = find_decoder_layers(model)
    ids = torch.tensor([[3, 4, 5, 6, 7, *ANSWER]])
    tensors = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    item = Encoded(tensors, np.array([1] * 5 + [2] * 3, np.int8), ANSWER, 0, "x")
    processor = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))
    loaded: Any = SimpleNamespace(name="tiny", model=model, processor=processor, device=ids.device)
    parts: dict[tuple[int, str], Part] = {}
    for at, layer in enumerate(layers):
        for unit, part in (("neurons", find_mlp(layer)), ("kv_groups", find_attention(layer))):
            assert isinstance(part, Part)
            parts[at, unit] = part
    nlls = -model(**tensors).logits[0, 4:7].log_softmax(-1)[range(3), list(ANSWER)]
    for one, sums in zip(nlls, GradientPasses(loaded, [item], parts).of_tokens(), strict=True):
        model.zero_grad()
        one.backward(retain_graph=True)
        for (at, unit), found in sums.items():
            torch.testing.assert_close(found[0], by_hand(layers[at])[unit].detach(), rtol=1e-9, atol=1e-12)
