"""What single classes need beyond the general rules: settings of their tiny model, and why some cannot be built."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from .build import DROP, N_LAYERS

_QWEN = {"text_config.rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
_GLM = {
    "text_config.rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [4, 2, 2],
        "partial_rotary_factor": 1.0,
    }
}

_GEMMA4 = {
    "text_config.global_head_dim": 32,
}
_INDEXER = {
    "text_config.indexer_n_heads": 2,
    "text_config.indexer_kv_heads": 1,
    "text_config.indexer_head_dim": 16,
    "text_config.indexer_budget": 8,
    "text_config.indexer_compress_ratio": 4,
}

CHANGES: dict[str, dict[str, Any]] = {
    "blip-2": {"image_token_index": 150, "num_query_tokens": 4},
    "chameleon": {"vocabulary_map": {"<image>": 120, "IMGIMGA": 121}},
    "cohere_compass": {
        "text_config.rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
            for kind in ("full_attention", "sliding_attention")
        },
        "text_config.layer_types": ["full_attention", "sliding_attention"] * 3,
    },
    "deepseek_ocr2": {"text_config.mlp_layer_types": ["dense", "sparse"] * 3, "text_config.num_experts_per_tok": 2},
    "diffusion_gemma": {
        "text_config.global_head_dim": 32,
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": 48,
    },
    "dots3_note": {
        "audio_config.adapter_input_size": 32,
        "vision_config.mlp_layer_types": ["dense", "sparse"],
        "vision_config.num_local_experts": 4,
        "text_config.swa_num_attention_heads": 2,
        "text_config.swa_num_key_value_heads": 2,
        "text_config.swa_q_lora_rank": 16,
        "text_config.swa_kv_lora_rank": 16,
        "text_config.swa_head_dim": 32,
        "text_config.swa_qk_nope_head_dim": 16,
        "text_config.swa_v_head_dim": 16,
        "text_config.head_dim": 32,
        "text_config.rope_parameters": DROP,
    },
    "emu3": {"vocabulary_map": {"<image>": 120, "<|visual token 000000|>": 121}},
    "ernie4_5_vl_moe": {
        "text_config.rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 4]},
        "text_config.moe_intermediate_size": [48, 32],
    },
    "gemma4": _GEMMA4 | {"text_config.num_kv_shared_layers": 2},
    "gemma4_unified": _GEMMA4,
    "glm46v": _GLM,
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
    "glm_ocr": _GLM,
    "glmga": _GLM,
    "gemma3n": {"text_config.num_kv_shared_layers": 2, "text_config.intermediate_size": [32, 48, 64, 32, 48, 64]},
    "glm5_next": {"text_config.qk_rope_head_dim": 0, "text_config.head_dim": 0},
    "granite4_vision": {
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[0, 1]],
        "spatial_target_layers": [2, 3],
        "vision_config.hidden_size": 64,
    },
    "hunyuan_vl": {
        "text_config.head_dim": 16,
        "text_config.rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2, 2]},
    },
    "kosmos-2": {"latent_query_num": 4},
    "lfm2_vl": {"text_config.layer_types": ["conv", "full_attention"] * 3, "text_config.full_attn_idxs": [1, 3, 5]},
    "mistral4": {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "rope_parameters.partial_rotary_factor": 1.0},
    "molmo2": {
        "adapter_config.vision_feature_layer": [1, 0],
        "text_config.rope_scaling_layers": [1, 2, 4],
        "text_config.rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "muse_spark": {"audio_config": {"out_hidden_size": 32, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}},
    "nemotron_h_omni": {"text_config.n_groups": 1, "text_config.chunk_size": 4, "text_config.time_step_min": 1e-9},
    "instructblip": {"image_token_index": 150, "num_query_tokens": 4},
    "instructblipvideo": {"video_token_index": 150, "num_query_tokens": 4},
    "inkling2": {"text_config.n_layers_per_attn_res_block": 3},
    "mistral_large4": {"text_config.kv_source_layers": [0, 0, 2, 3, 4, 4]},
    "mllama": {"text_config.cross_attention_layers": [1, 4]},
    "paddleocr_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen2_vl": _QWEN,
    "qwen2_5_omni_thinker": _QWEN | {"vision_start_token_id": 150, "audio_start_token_id": 151},
    "qwen3_omni_moe_thinker": _QWEN | {"vision_start_token_id": 150, "audio_start_token_id": 151},
    "qwen4_exp": _INDEXER
    | {
        "text_config.ple_layer_ids": [1, 3],
        "text_config.ngram_vocab_size_base": 50,
        "text_config.eos_token_id": 2,
        "text_config.ple_embed_dim": 32,
    },
    "step3p7": {"text_config.sliding_window": 4},
    "unlimited_ocr": {"text_config.sliding_window": 2},
}

# The decoder alone is built where the vision tower needs a library that is missing here.
ALONE = {"fast_vlm": "timm", "gemma3n": "timm", "perception_lm": "timm"}

NOT_BUILT = {"evolla": "reads proteins, no images; AutoModelForImageTextToText does not know its configuration"}

_ENCODER_DECODER = "is an encoder-decoder model"
REFUSED = {
    "diffusion_gemma": "it writes by diffusion",
    "florence2": _ENCODER_DECODER,
    "idefics": "its cross-attention blocks stand between the layers",
    "pi0": "it answers with robot actions",
    "pix2struct": _ENCODER_DECODER,
    "pp_formulanet": _ENCODER_DECODER,
    "t5gemma2": _ENCODER_DECODER,
    "udop": _ENCODER_DECODER,
    "vision-encoder-decoder": _ENCODER_DECODER,
}

_STORE, _BEFORE = "KV store", "vision features are added right before it"
LOCKS: dict[str, dict[int, str]] = {
    "gemma3n": {2: _STORE, 3: _STORE},
    "gemma4": {2: _STORE, 3: _STORE},
    "granite4_vision": {1: _BEFORE, 2: _BEFORE, 3: _BEFORE},
    "inkling2": {0: "built without the mixing"},
    "mistral_large4": {0: _STORE, 4: _STORE},
    "qwen4_exp": {0: "n-gram table"},
}

# Layers that vision tokens cannot skip, of the classes that are shown a picture here, and why.
_ALL, _STATE = range(N_LAYERS), "passes tokens on through a state"
VISION_LOCKS: dict[str, tuple[Collection[int], str]] = {
    **dict.fromkeys(("blip-2", "instructblip", "kosmos-2"), (_ALL, "inner language model alone")),
    **dict.fromkeys(("blip", "mllama"), (_ALL, "cross-attention")),
    "git": (_ALL, "stands before the prompt"),
    **dict.fromkeys(("gemma4", "mistral_large4"), (_ALL, "share keys and values")),
    **dict.fromkeys(("glm5_next", "qwen4_exp"), (_ALL, "an indexer chooses")),
    **dict.fromkeys(("lfm2_vl", "minicpmv4_6", "minicpmv4_7", "qwen3_5", "qwen3_5_moe"), ((0, 2, 4), _STATE)),
    "lfm3_vl": ((2, 5), _STATE),
    "nemotron_h_omni": ((2,), _STATE),
}

# Classes that take no second picture in a prompt, by their model or their processor.
ONE_IMAGE = ("git", "instructblip", "kosmos-2")

# What a class cannot show, pruned or dense, and why: (kind, check) -> reason. The day one works, its test fails.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("shieldgemma2", "reload"): "transformers 5.23 does not load what it saves of this class",
    ("unlimited_ocr", "decode"): "its attention treats generated tokens otherwise than prompt tokens",
}

_NEEDS_IMAGE = "runs with an image only; its text columns have noise for one"
NOTES = dict.fromkeys(("blip", "blip-2", "instructblip", "instructblipvideo", "kosmos-2"), _NEEDS_IMAGE) | {
    "nemotron_h_omni": "without the least time step, which transformers 5.23 minds in a whole pass but not when it decodes with a cache",
    "inkling2": "mixes blocks of layers that it counts by position; compared with layers skipped and blocks counted anew",
}

# What families are called by those who use them; the README shows these.
FAMILIES = {
    "aya_vision": "Aya Vision",
    "deepseek_vl": "DeepSeek-VL",
    "gemma3": "Gemma 3",
    "gemma3n": "Gemma 3n",
    "gemma4": "Gemma 4",
    "glm4v": "GLM-4V",
    "granite4_vision": "Granite Vision",
    "idefics2": "Idefics2",
    "idefics3": "Idefics3",
    "internvl": "InternVL",
    "lfm2_vl": "LFM2-VL",
    "llama4": "Llama 4",
    "llava": "LLaVA",
    "llava_next": "LLaVA-NeXT",
    "llava_onevision": "LLaVA-OneVision",
    "minicpmv4_6": "MiniCPM-V",
    "mistral3": "Mistral 3",
    "mllama": "Mllama (Llama 3.2 Vision)",
    "molmo2": "Molmo2",
    "nemotron_h_omni": "Nemotron-H",
    "ovis2": "Ovis2",
    "paligemma": "PaliGemma",
    "qwen2_5_vl": "Qwen2.5-VL",
    "qwen2_vl": "Qwen2-VL",
    "qwen3_5": "Qwen3.5",
    "qwen3_vl": "Qwen3-VL",
    "qwen3_vl_moe": "Qwen3-VL-MoE",
    "smolvlm": "SmolVLM",
}
KINDS = dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
PRUNED = [kind for kind in KINDS if kind not in REFUSED and kind not in NOT_BUILT]
