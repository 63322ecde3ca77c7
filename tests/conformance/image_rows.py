"""How each class is shown a picture: its image processor, its settings, the mark in the prompt, and what its tiny model changes."""

from __future__ import annotations

from typing import Any

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
    "glm46v": ("Glm46VImageProcessorPil", _PATCHES, {}, "<vision><image></vision>", {}),
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
        {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": False},
        {"image_seq_len": 4},
        "<image>",
        {},
    ),
    "internvl": ("GotOcr2ImageProcessorPil", _GOT, {"image_seq_length": 4}, "<image>", _PAIRS),
    "janus": ("JanusImageProcessorPil", {"size": _SIZE}, {"num_image_tokens": 16}, "<image>", {}),
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
        _CLIP | {"image_grid_pinpoints": [[32, 64], [64, 32]]},
        _LLAVA,
        "<image>",
        {"image_grid_pinpoints": [[32, 64], [64, 32]]},
    ),
    "llava_onevision": (
        "LlavaOnevisionImageProcessorPil",
        {"size": _SIZE, "image_grid_pinpoints": [[32, 64], [64, 32]]},
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        "<image>",
        {"image_grid_pinpoints": [[32, 64], [64, 32]]},
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
}

# Where the class of the processor is not the one that transformers' table names, or hidden there.
CLASSES: dict[str, str] = {"mistral3": "models.pixtral.processing_pixtral.PixtralProcessor"}

NAMELESS = ("blip-2", "instructblip")  # add the image token themselves, if the tokenizer has none by name
