"""The tiny models with an image in the prompt, made by the class's own processor with its PIL image processor.

The tokenizer is a list of words; its special tokens get numbers that the tiny model's configuration receives. As the package does
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

from vlm_analysis.models.processors import without_video

from .build import tiny_model
from .image_rows import CLASSES, IMAGES, NAMELESS, NUMBERS, SPECIAL, TOKENS, WORDS
from .noise import NOISE, noise_inputs, noise_model
from .rows import CHANGES


def tokenizer(*, named: bool = True) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows a hundred words and the special tokens; their names too, if not told otherwise."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{index}": index + 3 for index in range(WORDS)} | NUMBERS
    bare = Tokenizer(models.WordLevel(words, unk_token="w0"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="w0",
        extra_special_tokens=SPECIAL if named else list(NUMBERS),
    )


def image_model(kind: str) -> Any:
    """Return the tiny model whose configuration names the tokenizer's image token."""
    if kind in NOISE:
        return noise_model(kind)
    return tiny_model(kind, CHANGES.get(kind, {}) | TOKENS | {"vocab_size": 320} | IMAGES[kind][4])


def processor_of(kind: str) -> Any:
    """Return the class's own processor, with its PIL image processor and a tokenizer of a hundred words; else the tokenizer."""
    if kind not in IMAGES:
        return tokenizer()
    pil, image_settings, settings, _, _ = IMAGES[kind]
    base = getattr(transformers, CLASSES.get(kind) or PROCESSOR_MAPPING_NAMES[kind])
    build = without_video(base) if "video_processor" in base.get_attributes() else base
    parts = {name: make() for name, make in settings.items() if callable(make)}
    if "qformer_tokenizer" in base.get_attributes():
        parts["qformer_tokenizer"] = tokenizer(named=False)
    image_processor = getattr(transformers, pil)(**image_settings)
    words = tokenizer(named=kind not in NAMELESS)
    return build(image_processor=image_processor, tokenizer=words, **settings | parts)


def image_inputs(kind: str, processor: Any = None, *, n_images: int = 1) -> dict[str, torch.Tensor]:
    """Return what the class's own processor makes of pictures of noise and six words; where it needs torchvision, noise for one."""
    if kind in NOISE:
        return noise_inputs(kind)
    rng = np.random.default_rng(5)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(n_images)]
    text = f"{' w8 '.join([IMAGES[kind][3]] * n_images)} w7 w21 w3 w14 w15 w9"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of numpy, on how transformers hands it a PIL image
        made = dict((processor or processor_of(kind))(text=[text], images=pictures, return_tensors="pt"))
    made.pop("labels", None)
    return made
