"""The fingerprint of a loaded model: what decides its numbers, in one hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch

from vlm_analysis.models.asking import Template, asked_otherwise
from vlm_analysis.models.offload import state_of

_SAMPLES = 4096


def model_fingerprint(
    model: Any, processor: Any, max_vision_tokens: int | None = None, template: Template | None = None
) -> str:
    """Return the fingerprint (see `LoadedModel.fingerprint`): fast on large models, and independent of sharding.

    What version 0.1 did not know of enters it only where it changes what is asked (see `asking.asked_otherwise`).
    """
    digest = hashlib.sha256(f"{type(model).__name__} {model.dtype} {max_vision_tokens}".encode())
    image_processor, tokenizer = getattr(processor, "image_processor", None), processor.tokenizer
    inputs = {
        "images": image_processor.to_dict() if image_processor is not None else None,
        "vocabulary": sorted(tokenizer.get_vocab().items()),
        "template": getattr(processor, "chat_template", None),
        "end": model.generation_config.eos_token_id,
    }
    if template is not None:
        inputs |= asked_otherwise(model, processor, template)
    digest.update(json.dumps(inputs, sort_keys=True, default=str).encode("utf-8", "backslashreplace"))
    config = {
        key: value
        for key, value in model.config.to_dict().items()
        if not key.startswith("_") and key != "transformers_version"
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in state_of(model):
        for plain in plain_tensors(tensor):
            digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
            flat = plain.detach().reshape(-1)
            step = max(1, flat.numel() // _SAMPLES)
            digest.update(flat[::step].to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()


def plain_tensors(tensor: Any) -> list[torch.Tensor]:
    """Return the plain tensors of a tensor: itself, or the values, scales and zero points of a quantised one."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [plain for name in tensor.__tensor_flatten__()[0] for plain in plain_tensors(getattr(tensor, name))]
