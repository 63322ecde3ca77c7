"""Tiny random models of other families, built from their configurations in a blink."""

from __future__ import annotations

from typing import Any

import torch


def gemma(*, vision_layers: int = 2, layers: int = 6) -> Any:
    """Return a Gemma 3 whose layers alternate between sliding and full attention, with a window shorter than a prompt."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * layers
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 3,
        "query_pre_attn_scalar": 16,
        "layer_types": kinds[:layers],
        "eos_token_id": 63,
        "bos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": vision_layers,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=60,
        boi_token_index=61,
        eoi_token_index=62,
    )
    config._attn_implementation = "eager"
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for layer in model.model.language_model.layers:  # loud enough for each layer to matter
            for parameter in layer.parameters():
                parameter.mul_(4)
    return model


def gemma_layers(model: Any) -> Any:
    return model.model.language_model.layers


def gemma_inputs() -> dict[str, torch.Tensor]:
    """Return a prompt with one image for `gemma`."""
    ids = torch.tensor([[2, 5, 61, 60, 60, 60, 60, 62, 7, 8, 9, 10, 11, 12]])
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "pixel_values": pixels, "token_type_ids": (ids == 60).long()}


def t5() -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    return T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2))


def llama() -> Any:
    """Return a language model without eyes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    )
