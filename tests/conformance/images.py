"""The tiny models with an image in the prompt, made by the class's own processor with its PIL image processor.

The tokenizer is a list of words; its special tokens get numbers that the tiny model's configuration is told of. As the package does
where torchvision is missing, processors that own a video part are built without it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from vlm_analysis.models import _without_video

from .build import tiny_model
from .rows import CHANGES

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
}
NUMBERS = {name: WORDS + 3 + index for index, name in enumerate(dict.fromkeys(SPECIAL.values()))}
IMAGE = NUMBERS["<image>"]
_TOKENS = {
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


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows a hundred words and the special tokens."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{index}": index + 3 for index in range(WORDS)} | NUMBERS
    bare = Tokenizer(models.WordLevel(words, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="w0",
        extra_special_tokens=SPECIAL,
    )


def image_model(kind: str) -> Any:
    """Return the tiny model whose configuration names the tokenizer's image token."""
    return tiny_model(kind, CHANGES.get(kind, {}) | _TOKENS | {"vocab_size": 320} | IMAGES[kind][4])


def image_inputs(kind: str) -> dict[str, torch.Tensor]:
    """Return what the class's own processor makes of a picture of noise and six words."""
    pil, image_settings, settings, mark, _ = IMAGES[kind]
    base = getattr(transformers, PROCESSOR_MAPPING_NAMES[kind])
    build = _without_video(base) if "video_processor" in base.get_attributes() else base
    processor = build(image_processor=getattr(transformers, pil)(**image_settings), tokenizer=tokenizer(), **settings)
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    text = f"{mark} w7 w21 w3 w14 w15 w9"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, on how transformers hands it a PIL image
        made = dict(processor(text=[text], images=[Image.fromarray(pixels)], return_tensors="pt"))
    made.pop("labels", None)
    return made
