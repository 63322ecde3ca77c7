"""Configurations of Puzzletron (NVIDIA Model Optimizer): `block_configs` in `config.json`, an entry for each layer of the dense model.

An entry holds `attention` and `ffn`, each with `no_op`; a layer in which both do nothing is a dropped layer. Puzzletron also takes one of
the two away, narrows them and replaces them with linear maps; such configurations are refused. Those of Nemotron-NAS (DeciLM) have the
same form. In a vision-language model the list may stand in `text_config`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vlm_analysis.edits.edit import Edit, PruneMask, only_mask
from vlm_analysis.edits.foreign.masks import refuse, refuse_kind
from vlm_analysis.errors import MaskError, short
from vlm_analysis.files import read_bytes
from vlm_analysis.model_info import MOST_LAYERS

BLOCKS, PARTS = "block_configs", ("attention", "ffn")
_WIDTHS = ("num_key_value_heads", "n_heads_in_group", "intermediate_size", "ffn_mult")
_OTHERWISE = ("replace_with_linear", "sparsify", "parallel_blocks")
_INNER = ("text_config", "language_config", "llm_config")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_MOST_BYTES = 1 << 20  # of a configuration


def of_json(content: Any, n_layers: int | None, name: str) -> Edit | None:
    """Return the mask of a configuration whose layers stay as they are or do nothing; None where it has no `block_configs`.

    Raises:
        MaskError: it narrows or replaces a layer, leaves out a part of one, or is no such configuration.
    """
    if not isinstance(content, Mapping):
        return None
    inner = [content, *(content[key] for key in _INNER if isinstance(content.get(key), Mapping))]
    config = next((one for one in inner if BLOCKS in one), None)
    if config is None:
        return None
    blocks = config[BLOCKS]
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= MOST_LAYERS:
        refuse(name, f"a list of 1 to {MOST_LAYERS} layers in '{BLOCKS}'", blocks, "Take Puzzletron's config.json.")
    stated = _stated(inner, "num_hidden_layers")
    if stated not in (None, len(blocks)):
        refuse(name, f"an entry for each of {stated} layers in '{BLOCKS}'", f"{len(blocks)} of them", "Correct it.")
    kept = {layer: block for layer, block in enumerate(blocks) if not _is_dropped(block, layer, name)}
    _check_widths(kept, inner, name)
    if not kept:
        refuse(name, "one layer at least that stays", "none", "Leave a layer in.")
    dropped = [layer for layer in range(len(blocks)) if layer not in kept]
    return PruneMask(len(blocks), dropped, provenance={"opened_from": "Puzzletron"})


def _stated(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
    return next((config[key] for config in configs if config.get(key) is not None), None)


def _is_dropped(block: Any, layer: int, name: str) -> bool:
    parts: list[Any] = [block.get(part) for part in PARTS] if isinstance(block, Mapping) else []
    if not parts or not all(isinstance(part, Mapping) and isinstance(part.get("no_op", False), bool) for part in parts):
        refuse(
            name,
            f"'attention' and 'ffn' with 'no_op' in '{BLOCKS}'",
            f"{str(block)[:100]} for layer {layer}",
            "Correct it.",
        )
    for key in _OTHERWISE:
        if any(holder.get(key) for holder in (block, *parts)):
            refuse_kind(name, f"'{key}' in layer {layer}", "Leave it out there.")
    without = [part.get("no_op", False) for part in parts]
    if any(without) and not all(without):
        got = f"layer {layer} without its {PARTS[without.index(True)]} alone"
        refuse_kind(name, got, "Give the other part a 'no_op' too, or none.")
    return all(without)


def _check_widths(blocks: Mapping[int, Any], configs: Sequence[Mapping[str, Any]], name: str) -> None:
    """Raise MaskError where a layer has another width than the model's own, or than the first layer where that is not said."""
    for part, key in itertools.product(PARTS, _WIDTHS):
        found = {layer: block[part][key] for layer, block in blocks.items() if block[part].get(key) is not None}
        own = _stated(configs, key) if found else None
        usual = next(iter(found.values()), None) if own is None else own
        for layer, width in found.items():
            expected = usual[layer] if isinstance(usual, list) and layer < len(usual) else usual
            if width != expected:
                got = f"layer {layer} with '{key}' {str(width)[:40]} beside {str(expected)[:40]}"
                refuse_kind(name, got, "Keep each layer's width there.")
    experts = [json.dumps(block["ffn"]["moe"], sort_keys=True) for block in blocks.values() if block["ffn"].get("moe")]
    if len(set(experts)) > 1:
        refuse_kind(name, "layers with other experts ('moe')", "Keep each layer's experts there.")


def mask_to_puzzletron(mask: Edit, config: Mapping[str, Any] | Path | None) -> str:
    """Return the configuration of the dense model as JSON, with `block_configs` in which dropped layers have a `no_op` in both parts.

    Args:
        mask: the layers to leave out.
        config: the dense model's configuration, as in its `config.json`, or the path of that file.

    Raises:
        MaskError: the edit does more than drop layers; the configuration cannot be read, is of another number of layers, or says no
            width of a layer or several kinds of layers.
    """
    only_mask(mask, "It cannot be written for Puzzletron")
    whole = _opened(config)
    text = next((whole[key] for key in _INNER if isinstance(whole.get(key), Mapping)), whole)
    if text.get("num_hidden_layers") != mask.n_layers:
        _cannot(f"{mask.n_layers} layers in the model's configuration", text.get("num_hidden_layers"))
    widths = {key: list(_by_layer(text, key, mask.n_layers)) for key in ("num_key_value_heads", "intermediate_size")}
    blocks = [
        {part: {"no_op": True} for part in PARTS}
        if layer in mask.dropped
        else {
            "attention": {"no_op": False, "num_key_value_heads": widths["num_key_value_heads"][layer]},
            "ffn": {"no_op": False, "intermediate_size": widths["intermediate_size"][layer]},
        }
        for layer in range(mask.n_layers)
    ]
    return json.dumps({**whole, BLOCKS: blocks}, indent=2, ensure_ascii=False) + "\n"


def _opened(config: Mapping[str, Any] | Path | None) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return dict(config)
    if config is None:
        _cannot("the dense model's config.json for the width of its layers", "none")
    try:
        content = json.loads(read_bytes(Path(config), _MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        _cannot(f"the dense model's configuration at '{short(config)}'", short(error))
    if not isinstance(content, dict):
        _cannot(f"the dense model's configuration at '{short(config)}'", type(content).__name__)
    return content


def _by_layer(text: Mapping[str, Any], key: str, n_layers: int) -> Iterator[int]:
    """Yield a width for each layer, from one number or a list of them."""
    if any(text.get(name) for name in _EXPERTS):
        _cannot("layers without experts", "a mixture of experts")
    value = text.get(key, text.get("num_attention_heads") if key == "num_key_value_heads" else None)
    values = value if isinstance(value, list) and len(value) == n_layers else [value] * n_layers
    for one in values:
        if type(one) is not int or one < 1:
            _cannot(f"a number of '{key}' in the model's configuration", one)
        yield one


def _cannot(expected: str, got: object) -> NoReturn:
    raise MaskError(
        f"The mask cannot be written for Puzzletron: expected {expected}, got {str(got)[:100]}. "
        "Pass the configuration of the dense model that the mask is for (`--config` of `strata mask`)."
    )
