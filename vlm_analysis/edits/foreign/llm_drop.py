"""Configurations of LLM-Drop (arXiv:2406.15786): the layers without attention and those without MLP, in `config.json`.

`drop_attn_list` and `drop_mlp_list` hold layer numbers, counted from 0, or a true or false for each layer; `num_hidden_layers` is that
of the dense model. A layer that is in both does nothing, and is a dropped layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.foreign.masks import mask_of_layers, refuse
from vlm_analysis.edits.kinds.drop_part import PARTS
from vlm_analysis.edits.sublayers import drop_parts, parts_left_out
from vlm_analysis.errors import EditError

LISTS = ("drop_attn_list", "drop_mlp_list")


def of_json(content: Any, n_layers: int | None, name: str) -> Edit | None:
    """Return the edit of a configuration; None where it has neither list. A layer in both lists is dropped.

    Raises:
        MaskError: these are no layers of the model.
        NoLayerCountError: the number of layers is not known.
    """
    if not isinstance(content, Mapping) or not any(key in content for key in LISTS):
        return None
    stated = content.get("num_hidden_layers", n_layers)
    attention, mlp = (_layers(content.get(key) or [], stated, key, name) for key in LISTS)
    both = [layer for layer in attention if layer in mlp]
    if both or type(stated) is not int:
        mask_of_layers(both, stated, "LLM-Drop", name)  # checks that some layer is left
    return replace(drop_parts(stated, attention, mlp), provenance={"opened_from": "LLM-Drop"})


def edit_to_llm_drop(edit: Edit) -> str:
    """Return the lists of LLM-Drop, for the dense model's `config.json`; a dropped layer is in both.

    Raises:
        EditError: the edit leaves nothing out, or does more.
    """
    attention, mlp = (
        {*edit.dropped, *(layer for layer, one in parts_left_out(edit).items() if one == part)} for part in PARTS
    )
    if edit.is_dense or edit != drop_parts(edit.n_layers, attention, mlp):
        raise EditError(
            f"The edit cannot be written for LLM-Drop: expected layers, attention or MLPs that are left out, got one that {edit.words()}. "
            "Save it as an edit."
        )
    lists = dict(zip(LISTS, (sorted(attention), sorted(mlp)), strict=True))
    return json.dumps({**lists, "num_hidden_layers": edit.n_layers}, indent=2) + "\n"


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
