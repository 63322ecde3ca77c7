"""Classes whose own processor needs torchvision: they are shown noise in the shape that it would hand on.

This checks the model with an image's features in the prompt; it does not check the processor.
"""

from __future__ import annotations

from typing import Any

import torch

from .build import tiny_model
from .image_rows import IMAGE, TOKENS
from .rows import CHANGES

Shown = dict[str, Any]

_SIDES = torch.tensor([[4, 4]])
_PIXELS = {"pixel_values": (1, 3, 32, 32)}

# kind -> what needs torchvision, shapes of the noise, the rest of what the processor hands on, changes of the tiny model
NOISE: dict[str, tuple[str, dict[str, tuple[int, ...]], Shown, Shown]] = {
    "cohere2_vision": ("Cohere2VisionImageProcessor", _PIXELS, {}, {}),
    "lfm2_vl": (
        "Lfm2VlImageProcessor",
        {"pixel_values": (1, 16, 192)},
        {"spatial_shapes": _SIDES, "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long)},
        {},
    ),
    "llama4": ("Llama4ImageProcessor", _PIXELS, {}, {"vision_config.intermediate_size": 128}),
    "mistral3": ("PixtralProcessor", _PIXELS, {"image_sizes": _SIDES * 8}, {}),
    "mistral_large4": ("PixtralProcessor", _PIXELS, {"image_sizes": _SIDES * 8}, {}),
    "molmo2": (
        "Molmo2ImageProcessor",
        {"pixel_values": (1, 16, 192)},
        {
            "image_token_pooling": torch.arange(16).view(4, 4),
            "image_grids": torch.tensor([[2, 2, 0, 0]]),
            "image_num_crops": torch.tensor([1]),
        },
        {"image_patch_id": IMAGE, "video_token_id": IMAGE},  # one setting under two names
    ),
    "nemotron_h_omni": (
        "NemotronH_Omni_Reasoning_V3ImageProcessor",
        {"pixel_values": (16, 192)},
        {"image_grid_hw": _SIDES},
        {},
    ),
}
_BEFORE, _FEATURES, _AFTER = [7, 9], 4, [4, 18, 33, 8, 5, 60]


def noise_model(kind: str) -> Any:
    """Return the tiny model whose configuration names the image token."""
    return tiny_model(kind, CHANGES.get(kind, {}) | TOKENS | {"vocab_size": 320} | NOISE[kind][3])


def noise_inputs(kind: str) -> dict[str, torch.Tensor]:
    """Return a prompt with noise for an image, of four features."""
    generator = torch.Generator().manual_seed(5)
    _, shapes, rest, _ = NOISE[kind]
    ids = torch.tensor([[*_BEFORE, *[IMAGE] * _FEATURES, *_AFTER]])
    made = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **made, **rest}
