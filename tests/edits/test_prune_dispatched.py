"""Models that accelerate has spread over devices: the view runs its own layers, with the hooks that move tensors around."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from accelerate.hooks import ModelHook, add_hook_to_module
from families import gemma, gemma_inputs, gemma_layers, llama
from oracles import skipping

from vlm_analysis import PruneMask
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import ModelError

MASK = PruneMask(6, (1, 4))


class Counts(ModelHook):
    """Counts on the module it is called with, so that a copy's calls and the original's are told apart."""

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        module.calls = getattr(module, "calls", 0) + 1
        return args, kwargs


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(**gemma_inputs(), use_cache=False).logits


def dispatched() -> Any:
    """Return a Gemma 3 all of whose parts accelerate has hooked, although they are on one device."""
    places = {f"model.language_model.layers.{index}": "cpu" for index in range(6)}
    parts = ("embed_tokens", "norm", "rotary_emb")
    places |= dict.fromkeys((f"model.language_model.{part}" for part in parts), "cpu")
    places |= dict.fromkeys(("model.vision_tower", "model.multi_modal_projector", "lm_head"), "cpu")
    return dispatch_model(gemma(), places, main_device="cpu", force_hooks=True)


def test_the_view_of_a_dispatched_model_equals_skipping_the_layers() -> None:
    model = dispatched()
    assert "forward" in vars(gemma_layers(model)[0])
    expected = logits(skipping(gemma(), gemma_layers, MASK.dropped))
    assert torch.equal(logits(apply_edit(model, MASK)), expected)


def test_the_view_runs_its_own_layers_and_never_the_dense_ones() -> None:
    model = gemma()
    for module in model.modules():
        add_hook_to_module(module, Counts())
    view = apply_edit(model, MASK)
    logits(view)
    assert [layer.calls for layer in gemma_layers(view)] == [1, 1, 1, 1]
    assert not any(hasattr(module, "calls") for module in model.modules())
    assert torch.equal(logits(model), logits(gemma()))


def test_a_view_of_a_view_is_hooked_too() -> None:
    twice = apply_edit(apply_edit(dispatched(), MASK), PruneMask(4, (1,)))
    assert torch.equal(logits(twice), logits(apply_edit(gemma(), PruneMask(6, (1, 2, 4)))))


@torch.no_grad()
def test_weights_that_wait_elsewhere_are_brought_to_the_view() -> None:
    model, mask, ids = llama(), PruneMask(2, (0,)), torch.tensor([[3, 5, 7, 9]])
    expected = apply_edit(model, mask)(input_ids=ids, use_cache=False).logits
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.model.layers[0].mlp.up_proj.weight.device.type == "meta"
    assert torch.equal(apply_edit(model, mask)(input_ids=ids, use_cache=False).logits, expected)


def test_the_device_map_speaks_of_the_layers_that_are_left() -> None:
    model = dispatched()
    model.hf_device_map["model.language_model.layers.5"] = "here"
    places = apply_edit(model, MASK).hf_device_map
    assert [name for name in places if ".layers." in name] == [f"model.language_model.layers.{n}" for n in range(4)]
    assert places["model.language_model.layers.3"] == "here"
    assert len(model.hf_device_map) == len(places) + 2


def test_a_forward_replaced_by_anything_else_is_refused() -> None:
    model = gemma()
    layer = gemma_layers(model)[2]
    layer.forward = layer.forward
    with pytest.raises(ModelError, match=r"Gemma3DecoderLayer cannot be pruned.*other than accelerate.*Load the model"):
        apply_edit(model, MASK)
