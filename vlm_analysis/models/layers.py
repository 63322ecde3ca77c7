"""Find the decoder layers of a model, and which of them should or must stay.

Everything that Strata knows about the inside of transformers models is here, except for their configurations, which are in
`config`. Two levels: a protected layer is risky to drop and may be unlocked; a locked layer cannot be dropped, because other
layers need its output, or because the pruned model could not be saved and rebuilt. Reasons are computed from model and
configuration; the tables name the few classes for which that is not possible.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from vlm_analysis.errors import ModelError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.models.config import vision_targets
from vlm_analysis.models.tower import tower_info
from vlm_analysis.models.vision import image_token
from vlm_analysis.models.widths import layer_widths, n_parameters

RECURRENT = ("linear_attention", "conv", "moe", "mlp")  # kinds of layers that cache no keys and values
MASKABLE = ("eager", "sdpa")  # implementations of attention that take a mask of queries and keys
_MIXING = ("linear_attention", "conv", "mamba", "hybrid")  # kinds of layers that pass tokens on through a state
_BESIDE_CALL = "it decodes by its inner language model alone, which is not told the tokens of the prompt"
_NO_VISION_TOKENS = {
    "blip": "the image comes in by cross-attention, and the prompt holds no vision tokens",
    "blip-2": _BESIDE_CALL,
    "git": "the image stands before the prompt, which holds no vision tokens",
    "instructblip": _BESIDE_CALL,
    "instructblipvideo": _BESIDE_CALL,
    "kosmos-2": _BESIDE_CALL,
}
# Modules of a decoder whose output holds numbers for each layer (`hidden_size_per_layer_input`), with that dimension of the weight.
PACKED = {"embed_tokens_per_layer": 1, "per_layer_model_projection": 0}
_REFUSED = {
    "idefics": "its cross-attention blocks stand between the layers and belong to them by position",
    "diffusion_gemma": "it writes by diffusion, running its layers as encoder and as decoder",
    "pi0": "it answers with robot actions, not with text",
}


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the model's text decoder.

    Raises:
        ModelError: the model has no transformers configuration.
    """
    config: Any = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ModelError(
            f"{type(model).__name__} has no transformers configuration: expected a model loaded by transformers."
        )
    return config.get_text_config(decoder=True)


def find_decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of decoder layers, in running order.

    The decoder is `model.get_decoder()`; its list is `.layers`, or else the only `ModuleList` in it whose length is the
    configuration's `num_hidden_layers`.

    Raises:
        ModelError: the model is an encoder-decoder model, or has no such list or several.
    """
    name = type(model).__name__
    count = getattr(text_config(model), "num_hidden_layers", None)
    config: Any = model.config
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} is an encoder-decoder model: expected one causal stack of decoder layers. Choose another model."
        )
    if config.model_type in _REFUSED:
        raise ModelError(f"{name} cannot be pruned: {_REFUSED[config.model_type]}. Choose another model.")
    get_decoder: Any = getattr(model, "get_decoder", None)
    decoder = get_decoder() if get_decoder is not None else None
    if decoder is None:
        raise ModelError(f"{name} has no decoder: expected get_decoder() to return one. Is it a vision-language model?")
    direct = getattr(decoder, "layers", None)
    if isinstance(direct, nn.ModuleList) and len(direct) == count:
        return direct
    lists = list({id(m): m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count}.values())
    if len(lists) != 1:
        raise ModelError(
            f"The decoder layers of {name} were not found: looked in {type(decoder).__name__} for one list of "
            f"{count} modules (num_hidden_layers), found {len(lists)}."
        )
    return lists[0]


def find_decoder_path(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Return the dotted name of the decoder's layer list inside `model`, and the list (see `find_decoder_layers`)."""
    layers = find_decoder_layers(model)
    return next(path for path, module in model.named_modules() if module is layers), layers


def layer_info(model: nn.Module) -> ModelInfo:
    """Return the ModelInfo of a model's layers without its source: their number, and which stay, with the reasons."""
    layers, crossing = find_decoder_layers(model), cross_attention_layers(model)
    shares_keys = first_beside_stream(model) < len(layers)
    widths = layer_widths(model, layers, shares_keys=shares_keys, crossing=crossing)
    return replace(
        whole_layer_info(model), vision_locked=vision_locked(model), widths=widths, tower=tower_info(model, layers)
    )


def whole_layer_info(model: nn.Module) -> ModelInfo:
    """Return the ModelInfo of `layer_info` for layers dropped whole, without what takes longest: `vision_locked`, `widths`, `tower`."""
    return ModelInfo(
        type(model).__name__,
        "",
        len(find_decoder_layers(model)),
        protected=protected_layers(model),
        locked=locked_layers(model),
        attention_layers=tuple(attention_layers(model)),
        cross_attention_layers=tuple(cross_attention_layers(model)),
    )


def layer_parameters(model: nn.Module) -> tuple[int, ...]:
    """Return the parameters of each decoder layer: its own, and its part of the tables with entries for every layer."""
    path, layers = find_decoder_path(model)
    decoder = model.get_submodule(path.rpartition(".")[0])
    tables = [decoder.get_submodule(name) for name in PACKED if isinstance(getattr(decoder, name, None), nn.Module)]
    shared = sum(n_parameters(table) for table in tables) // len(layers)
    return tuple(shared + n_parameters(layer) for layer in layers)


def protected_layers(model: nn.Module) -> dict[int, str]:
    """Return the layers that are risky to drop, with the reason: first, last, and those at which the image enters."""
    n_layers = len(find_decoder_layers(model))
    reasons = {0: "first layer: it turns embeddings into the stream every other layer expects"}
    reasons[n_layers - 1] = "last layer: it prepares the stream for the output head"
    for layer in range(min(_n_deepstack(model), n_layers)):
        reason = (
            "DeepStack: vision features are added after this list position; dropping it moves them to the next layer"
        )
        reasons[layer] = f"{reasons[layer]}; {reason}" if layer in reasons else reason
    for layer in cross_attention_layers(model):
        reason = "cross-attention layer: it brings the image in, and does nothing on a prompt without one"
        reasons[layer] = f"{reasons[layer]}; {reason}" if layer in reasons else reason
    return dict(sorted(reasons.items()))


def locked_layers(model: nn.Module) -> dict[int, str]:
    """Return the layers that cannot be dropped, each with the reason."""
    layers, text = find_decoder_layers(model), text_config(model)
    reasons: dict[int, str] = {}
    for find in (_kv_stores, _indexers, _numbered_tables, _built_first, _last_attention):
        for layer, reason in find(text, layers).items():
            reasons.setdefault(layer, reason)
    for layer in vision_targets(model.config):
        reasons.setdefault(layer, "vision features are added right before it, as the configuration says by its number")
    return dict(sorted(reasons.items()))


def vision_locked(model: nn.Module) -> dict[int, str]:
    """Return the layers that vision tokens cannot skip, each with the reason."""
    layers, text = find_decoder_layers(model), text_config(model)
    reason = _locks_all(model, layers, text)
    if reason:
        return dict.fromkeys(range(len(layers)), reason)
    kinds = getattr(text, "layer_types", None) or [""] * len(layers)
    mixing = "it passes tokens on through a state, out of which none can be left"
    return {layer: mixing for layer, kind in enumerate(kinds[: len(layers)]) if kind in _MIXING}


def _locks_all(model: Any, layers: nn.ModuleList, text: Any) -> str:
    """Return why vision tokens can skip no layer of the model, "" where nothing is known against it."""
    if cross_attention_layers(model):
        return _NO_VISION_TOKENS["blip"]
    if model.config.model_type in _NO_VISION_TOKENS:
        return _NO_VISION_TOKENS[model.config.model_type]
    if image_token(model.config) is None:
        return "the configuration names no token for image features"
    if first_beside_stream(model) < len(layers):
        return "layers share keys and values or chosen tokens, so that what one leaves out others would lack"
    if any("Indexer" in type(module).__name__ for module in layers.modules()):
        return "an indexer chooses the tokens that its layers attend to"
    if any("attention_mask" not in inspect.signature(kind.forward).parameters for kind in set(map(type, layers))):
        return "its layers take no attention mask"
    how = getattr(text, "_attn_implementation", None)
    if how not in MASKABLE:
        return f"attention runs by {how!r}, which takes no mask of single tokens (load the model with attn_implementation='sdpa')"
    return ""


def attention_layers(model: nn.Module) -> list[int]:
    """Return the layers that cache keys and values, in a stack where others do not; empty where all do or the kinds are unknown."""
    kinds = getattr(text_config(model), "layer_types", None) or ()
    keeping = [layer for layer, kind in enumerate(kinds) if kind not in RECURRENT]
    return keeping if len(keeping) < len(kinds) else []


def cross_attention_layers(model: nn.Module) -> list[int]:
    """Return the layers whose keys and values come from the image."""
    n_layers = len(find_decoder_layers(model))
    numbers = getattr(text_config(model), "cross_attention_layers", None) or ()
    return sorted(number for number in numbers if number < n_layers)  # transformers ignores those beyond the last layer


def first_beside_stream(model: nn.Module) -> int:
    """Return the first layer that passes something beside the stream to later ones (keys and values, chosen tokens); the number of
    layers where none does."""
    layers, text = find_decoder_layers(model), text_config(model)
    return min([*_kv_stores(text, layers), *_indexers(text, layers), len(layers)])


def _kv_stores(text: Any, layers: nn.ModuleList) -> dict[int, str]:
    reason = "KV store: later layers have no keys and values of their own and reuse this one's"
    modes = getattr(text, "kv_sharing_modes", None) or ()
    return {layer: reason for layer, mode in enumerate(modes) if mode == "store"}


def _indexers(text: Any, layers: nn.ModuleList) -> dict[int, str]:
    """Return the layers that choose tokens for the sparse attention of the next layers."""
    reason = "indexer: the next layers attend to the tokens this one chooses"
    kinds = getattr(text, "indexer_types", None) or ()
    owner, owners = None, {}
    for layer, kind in enumerate(kinds):
        if kind != "shared":
            owner = layer
        elif owner is not None:
            owners[owner] = reason
    return owners


def _numbered_tables(text: Any, layers: nn.ModuleList) -> dict[int, str]:
    """Return the layers with n-gram tables except the last: the tables of later layers depend on the number before them."""
    numbers = getattr(text, "ple_layer_ids", None) or ()
    reason = "n-gram table: those of later layers are built by how many come before"
    return {number - 1: reason for number in sorted(numbers)[:-1]}


def _built_first(text: Any, layers: nn.ModuleList) -> dict[int, str]:
    reason = "first layer: it is built without the mixing of earlier blocks that every other layer has"
    return {0: reason} if getattr(layers[0], "attention_input", layers) is None else {}


def _last_attention(text: Any, layers: nn.ModuleList) -> dict[int, str]:
    kinds = getattr(text, "layer_types", None) or ()
    keeps = [layer for layer, kind in enumerate(kinds) if kind not in RECURRENT]
    reason = "only attention layer of a hybrid stack: without it the cache does not know how many tokens it holds"
    return {keeps[0]: reason} if len(keeps) == 1 < len(kinds) else {}


def _n_deepstack(model: nn.Module) -> int:
    vision = getattr(model.config, "vision_config", None)
    return len(getattr(vision, "deepstack_visual_indexes", None) or ())
