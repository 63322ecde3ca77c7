"""Where a layer can be mapped is found by what it does, not by its name: a layer that is built so that it cannot says why."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import gemma, gemma_inputs
from oracles import ask, changed_copy
from torch import nn

from vlm_analysis import LoadedModel, PromptSet
from vlm_analysis.models.inputs import TEXT, Encoded
from vlm_analysis.recovery.places import Place, Watch, find_place

LAYER = 3


class Times(nn.Module):
    """Gives what a module gives, times a factor, or a factor of its own for each token."""

    def __init__(self, inner: nn.Module, factor: float | None) -> None:
        super().__init__()
        self.inner, self.factor = inner, factor

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.inner(given) * (given.mean(-1, keepdim=True).sigmoid() if self.factor is None else self.factor)


class Packed(nn.Module):
    """A linear module of its own kind."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return given @ self.weight.T


def item_of(inputs: dict[str, torch.Tensor]) -> Encoded:
    return Encoded(dict(inputs), np.full(inputs["input_ids"].shape[1], TEXT), (), 1, "one")


@pytest.fixture
def found(small: LoadedModel, few: PromptSet) -> Any:
    """Return a function that changes a copy of the model's layer and finds its place."""

    def find(change: Any) -> Place | str:
        loaded = changed_copy(small)
        layers = loaded.model.get_decoder().layers
        change(layers)
        return find_place(Watch(loaded, loaded.model, LAYER, LAYER + 1), item_of(ask(small, few[0])))

    return find


def test_the_module_that_writes_last_is_found_with_the_factor_that_the_stream_gets(found):
    assert found(lambda layers: None) == Place("mlp.down_proj", 1.0, False)
    place = found(lambda layers: setattr(layers[LAYER], "mlp", Times(layers[LAYER].mlp, 0.25)))
    assert (place.name, place.factor) == ("mlp.inner.down_proj", pytest.approx(0.25, rel=1e-5))


def shared(layers: Any) -> None:
    layers[2].mlp.down_proj.weight = layers[LAYER].mlp.down_proj.weight


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda layers: setattr(layers[LAYER], "mlp", Times(layers[LAYER].mlp, None)),
            "a norm, a gate or another module",
        ),
        (
            lambda layers: setattr(layers[LAYER], "mlp", Times(layers[LAYER].mlp, 0.0)),
            "a norm, a gate or another module",
        ),
        (
            lambda layers: setattr(layers[LAYER].mlp, "down_proj", Packed(layers[LAYER].mlp.down_proj.weight.data)),
            "another module",
        ),
        (
            lambda layers: setattr(layers[LAYER], "experts", nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])),
            "experts",
        ),
        (shared, "the weight of mlp.down_proj is shared"),
    ],
)
def test_a_layer_that_takes_no_map_says_why(found, change, said):
    assert said in found(change)


def test_a_norm_behind_the_down_projection_is_seen(few):
    loaded: Any = SimpleNamespace(name="gemma", processor=SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0)))
    said = find_place(Watch(loaded, gemma(), 2, 3), item_of(gemma_inputs()))
    assert "a norm, a gate or another module stands between mlp.down_proj and the stream" in said


def test_of_an_attention_it_is_the_output_projection_whatever_the_mlp_makes_of_it(small, few):
    def at(change: Any = lambda layers: None) -> Any:
        loaded = changed_copy(small)
        change(loaded.model.get_decoder().layers)
        watch = Watch(loaded, loaded.model, LAYER, LAYER + 1)
        return find_place(watch, item_of(ask(small, few[0])), "attention")

    assert at() == Place("self_attn.o_proj", 1.0, False)
    place = at(lambda layers: setattr(layers[LAYER], "mlp", Times(layers[LAYER].mlp, 0.25)))
    assert (place.name, place.factor) == ("self_attn.o_proj", pytest.approx(1, rel=1e-5))

    def gated(layers: Any) -> None:
        layers[LAYER].self_attn.o_proj = Times(layers[LAYER].self_attn.o_proj, None)

    assert "stands between self_attn.o_proj.inner and the stream" in at(gated)


def test_a_norm_behind_an_attention_is_seen(few):
    loaded: Any = SimpleNamespace(name="gemma", processor=SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0)))
    said = find_place(Watch(loaded, gemma(), 2, 3), item_of(gemma_inputs()), "attention")
    assert "stands between" in said
