"""Configurations of Puzzletron (NVIDIA Model Optimizer): `block_configs` in `config.json`, an entry for each layer of the dense model.

An entry holds `attention` and `ffn`, each with `no_op`; a layer in which both do nothing is a dropped layer. Puzzletron also makes layers
narrower, and replaces parts with linear maps: such configurations are refused, since they say how many neurons stay and not which. Those
of Nemotron-NAS (DeciLM) have the same form. In a vision-language model the list may stand in `text_config`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign.masks import refuse, refuse_kind
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.drop_part import MLP, DropPart
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.sublayers import drop_parts, parts_left_out
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
    """Return the edit of a configuration whose layers stay as they are, or leave out a part or both; None without `block_configs`.

    Raises:
        MaskError: it narrows or replaces a layer, or is no such configuration.
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
    without = [_left_out(block, layer, name) for layer, block in enumerate(blocks)]
    _check_widths(blocks, without, inner, name)
    if all(map(all, without)):
        refuse(name, "one layer at least that stays", "none", "Leave a layer in.")
    attention, mlp = ([layer for layer, left_out in enumerate(without) if left_out[at]] for at in range(len(PARTS)))
    return replace(drop_parts(len(blocks), attention, mlp), provenance={"opened_from": "Puzzletron"})


def _stated(configs: Sequence[Mapping[str, Any]], key: str) -> Any:
    return next((config[key] for config in configs if config.get(key) is not None), None)


def _left_out(block: Any, layer: int, name: str) -> tuple[bool, ...]:
    """Return whether a layer leaves out its attention, and whether its MLP."""
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
    return tuple(part.get("no_op", False) for part in parts)


def _check_widths(
    blocks: Sequence[Any], without: Sequence[Sequence[bool]], configs: Sequence[Mapping[str, Any]], name: str
) -> None:
    """Raise MaskError where a layer has another width than the model's own, or than the first layer where that is not said."""
    kept = {
        part: {layer: block[part] for layer, block in enumerate(blocks) if not without[layer][at]}
        for at, part in enumerate(PARTS)
    }
    for part, key in itertools.product(PARTS, _WIDTHS):
        found = {layer: one[key] for layer, one in kept[part].items() if one.get(key) is not None}
        own = _stated(configs, key) if found else None
        usual = next(iter(found.values()), None) if own is None else own
        for layer, width in found.items():
            expected = usual[layer] if isinstance(usual, list) and layer < len(usual) else usual
            if width != expected:
                got = f"layer {layer} with '{key}' {str(width)[:40]} beside {str(expected)[:40]}"
                refuse(
                    name,
                    "layers that keep their width",
                    got,
                    "It does not say which neurons or heads stay: choose them with make_narrow.",
                )
    experts = [json.dumps(one["moe"], sort_keys=True) for one in kept["ffn"].values() if one.get("moe")]
    if len(set(experts)) > 1:
        refuse_kind(name, "layers with other experts ('moe')", "Keep each layer's experts there.")


def mask_to_puzzletron(mask: Edit, config: Mapping[str, Any] | Path | None) -> str:
    """Return the configuration of the dense model as JSON, with `block_configs`: an entry for each of its layers.

    A dropped layer has a `no_op` in both parts, one without attention or MLP in one, and a narrow one its own number of neurons and
    key-value heads. Which of them stay is in no such file: Puzzletron chooses them by itself.

    Args:
        mask: an edit that leaves out layers or parts of them, or makes some narrow.
        config: the dense model's configuration, as in its `config.json`, or the path of that file.

    Raises:
        MaskError: the edit does more than that; the configuration cannot be read, is of another number of layers, or says no
            width of a layer or several kinds of layers.
    """
    others = [change for change in mask.changes if not isinstance(change, Drop | DropPart | Narrow)]
    if others:
        raise MaskError(
            f"It cannot be written for Puzzletron: expected an edit that leaves out layers, parts of them or some of their width, got "
            f"one that {Edit(mask.n_layers, (others[0],)).words()}. Save it as an edit."
        )
    whole = _opened(config)
    text = next((whole[key] for key in _INNER if isinstance(whole.get(key), Mapping)), whole)
    if text.get("num_hidden_layers") != mask.n_layers:
        _cannot(f"{mask.n_layers} layers in the model's configuration", text.get("num_hidden_layers"))
    widths = {key: list(_by_layer(text, key, mask.n_layers)) for key in ("num_key_value_heads", "intermediate_size")}
    without = dict.fromkeys(mask.dropped, PARTS) | {
        layer: (PARTS[part == MLP],) for layer, part in parts_left_out(mask).items()
    }
    for change in mask.changes:
        if isinstance(change, Narrow):
            for key, kept in (("num_key_value_heads", change.kv_groups), ("intermediate_size", change.neurons)):
                for layer, numbers in kept:
                    widths[key][layer] = len(numbers)
    blocks = [
        {
            part: {"no_op": True} if part in without.get(layer, ()) else {"no_op": False, key: widths[key][layer]}
            for part, key in zip(PARTS, widths, strict=True)
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
