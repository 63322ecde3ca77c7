"""Tiny models with four layers in the vision encoder, and the oracle of a tower without some: these layers hand on what they are given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from vlm_analysis import Edit, Tower, apply_edit
from vlm_analysis.models.layers import find_decoder_layers, layer_info
from vlm_analysis.models.tower import TowerLayers, find_tower

from .build import N_LAYERS, tiny_config, tiny_model
from .checks import logits
from .image_rows import IMAGES, TOKENS
from .images import image_inputs
from .noise import NOISE
from .rows import CHANGES

DEEP = 4
_READ = {  # what reads layers of the deeper towers, where the classes' own settings name layers that these lack
    "cohere_compass": {"vision_config.deepstack_visual_indexes": [0, 2]},
    "cosmos3_omni": {"vision_config.deepstack_visual_indexes": [0, 2]},
    "granite_docling": {"vision_config.deepstack_visual_indexes": [0, 2]},
    "qwen3_vl": {"vision_config.deepstack_visual_indexes": [0, 2]},
    "qwen3_vl_moe": {"vision_config.deepstack_visual_indexes": [0, 2]},
    "exaone4_5": {"vision_config.fullatt_block_indexes": [1, 3]},
    "hyperclovax_vision_v2": {"vision_config.fullatt_block_indexes": [1, 3]},
    "qwen2_5_vl": {"vision_config.fullatt_block_indexes": [1, 3]},
    "got_ocr2": {"vision_config.global_attn_indexes": [1, 3]},
    "pp_chart2table": {"vision_config.global_attn_indexes": [1, 3]},
    "lfm3_vl": {"vision_config.layer_types": ["conv", "full_attention"] * 2},
    "minicpmv4_6": {"insert_layer_id": 1, "vision_config.insert_layer_id": 1},
    "minicpmv4_7": {"insert_layer_id": 1, "vision_config.insert_layer_id": 1},
    "mllama": {"vision_config.intermediate_layers_indices": [2]},
    "molmo2": {"adapter_config.vision_feature_layer": [2, 0]},
}

WHOLE = ("chameleon",)  # its pictures come in as codes
LOSING = [kind for kind in (*IMAGES, *NOISE) if kind not in WHOLE]
LOCKED = dict.fromkeys(("cohere_compass", "cosmos3_omni", "granite_docling", "qwen3_vl", "qwen3_vl_moe"), 2)
LOCKED |= dict.fromkeys(("minicpmv4_6", "minicpmv4_7", "mllama"), 1)
"""By class, how many of the four layers cannot be dropped."""


def tower_mark(kind: str) -> str:
    """Return the cell of a class: all layers of its tower can be dropped, so many can, or it was not tried."""
    if kind not in LOSING:
        return "–"
    return str(DEEP - LOCKED[kind]) if kind in LOCKED else "✓"


def tower_model(kind: str, changes: dict[str, Any] | None = None) -> Any:
    """Return the tiny model of a class that sees, with four layers in its vision encoder."""
    seen = {"vocab_size": 320} | (NOISE[kind][3] if kind in NOISE else IMAGES[kind][4])
    settings = CHANGES.get(kind, {}) | TOKENS | seen
    vision = vars(tiny_config(kind, settings).vision_config)
    count = next(name for name in ("num_hidden_layers", "depth", "num_layers") if name in vision)
    return tiny_model(kind, settings | {f"vision_config.{count}": DEEP} | _READ.get(kind, {}) | (changes or {}))


def tower_of(model: Any) -> TowerLayers:
    tower = find_tower(model, find_decoder_layers(model))
    assert not isinstance(tower, str), tower
    return tower


@contextlib.contextmanager
def handing_on(model: Any, dropped: Sequence[int]) -> Iterator[None]:
    """Inside, these layers of the vision encoder run, and return what they were given."""

    def without_effect(forward: Callable[..., Any]) -> Callable[..., Any]:
        def hand_on(*args: Any, **kwargs: Any) -> Any:
            given = args[0] if args else kwargs.get("hidden_states", kwargs.get("hidden_state"))
            output = forward(*args, **kwargs)
            return (given, *output[1:]) if isinstance(output, tuple) else given

        return hand_on

    layers = [tower_of(model).layers[layer] for layer in dropped]
    for layer in layers:  # in place of forward, so that whoever listens to the layer hears what it hands on
        layer.forward = without_effect(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def droppable(model: Any, kind: str) -> list[int]:
    """Return the layers of the tower of a tiny model that can be dropped; their number must be that of the table."""
    tower = layer_info(model).tower
    assert tower is not None
    assert (tower.missing, tower.n_layers, len(tower.locked)) == ("", DEEP, LOCKED.get(kind, 0))
    return tower.locks.keeping(unprotect=True).free


def without(*dropped: int) -> Edit:
    return Edit(N_LAYERS, (Tower(DEEP, dropped),))


def check_tower(kind: str) -> str:
    """Check a class with a picture: its tower without layers is one in which they hand on what they are given. Returns the mark."""
    if kind not in LOSING:
        return tower_mark(kind)
    model, inputs = tower_model(kind), image_inputs(kind)
    dense, free, tower = logits(model, inputs), droppable(model, kind), layer_info(model).tower
    assert tower is not None
    for dropped in (*((layer,) for layer in free), tuple(free[:2]), tuple(free[1:])):
        with handing_on(model, dropped):
            expected = logits(model, inputs)
        assert torch.equal(logits(apply_edit(model, without(*dropped)), inputs), expected), dropped
        assert torch.equal(expected, dense) == (set(dropped) <= set(tower.unread)), dropped
    assert torch.equal(logits(model, inputs), dense)
    return tower_mark(kind)
