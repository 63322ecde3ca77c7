"""Cutting a decoder's configuration to the layers that are kept.

A configuration speaks of layers in four ways: a count (`num_hidden_layers`), counts of a part (the first k, the last k), one entry
for each layer (`layer_types`, `per_layer_config`), and lists of layer numbers (`cross_attention_layers`). Each is cut by its own
rule; the tables name what the rules cannot tell from the value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

_PER_LAYER = (
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)  # one number, or a list with one a layer
_NUMBER_LISTS = ("_layers", "_layer_ids", "_layer_idxs", "_attn_idxs")  # how lists of layer numbers are called
_FROM_ONE = ("ple_layer_ids",)  # layer numbers that start at 1
_SOURCES = ("kv_source_layers",)  # one entry a layer, which is itself a layer number
_FIRST = ("first_k_dense_replace", "max_window_layers")  # how many of the first layers …
_LAST = ("num_kv_shared_layers",)  # how many of the last layers …


_NO_ARCHITECTURE = ("transformers_version", "dtype", "torch_dtype")  # in what precision and by whom, not what


def config_hash(config: Any) -> str:
    """Return the sha256 of a configuration as far as it decides the architecture: not precision, version or private notes."""
    text = json.dumps(_architecture(config.to_dict()), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _architecture(value: Any) -> Any:
    if isinstance(value, dict):
        kept = ((str(key), inner) for key, inner in value.items())
        return {key: _architecture(inner) for key, inner in kept if key[:1] != "_" and key not in _NO_ARCHITECTURE}
    return [_architecture(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def cut_config(text: Any, kept: Sequence[int]) -> dict[str, Any]:
    """Cut a decoder's configuration to the layers `kept`, in place.

    Returns:
        The lists that changed, by name, as they are now.
    """
    n_layers = text.num_hidden_layers
    changed = {}
    for name, value in list(vars(text).items()):
        new = _cut_value(name, value, n_layers, kept)
        if new is not value:
            setattr(text, name, new)
            if isinstance(value, (list, tuple)):
                changed[name] = new
    _cut_overrides(text, kept)
    text.num_hidden_layers = len(kept)
    return changed


def cut_targets(config: Any, kept: Sequence[int]) -> None:
    """Renumber in place what the whole model's configuration says of decoder layers: where Granite adds vision features."""
    place = {layer: position for position, layer in enumerate(kept)}
    if getattr(config, "deepstack_layer_map", None):
        config.deepstack_layer_map = [(vision, place[layer]) for vision, layer in config.deepstack_layer_map]
    if getattr(config, "spatial_target_layers", None):
        config.spatial_target_layers = [place[layer] for layer in config.spatial_target_layers]


def vision_targets(config: Any) -> set[int]:
    """Return the decoder layers that the whole model's configuration names as places where vision features are added."""
    mapped = {layer for _, layer in getattr(config, "deepstack_layer_map", None) or ()}
    return mapped | set(getattr(config, "spatial_target_layers", None) or ())


def changed_by_saving(text: Any) -> set[str]:
    """Return the settings that a decoder's configuration would not keep when saved and opened, as transformers repairs some.

    Raises:
        Exception: whatever transformers raises on a configuration it does not accept.
    """
    before = text.to_dict()
    again = type(text).from_dict(text.to_dict())
    getattr(again, "kv_sharing_modes", None)  # checked when asked for only
    after = again.to_dict()
    return {name for name in before if before[name] != after.get(name)}


def _cut_value(name: str, value: Any, n_layers: int, kept: Sequence[int]) -> Any:
    if name in _FIRST and isinstance(value, int):
        return sum(layer < value for layer in kept)
    if name in _LAST and isinstance(value, int):
        return sum(layer >= n_layers - value for layer in kept)
    if not isinstance(value, (list, tuple)):
        return value
    place = {layer: position for position, layer in enumerate(kept)}
    if name in _SOURCES:
        return [place[value[layer]] for layer in kept]
    if _are_numbers(name, value, n_layers):
        first = 1 if name in _FROM_ONE else 0
        return type(value)(place[number - first] + first for number in value if number - first in place)
    if len(value) == n_layers and _is_per_layer(name):
        return type(value)(value[layer] for layer in kept)
    return value


def _is_per_layer(name: str) -> bool:
    """Whether a list of the right length holds one entry a layer (`layer_types`, `no_rope_layers`, …)."""
    return "layer" in name or name == "indexer_types" or name.endswith("_pattern") or name in _PER_LAYER


def _are_numbers(name: str, value: Sequence[Any], n_layers: int) -> bool:
    """Whether a list names layers: rising numbers, as flags for each layer (`no_rope_layers`: 1, 1, 0, 1) are not."""
    last = n_layers if name in _FROM_ONE else n_layers - 1
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in value)
    if not name.endswith(_NUMBER_LISTS) or not whole or name.startswith("no_rope"):
        return False
    return bool(value) and list(value) == sorted(set(value)) and min(value) >= 0 and max(value) <= last


def _cut_overrides(text: Any, kept: Sequence[int]) -> None:
    """Renumber `per_layer_config`, by which single layers differ from the rest; it lives in a private place."""
    spec = vars(text).get("_heterogeneity_spec")
    if spec is None:
        return
    old = spec.per_layer_overrides
    spec.per_layer_overrides = {position: old[layer] for position, layer in enumerate(kept) if layer in old}
    names = {name for overrides in spec.per_layer_overrides.values() for name in overrides}
    spec.per_layer_attributes = names - {"skip"}
