"""What tests of fine-tuning share: a cut of the small model, a short training, and all of a model that it must not change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from vlm_analysis import Cancelled, PruneMask

CUT = PruneMask(8, (4, 5))
SHORT: dict[str, Any] = {"most_steps": 4, "checks": 2, "batch_size": 4}


def state_of(model: Any) -> dict[str, Any]:
    """Return the numbers, the parameter objects with their flags, and of each module training mode, hooks and a replaced forward."""
    return {
        "weights": {
            name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in model.state_dict().items()
        },
        "flags": {name: (id(parameter), parameter.requires_grad) for name, parameter in model.named_parameters()},
        "modules": [
            (type(one), one.training, len(one._forward_hooks), len(one._forward_pre_hooks), "forward" in vars(one))
            for one in model.modules()
        ],
        "peft": hasattr(model, "peft_config"),
    }


def noting(begun: list[int]) -> Callable[[int, int, str], None]:
    """Return a progress that notes the steps."""
    return stop_at(-1, begun)


def stop_at(step: int, begun: list[int] | None = None) -> Callable[[int, int, str], None]:
    """Return a progress that stops the work before a step, counted from 0."""

    def progress(done: int, total: int, message: str) -> None:
        if message.startswith("tuning: "):
            if begun is not None:
                begun.append(done)
            if done == step:
                raise Cancelled

    return progress
