"""Configurations of LLM-Drop (arXiv:2406.15786): the layers without attention and those without MLP, in `config.json`.

`drop_attn_list` and `drop_mlp_list` hold layer numbers, counted from 0, or a true or false for each layer; `num_hidden_layers` is that
of the dense model. A layer that is in both does nothing, and is a dropped layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.edits.foreign.masks import mask_of_layers, refuse, refuse_kind
from vlm_analysis.words import layers as layer_words

LISTS = ("drop_attn_list", "drop_mlp_list")


def of_json(content: Any, n_layers: int | None, name: str) -> Edit | None:
    """Return the mask of a configuration in which both lists name the same layers; None where it has no such list.

    Raises:
        MaskError: the lists differ, or see `mask_of_layers`.
    """
    if not isinstance(content, Mapping) or not any(key in content for key in LISTS):
        return None
    stated = content.get("num_hidden_layers", n_layers)
    without = [_layers(content.get(key) or [], stated, key, name) for key in LISTS]
    attention, mlp = map(set, without)
    if attention != mlp:
        _refuse_parts(attention - mlp, mlp - attention, name)
    if not attention and type(stated) is int:
        return PruneMask(stated, provenance={"opened_from": "LLM-Drop"})
    return mask_of_layers(without[0], stated, "LLM-Drop", name)


def _refuse_parts(attention: set[int], mlp: set[int], name: str) -> NoReturn:
    parts = [
        f"{layer_words(found)} without {part} alone"
        for found, part in ((attention, "attention"), (mlp, "MLP"))
        if found
    ]
    refuse_kind(name, " and ".join(parts)[:300], "Name the same layers in both lists, or run LLM-Drop itself.")


def _layers(listed: Any, n_layers: Any, key: str, name: str) -> list[Any]:
    if not isinstance(listed, list):
        refuse(name, f"a list in '{key}'", listed, "Write layer numbers, or true or false for each layer.")
    if not all(isinstance(one, bool) for one in listed):
        mask_of_layers(listed, n_layers, "LLM-Drop", name)  # checks each list by itself
        return listed
    if listed and len(listed) != n_layers:
        refuse(
            name, f"true or false for each of {n_layers} layers in '{key}'", f"{len(listed)} of them", "Add the rest."
        )
    return [layer for layer, is_dropped in enumerate(listed) if is_dropped]
