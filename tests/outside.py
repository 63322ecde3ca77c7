"""Models from outside the project: tiny random ones of other families, saved by transformers as their users save them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from conformance.images import IMAGES, image_model, processor_of
from PIL import Image

from vlm_analysis import Prompt, PromptSet

END = "</s>"


def save_outside_model(kind: str, folder: Path) -> Path:
    """Save a tiny model of a family with its own processor and a chat template; it answers in words w0 to w99."""
    model, processor = image_model(kind), processor_of(kind)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    mark = json.dumps(IMAGES[kind][3] + " ")
    processor.chat_template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ " + mark + " }}{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %} "
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def noise(number: int) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def outside_prompts() -> PromptSet:
    """Return four prompts of two domains in words of such a model."""
    domains = ("odd", "even")
    return PromptSet(
        Prompt((noise(i),), f"w{i + 1} w7" + " w8" * i, domains[i % 2], str(i), "w3 w4 w5"[: 5 + 3 * (i % 2)])
        for i in range(4)
    )
