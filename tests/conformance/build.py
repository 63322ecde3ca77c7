"""Tiny models of any class, made by shrinking the class's own default configuration.

One table says how small a setting becomes, whatever model it belongs to; what a class needs beyond it stands in `rows.py`.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

VOCABULARY = 160
N_LAYERS = 6
FIRST_SPECIAL = 120  # special tokens of the configuration get numbers from here on; prompts stay below
DROP = object()  # the setting is left out, so that the configuration works it out anew

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "unpadded_vocab_size": VOCABULARY,
    "image_vocab_size": 16,
    "hidden_size": 32,
    "d_model": 32,
    "embed_dim": 32,
    "word_embed_proj_dim": 32,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 48,
    "head_dim": 16,
    "swa_head_dim": 16,
    "global_head_dim": 16,
    "num_attention_heads": 2,
    "num_heads": 2,
    "num_key_value_heads": 2,
    "num_global_key_value_heads": 2,
    "attention_heads": 2,
    "num_hidden_layers": N_LAYERS,
    "num_layers": N_LAYERS,
    "n_layers": N_LAYERS,
    "layers": N_LAYERS,
    "depth": 2,
    "max_position_embeddings": 256,
    "sliding_window": 4,
    "sliding_window_size": 4,
    "attention_chunk_size": 4,
    "max_window_layers": DROP,
    "patch_size": 8,
    "image_size": 32,
    "num_position_embeddings": 16,
    "base_channels": 32,
    "codebook_size": 32,
    "num_embeddings": 32,
    "vision_output_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
    "adapter_in_dim": 32,
    "adapter_out_dim": 32,
    "out_hidden_size": 32,
    "projection_dim": 32,
    "text_hidden_size": 32,
    "query_pre_attn_scalar": 16,
    "deepstack_visual_indexes": [0, 1],
    "fullatt_block_indexes": [1],
    "indexer_types": DROP,
    "no_rope_layers": DROP,
    "moe_layers": DROP,
    "layer_rope_theta": DROP,
    "kv_source_layers": DROP,
    "per_layer_config": DROP,
    "activation_sparsity_pattern": DROP,
    "rope_scaling_layers": DROP,
    "number_of_conv_states": DROP,
    "id2label": DROP,
    "label2id": DROP,
    "mrope_section": [4, 2, 2],
    "attn_implementation": DROP,
    "dtype": "float32",
    "transformers_version": DROP,
    "rms_norm_eps": 1e-5,
    "time_step_limit": DROP,
}
PATTERNS: tuple[tuple[str, Any], ...] = (
    (r"(num_local_|num_|n_routed_|moe_num_)experts$", 4),
    (r"(num_experts_per_tok|top_k_experts|moe_k|moe_topk|moe_top_k)$", 2),
    (r"(n_group|topk_group)$", 1),
    (r".*shared_experts?$", 1),
    (r".*intermediate_size.*", 48),
    (r".*(ffn_dim|mlp_dim|d_ff|hidden_dim|expert_dim)$", 48),
    (r".*_lora_rank$", 16),
    (r"(qk_nope|qk_rope|v|d|qk)_head_dim$", 16),
    (r".*_heads$", 2),
    (r".*_hidden_size$", 32),
    (r"(encoder|decoder)_layers$", 2),
    (r".*max_position_embeddings$", 256),
)
VISION_SMALL: dict[str, Any] = {
    "layer_types": DROP,
    "mlp_layer_types": DROP,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "layers": 2,
    "intermediate_layers_indices": [0],
}
_TOKEN = re.compile(r".*(_token_id|_token_index|_token_ids)$")


def tiny_config(kind: str, changes: dict[str, Any] | None = None) -> Any:
    """Return the default configuration of a model type, shrunk, with `changes` (dotted names) applied."""
    with _quiet():
        settings = CONFIG_MAPPING[kind]().to_dict()
        small = _Shrinker().shrink(settings, vision=False)
        for name, value in (changes or {}).items():
            _set(small, name.split("."), value)
        return CONFIG_MAPPING[kind](**small)


def tiny_model(kind: str, changes: dict[str, Any] | None = None, *, alone: bool = False) -> Any:
    """Return a seeded float32 model of the class that AutoModelForImageTextToText builds for a model type.

    `alone` builds the decoder only, as a language model: for classes whose vision tower needs a missing library.
    """
    config = tiny_config(kind, changes)
    config = config.get_text_config(decoder=True) if alone else config
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    with _quiet():
        model = (AutoModelForCausalLM if alone else AutoModelForImageTextToText).from_config(config)
    model = model.float().eval()
    spread(model)
    return model


@torch.no_grad()
def spread(model: Any) -> None:
    """Give every weight a size at which each layer matters; biases and scales are stirred a little."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        if parameter.dim() > 1:
            parameter.copy_(noise * (1.5 / max(1, parameter.shape[-1]) ** 0.5 if "embed" not in name else 0.1))
        else:
            parameter.add_(noise, alpha=0.1)


class _Shrinker:
    """Walks a configuration's settings; special tokens of one name get one number, wherever they stand."""

    def __init__(self) -> None:
        self._tokens: dict[str, int] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

    def shrink(self, settings: dict[str, Any], *, vision: bool) -> dict[str, Any]:
        small: dict[str, Any] = {}
        for name, value in settings.items():
            new = self._value(name, value, vision)
            if new is not DROP:
                small[name] = new
        return small

    def _value(self, name: str, value: Any, vision: bool) -> Any:
        if not isinstance(name, str) or value is None or isinstance(value, bool):
            return value
        if isinstance(value, dict) and SMALL.get(name) is not DROP:
            inside = vision or any(word in name for word in ("vision", "audio", "qformer", "encoder", "vq_"))
            return self.shrink(value, vision=inside)
        if _TOKEN.match(name):
            token = self._tokens.setdefault(name.removesuffix("s"), FIRST_SPECIAL + len(self._tokens))
            return [token] if isinstance(value, list) and value else (value if isinstance(value, list) else token)
        if vision and name in VISION_SMALL:
            return VISION_SMALL[name]
        if name in ("layer_types", "mlp_layer_types", "layers_block_type"):
            return _kinds(value)
        if name in SMALL:
            keeps = isinstance(value, list) and not isinstance(SMALL[name], list) and SMALL[name] is not DROP
            return value if keeps else SMALL[name]
        if isinstance(value, int):
            return next((small for pattern, small in PATTERNS if re.match(pattern, name)), value)
        return value


def _kinds(kinds: list[str]) -> list[str]:
    """Return a short list with every kind of a long one, taking turns and ending with the kind the long one ends with."""
    found = sorted(set(kinds), key=lambda kind: (kind == kinds[-1], kinds.index(kind)))
    return [found[(index - N_LAYERS) % len(found)] for index in range(N_LAYERS)]


def _set(settings: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        settings = settings.setdefault(name, {})
    if value is DROP:
        settings.pop(path[-1], None)
    else:
        settings[path[-1]] = value


@contextlib.contextmanager
def _quiet() -> Any:
    """Default configurations of some classes warn about their own defaults; that says nothing about pruning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
