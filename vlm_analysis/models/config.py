"""Cut a decoder's configuration to the kept layers.

A configuration describes layers in four ways: a count (`num_hidden_layers`), counts of a part (the first k, the last k), one entry
for each layer (`layer_types`, `per_layer_config`), and lists of layer numbers (`cross_attention_layers`). Each has its own
rule; the tables name the settings whose kind cannot be inferred from the value.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from vlm_analysis.errors import MaskError

_PER_LAYER = (
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)  # one number, or a list with one number per layer
_NUMBER_LISTS = ("_layers", "_layer_ids", "_layer_idxs", "_attn_idxs")  # suffixes of lists of layer numbers
_FROM_ONE = ("ple_layer_ids",)  # layer numbers that start at 1
_SOURCES = ("kv_source_layers",)  # one entry per layer, each a layer number
_FIRST = ("first_k_dense_replace", "max_window_layers")  # a number of first layers
_LAST = ("num_kv_shared_layers",)  # a number of last layers

MOST_CHANGED = 256
_CHANGED: dict[
    tuple[type, str], frozenset[str]
] = {}  # of `changed_by_saving`: masks of a model differ little in what is left

_NO_ARCHITECTURE = ("transformers_version", "dtype", "torch_dtype")  # precision and version


def config_hash(config: Any) -> str:
    """Return the sha256 of the settings that decide the architecture, without precision, version and private settings."""
    text = json.dumps(_architecture(config.to_dict()), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _architecture(value: Any) -> Any:
    if isinstance(value, dict):
        items = ((str(key), inner) for key, inner in value.items())
        return {key: _architecture(inner) for key, inner in items if key[:1] != "_" and key not in _NO_ARCHITECTURE}
    return [_architecture(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def cut_config(text: Any, kept: Sequence[int]) -> dict[str, Any]:
    """Cut a decoder's configuration to the layers `kept`, in place.

    Layer numbers beyond the last layer are left out with the dropped ones, as transformers ignores them.

    Returns:
        The lists that changed, by name, with their new values.

    Raises:
        MaskError: a list of layer numbers that cannot be understood.
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
    """Renumber in place the decoder layers named in the whole model's configuration, at which Granite adds vision features."""
    position_of = {layer: position for position, layer in enumerate(kept)}
    if getattr(config, "deepstack_layer_map", None):
        config.deepstack_layer_map = [(vision, position_of[layer]) for vision, layer in config.deepstack_layer_map]
    if getattr(config, "spatial_target_layers", None):
        config.spatial_target_layers = [position_of[layer] for layer in config.spatial_target_layers]


def vision_targets(config: Any) -> set[int]:
    """Return the decoder layers that the whole model's configuration names as targets of vision features."""
    mapped = {layer for _, layer in getattr(config, "deepstack_layer_map", None) or ()}
    return mapped | set(getattr(config, "spatial_target_layers", None) or ())


def changed_by_saving(text: Any) -> set[str]:
    """Return the settings of a decoder's configuration that change when it is saved and opened, as transformers repairs some.

    Raises:
        Exception: any error that transformers raises for a configuration it does not accept.
    """
    before = text.to_dict()
    key = type(text), repr(before)
    changed = _CHANGED.get(key)
    if changed is None:
        again = type(text).from_dict(text.to_dict())
        getattr(again, "kv_sharing_modes", None)  # is checked only when it is read
        after = again.to_dict()
        changed = frozenset(name for name in before if before[name] != after.get(name))
        if len(_CHANGED) >= MOST_CHANGED:
            _CHANGED.clear()
        _CHANGED[key] = changed
    return set(changed)


def _cut_value(name: str, value: Any, n_layers: int, kept: Sequence[int]) -> Any:
    if name in _FIRST and isinstance(value, int):
        return sum(layer < value for layer in kept)
    if name in _LAST and isinstance(value, int):
        return sum(layer >= n_layers - value for layer in kept)
    if not isinstance(value, (list, tuple)):
        return value
    position_of = {layer: position for position, layer in enumerate(kept)}
    if name in _SOURCES:
        return [position_of[value[layer]] for layer in kept]
    if _are_numbers(name, value, n_layers):
        if len(kept) == n_layers:
            return value
        first = 1 if name in _FROM_ONE else 0
        if len(set(value)) < len(value) or min(value) < first:
            raise MaskError(
                f"The layers cannot be renumbered: expected different layer numbers from {first} on in {name!r} of the model's "
                f"configuration, got {str(list(value))[:200]}. Correct the configuration, or leave all layers in."
            )
        return type(value)(position_of[number - first] + first for number in value if number - first in position_of)
    if len(value) == n_layers and _is_per_layer(name):
        return type(value)(value[layer] for layer in kept)
    return value


def _is_per_layer(name: str) -> bool:
    """Return whether a list of the right length holds one entry per layer (`layer_types`, `no_rope_layers`, …)."""
    return "layer" in name or name == "indexer_types" or name.endswith("_pattern") or name in _PER_LAYER


def _are_numbers(name: str, value: Sequence[Any], n_layers: int) -> bool:
    """Return whether a list holds layer numbers, some perhaps beyond the last layer, and not one flag per layer (1, 1, 0, 1)."""
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in value)
    if not name.endswith(_NUMBER_LISTS) or not whole or name.startswith("no_rope"):
        return False
    return bool(value) and (len(value) != n_layers or list(value) == sorted(set(value)))


def _cut_overrides(text: Any, kept: Sequence[int]) -> None:
    """Renumber `per_layer_config`, the overrides of single layers, which is stored in a private attribute."""
    spec = vars(text).get("_heterogeneity_spec")
    if spec is None:
        return
    old = spec.per_layer_overrides
    spec.per_layer_overrides = {position: old[layer] for position, layer in enumerate(kept) if layer in old}
    names = {name for overrides in spec.per_layer_overrides.values() for name in overrides}
    spec.per_layer_attributes = names - {"skip"}
