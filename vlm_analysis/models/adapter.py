"""Adapters: a plain LoRA beside a base model that is at hand is merged into its weights, W + scale · B A, in float64.

Other kinds are refused by what they need: they take peft, or change more than single matrices.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoTokenizer
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from vlm_analysis.errors import ModelError
from vlm_analysis.files import file_hash, read_bytes
from vlm_analysis.models.folders import ADAPTER

_WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
_MERGE = "Merge it into its base with peft (merge_and_unload), save the result, and load that."
_PLAIN: dict[str, tuple[Any, ...]] = {  # the settings of a plain LoRA that can be merged; others are free
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "alpha_pattern": (None, {}),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),  # others change the base's weights too
}


@dataclass(frozen=True)
class Adapter:
    """A plain LoRA.

    Attributes:
        folder: of its files.
        settings: its adapter_config.json.
    """

    folder: Path
    settings: dict[str, Any]

    @property
    def words(self) -> str:
        """Return its name with the beginning of the hash of its weights."""
        return f"{self.folder.name} ({file_hash(self.folder / _WEIGHTS)[:12]})"


def open_adapter(folder: Path) -> Adapter:
    """Open an adapter's settings; no weight is read.

    Raises:
        ModelError: they are damaged, or it is no plain LoRA in safetensors.
    """
    try:
        settings = json.loads(read_bytes(folder / ADAPTER, 1 << 20))
        if not isinstance(settings, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"The adapter of {folder.name!r} is damaged: {ADAPTER} is no JSON: {error}. Save it again."
        ) from error
    for name, allowed in _PLAIN.items():
        if settings.get(name, allowed[-1]) not in allowed:
            raise ModelError(
                f"The adapter of {folder.name!r} is no plain LoRA: expected {allowed[0]!r} as {name}, got "
                f"{str(settings[name])[:80]!r}. {_MERGE}"
            )
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(
            f"The adapter of {folder.name!r} has no weights: expected {_WEIGHTS} beside {ADAPTER}. Copy it again."
        )
    return Adapter(folder, settings)


def base_of(adapter: Adapter) -> Path:
    """Return the folder of the base model, if it is at hand: a folder, or a model in the Hub's cache.

    Raises:
        ModelError: it is not at hand.
    """
    from huggingface_hub import snapshot_download

    name = str(adapter.settings.get("base_model_name_or_path") or "")
    if name:
        for path in (adapter.folder / name, Path(name).expanduser()):
            if path.is_dir() and path.resolve() != adapter.folder:
                return path.resolve()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        try:
            return Path(snapshot_download(name, revision=adapter.settings.get("revision"), local_files_only=True))
        except (OSError, ValueError):  # not in the cache
            pass
    raise ModelError(
        f"{adapter.folder.name!r} is an adapter, and its base model is not at hand: expected a folder or a model that the Hub's cache "
        f"holds, got {name[:200]!r} as base_model_name_or_path in {ADAPTER}. Load that model once by its Hub id, or write the path "
        "of its folder there."
    )


def take_template(processor: Any, adapter: Adapter) -> None:
    """Give a processor the chat template that lies beside the adapter, as it was trained with that one.

    Raises:
        ModelError: the tokenizer beside the adapter has other tokens than the base's.
    """
    if not (adapter.folder / "tokenizer.json").is_file():
        return
    beside = AutoTokenizer.from_pretrained(adapter.folder, local_files_only=True)
    if beside.get_vocab() != processor.tokenizer.get_vocab():
        raise ModelError(
            f"The adapter of {adapter.folder.name!r} was trained with another tokenizer: expected that of its base, got one with other "
            f"tokens. {_MERGE}"
        )
    if beside.chat_template:
        processor.chat_template = beside.chat_template


def merge(model: Any, adapter: Adapter) -> None:
    """Add an adapter's update to the weights of its base model, in place.

    Raises:
        ModelError: a matrix is damaged, or has no place in this model.
    """
    pairs = _pairs(model, adapter)
    shared = {id(model.get_input_embeddings().weight)}
    for name, (a, b) in pairs.items():
        module = dict(model.named_modules()).get(name)
        weight = getattr(module, "weight", None)
        fits = isinstance(module, torch.nn.Linear) and id(weight) not in shared
        if not fits or weight is None or tuple(weight.shape) != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
            raise ModelError(
                f"The adapter of {adapter.folder.name!r} does not fit its base: expected a linear layer {name!r} of shape "
                f"{(b.shape[0], a.shape[1])}, got {'none' if weight is None else tuple(weight.shape)}. Name its own base."
            )
        rank = math.sqrt(a.shape[0]) if adapter.settings.get("use_rslora") else a.shape[0]
        with torch.no_grad():
            weight.copy_(with_update(weight, a, b, float(adapter.settings["lora_alpha"]) / rank))


def with_update(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """Return W + scale · B A in the weight's precision, on the CPU.

    The sum is made in float64 there, whatever the device: it is the same to the last bit wherever an adapter is merged.

    Args:
        weight: W (outputs, inputs).
        a, b: factors (rank, inputs) and (outputs, rank).
        scale: of the product.
    """
    update = scale * (b.to("cpu", torch.float64) @ a.to("cpu", torch.float64))
    return (weight.detach().to("cpu", torch.float64) + update).to(weight.dtype)


def _pairs(model: Any, adapter: Adapter) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the matrices A (rank, inputs) and B (outputs, rank) of each module, by its name in this version of transformers."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    renamings = [change for change in get_model_conversion_mapping(model) if isinstance(change, WeightRenaming)]
    names = model.state_dict()
    where = f"The adapter of {adapter.folder.name!r}"
    try:
        with safe_open(adapter.folder / _WEIGHTS, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                match = _KEY.fullmatch(key)
                if match is None:
                    raise ModelError(
                        f"{where} is no plain LoRA: expected matrices lora_A and lora_B, got {key[:200]!r}. {_MERGE}"
                    )
                old = f"{match['module']}.weight"
                new = old if old in names else rename_source_key(old, renamings, [], model.base_model_prefix, names)[0]
                found.setdefault(new.removesuffix(".weight"), {})[match["part"]] = file.get_tensor(key)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{where} cannot be read: expected safetensors, got {error}. Copy it again.") from error
    incomplete = [
        name for name, parts in found.items() if len(parts) != 2 or any(part.ndim != 2 for part in parts.values())
    ]
    if incomplete or not found:
        raise ModelError(
            f"{where} is damaged: expected two matrices for each layer, got {(incomplete or ['none'])[0]!r} without. {_MERGE}"
        )
    return {name: (parts["A"], parts["B"]) for name, parts in found.items()}
