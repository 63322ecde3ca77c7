"""Low-rank updates in an edited model while it is tuned: put in by peft, and taken out as arrays.

A view shares its parameters with the dense model. peft marks parameters as fixed, and merges into them; so before anything is put in, every
parameter of the view becomes an object of the view's own that shares its numbers (`own_parameters`). Nothing is merged here: that is for
`Adapt.apply`, which gives a weight numbers of its own first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlm_analysis.errors import EditError
from vlm_analysis.recovery.tunings import Tuning

NAME = "default"


def own_parameters(view: nn.Module) -> None:
    """Give a view parameters of its own, fixed, that share their numbers with the dense model's; one that is tied stays tied."""
    own: dict[int, nn.Parameter] = {}
    for module in view.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in own:
                    own[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
                module._parameters[name] = own[id(parameter)]


def put_in(view: nn.Module, targets: Mapping[str, str], tuning: Tuning) -> dict[str, nn.Parameter]:
    """Put a low-rank update into each target of a view with own parameters; return the factors in float32, as "MODULE.A" and "MODULE.B".

    The first B is 0, so nothing changes yet. Nothing is put into training mode, in which towers may count what passes (see
    `dropping_out`).

    Args:
        view: the edited model.
        targets: from `find_targets`; factors are named by its values.

    Raises:
        EditError: peft puts updates elsewhere, as it does where experts are fused.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Linear

    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,  # type: ignore[arg-type]  # a whole number is not needed
        lora_dropout=tuning.dropout,
        target_modules=list(targets),
        bias="none",
    )
    with torch.random.fork_rng(devices_of(view)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about settings that are not used
        torch.manual_seed(tuning.seed)
        inject_adapter_in_model(config, view, NAME)
    placed: dict[str, Any] = {name: module for name, module in view.named_modules() if isinstance(module, Linear)}
    trained = {id(parameter) for parameter in view.parameters() if parameter.requires_grad}
    factors: dict[str, nn.Parameter] = {}
    for name, target in targets.items():
        if name in placed:
            for part, inner in (("A", placed[name].lora_A[NAME]), ("B", placed[name].lora_B[NAME])):
                inner.weight.data = inner.weight.data.float()
                factors[f"{target}.{part}"] = inner.weight
    if set(placed) != set(targets) or trained != {id(factor) for factor in factors.values()}:
        raise EditError(
            f"{type(view).__name__} cannot be tuned: expected updates of {len(targets)} linear layers, got peft's in other places. "
            "Choose another fine-tuning, or another model."
        )
    return factors


@contextmanager
def dropping_out(view: nn.Module) -> Iterator[None]:
    """Let the dropout of the updates drop numbers inside, and nothing else of the view."""
    from peft.tuners.lora import Linear

    updated = [module for module in view.modules() if isinstance(module, Linear)]
    try:
        for module in updated:
            module.lora_dropout.train()
        yield
    finally:
        for module in updated:
            module.lora_dropout.eval()


def devices_of(model: nn.Module) -> list[int]:
    """Return the numbers of the GPUs that hold parts of a model."""
    return sorted({one.device.index or 0 for one in model.parameters() if one.device.type == "cuda"})


def taken_out(factors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Return copies of the factors as float32 arrays."""
    return {name: factor.detach().float().cpu().numpy().copy() for name, factor in factors.items()}
