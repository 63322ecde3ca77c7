"""How each class is shown a picture: its image processor, its settings, the mark in the prompt, and what its tiny model changes."""

from __future__ import annotations

from typing import Any

import transformers

WORDS = 100
SPECIAL = {
    "image_token": "<image>",
    "video_token": "<video>",
    "boi_token": "<boi>",
    "eoi_token": "<eoi>",
    "vision_start_token": "<vision>",
    "vision_end_token": "</vision>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<image>",
    "image_boundary_token": "<edge>",
    "image_break_token": "<break>",
    "image_end_token": "<end>",
    "image_patch_token": "<|IMG_PATCH|>",
    "fake_image_token": "<fake>",
    "global_image_token": "<global>",
    "audio_token": "<audio>",
    "boa_token": "<boa>",
    "eoa_token": "<eoa>",
    "sep_token": "</s>",
    "image_start_token": "<img>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<id>",
    "image_id_end_token": "</id>",
    "video_start_token": "<film>",
    "video_end_token": "</film>",
    "atom_token": "<IMG_ATOM>",
    "atoms_start_token": "<IMG_START>",
    "atoms_end_token": "<IMG_END>",
    "grid_token": "<IMG_GRID>",
    "speaker_token": "|SPEAKER|",
    "newline_token": "|NEWLINE|",
    "cohere_image_token": "<|IMAGE_PAD|>",
}
NUMBERS = {name: WORDS + 3 + index for index, name in enumerate(dict.fromkeys(SPECIAL.values()))}
IMAGE = NUMBERS["<image>"]
TOKENS = {
    "image_token_id": IMAGE,
    "image_token_index": IMAGE,
    "video_token_id": NUMBERS["<video>"],
    "vision_start_token_id": NUMBERS["<vision>"],
    "vision_end_token_id": NUMBERS["</vision>"],
}
_SIZE = {"height": 32, "width": 32}
_PATCHES = {"patch_size": 8, "size": {"shortest_edge": 32 * 32, "longest_edge": 32 * 32}}
_QWEN = ("Qwen2VLImageProcessorPil", _PATCHES | {"merge_size": 2}, {}, "<vision><image></vision>", {})
_GOT = {"size": _SIZE, "crop_to_patches": False}
_PAIRS = {"vision_config.patch_size": [8, 8], "vision_config.image_size": [32, 32]}
_LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_CLIP = {"size": {"shortest_edge": 32}, "crop_size": _SIZE}

_SPLIT = {"image_grid_pinpoints": [[32, 64], [64, 32]]}
_MERGED = _PATCHES | {"merge_size": 2}
_WHOLE = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": False}
_MINICPM = {"patch_size": 8, "scale_resolution": 64, "slice_mode": False}
_MINICPMV = ("MiniCPMV4_6ImageProcessorPil", _MINICPM, {}, "<image>", {})
_BLIP = ("BlipImageProcessorPil", {"size": _SIZE})
_GLM = ("Glm46VImageProcessorPil", _PATCHES, {}, "<vision><image></vision>", {})
_COHERE = {"image_token_id": NUMBERS["<|IMAGE_PAD|>"]}
_AYA = {
    "patch_size": 8,
    "img_size": 32,
    "downsample_factor": 2,
    "img_patch_token": "<image>",
    "image_token": "<pic>",
}
_CODES = {f"IMGIMG{''.join(chr(ord('A') + int(digit)) for digit in str(code))}Z": 200 + code for code in range(32)}
_GEMMA4 = {
    "model_type": "gemma4_vision",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "global_head_dim": 16,
    "patch_size": 8,
    "pooling_kernel_size": 2,
    "position_embedding_size": 64,
    "default_output_length": 70,
}
_ATOMS = {
    "image_token_id": NUMBERS["<IMG_ATOM>"],
    "visual_indicator_token_ids": [NUMBERS[name] for name in ("<IMG_START>", "<IMG_END>", "<IMG_GRID>")],
}

# kind -> PIL image processor, its settings, the processor's settings, how a prompt shows an image, changes of the tiny model
IMAGES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str, dict[str, Any]]] = {
    "deepseek_vl": ("DeepseekVLImageProcessorPil", {"size": _SIZE}, {"num_image_tokens": 16}, "<image>", {}),
    "exaone4_5": _QWEN,
    "gemma3": (
        "Gemma3ImageProcessorPil",
        {"size": _SIZE},
        {"image_seq_length": 4},
        "<boi>",
        {"mm_tokens_per_image": 4},
    ),
    "glm4v": ("Glm4vImageProcessorPil", _PATCHES, {}, "<vision><image></vision>", {}),
    "glm4v_moe": ("Glm4vImageProcessorPil", _PATCHES, {}, "<vision><image></vision>", {}),
    "glm46v": _GLM,
    "got_ocr2": ("GotOcr2ImageProcessorPil", _GOT, {}, "<image>", {}),
    "idefics2": (
        "Idefics2ImageProcessorPil",
        {"size": {"shortest_edge": 32, "longest_edge": 32}},
        {"image_seq_len": 64},
        "<image>",
        {},
    ),
    "idefics3": (
        "Idefics3ImageProcessorPil",
        _WHOLE,
        {"image_seq_len": 4},
        "<image>",
        {},
    ),
    "internvl": ("GotOcr2ImageProcessorPil", _GOT, {"image_seq_length": 4}, "<image>", _PAIRS),
    "janus": ("JanusImageProcessorPil", {"size": _SIZE}, {"num_image_tokens": 16}, "<image>", {}),
    "lfm3_vl": _QWEN,
    "lighton_ocr": (
        "PixtralImageProcessorPil",
        {"patch_size": 8, "size": {"longest_edge": 32}},
        {"patch_size": 8},
        "<image>",
        {},
    ),
    "llava": ("CLIPImageProcessorPil", _CLIP, _LLAVA, "<image>", {}),
    "llava_next": (
        "LlavaNextImageProcessorPil",
        _CLIP | _SPLIT,
        _LLAVA,
        "<image>",
        _SPLIT,
    ),
    "llava_onevision": (
        "LlavaOnevisionImageProcessorPil",
        {"size": _SIZE, "image_grid_pinpoints": [[32, 64], [64, 32]]},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        "<image>",
        _SPLIT,
    ),
    "mllama": (
        "MllamaImageProcessorPil",
        {"size": _SIZE, "max_image_tiles": 4},
        {},
        "<image>",
        {"vision_config.vision_output_dim": 64},
    ),
    "paddleocr_vl": ("PaddleOCRVLImageProcessorPil", _PATCHES, {}, "<image>", {}),
    "paligemma": ("SiglipImageProcessorPil", {"size": _SIZE, "image_seq_length": 16}, {}, "<image>", {}),
    "qianfan_ocr": ("GotOcr2ImageProcessorPil", _GOT, {"image_seq_length": 4}, "<image>", _PAIRS),
    "qwen2_5_vl": _QWEN,
    "qwen2_vl": _QWEN,
    "qwen3_5": _QWEN,
    "qwen3_5_moe": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "qwen4_exp": _QWEN,
    "video_llama_3": ("VideoLlama3ImageProcessorPil", {"patch_size": 8}, {}, "<image>", {}),
    "vipllava": ("CLIPImageProcessorPil", _CLIP, _LLAVA, "<image>", {"vision_feature_layers": [-1, 0]}),
    "aria": (
        "AriaImageProcessorPil",
        {"split_image": False},
        {"size_conversion": {980: 4}},
        "<image>",
        {"projector_patch_to_query_dict": {"100": 4}, "vision_config.image_size": 980, "vision_config.patch_size": 98},
    ),
    "aya_vision": ("GotOcr2ImageProcessorPil", _GOT, _AYA, "<pic>", {}),
    "blip": (*_BLIP, {}, "", {}),
    "blip-2": (*_BLIP, {"num_query_tokens": 4}, "", {}),
    "chameleon": (
        "ChameleonImageProcessorPil",
        _CLIP,
        {"image_seq_length": 4},
        "<image>",
        {"vq_config.resolution": 32, "vocabulary_map": {"<image>": IMAGE} | _CODES},
    ),
    "cohere_compass": ("CohereCompassImageProcessorPil", _MERGED, {}, "<vision><|IMAGE_PAD|></vision>", _COHERE),
    "cosmos3_omni": _QWEN,
    "deepseek_vl_hybrid": (
        "DeepseekVLHybridImageProcessorPil",
        {"size": _SIZE, "high_res_size": {"height": 64, "width": 64}},
        {"num_image_tokens": 16},
        "<image>",
        {"high_res_vision_config.global_attn_indexes": [0, 1], "high_res_vision_config.image_size": 64},
    ),
    "ernie4_5_vl_moe": ("Ernie4_5_VLMoeImageProcessorPil", _MERGED, {}, "<image>", {}),
    "gemma4": (
        "Gemma4ImageProcessorPil",
        {"patch_size": 8, "max_soft_tokens": 70, "pooling_kernel_size": 2},
        {"feature_extractor": transformers.Gemma4AudioFeatureExtractor},
        "<image>",
        {"vision_config": _GEMMA4},
    ),
    "git": ("CLIPImageProcessorPil", _CLIP, {}, "", {}),
    "glm5_next": ("Glm5NextImageProcessorPil", _PATCHES, {}, "<vision><image></vision>", {}),
    "glm_ocr": _GLM,
    "glmga": _GLM,
    "granite4_vision": (
        "LlavaNextImageProcessorPil",
        _CLIP | _SPLIT,
        _LLAVA | {"downsample_rate": "1/2"},
        "<image>",
        _SPLIT,
    ),
    "granite_docling": (
        "GraniteDoclingImageProcessorPil",
        {"size": _SIZE, "crop_to_patches": False},
        {"image_seq_len": 1},
        "<image>",
        {},
    ),
    "hunyuan_vl": ("HunYuanVLImageProcessorPil", _MERGED, {}, "<img><image><end>", {}),
    "hyperclovax_vision_v2": _QWEN,
    "instructblip": (*_BLIP, {"num_query_tokens": 4}, "", {}),
    "kosmos-2": ("CLIPImageProcessorPil", _CLIP, {}, "<image>", {"latent_query_num": 64}),
    "llava_next_video": (
        "LlavaNextImageProcessorPil",
        _CLIP | _SPLIT,
        _LLAVA,
        "<image>",
        _SPLIT,
    ),
    "minicpmv4_6": _MINICPMV,
    "minicpmv4_7": _MINICPMV,
    "ovis2": (
        "Ovis2ImageProcessorPil",
        {"size": _SIZE, "crop_to_patches": False},
        {"image_seq_length": 16},
        "<image>",
        _ATOMS,
    ),
    "pp_chart2table": ("PPChart2TableImageProcessorPil", {"size": _SIZE}, {}, "<image>", {}),
    "smolvlm": ("SmolVLMImageProcessorPil", _WHOLE, {"image_seq_len": 4}, "<image>", {}),
}

# Where transformers' table names no processor for the kind: the one of the family.
CLASSES = {
    "cosmos3_omni": "Qwen3VLProcessor",
    "glm_ocr": "Glm46VProcessor",
    "glmga": "Glm46VProcessor",
    "kosmos-2": "Kosmos2Processor",
}
# Processors that find or add the image token themselves where the tokenizer has none by name.
NAMELESS = ("blip-2", "cohere_compass", "instructblip")
