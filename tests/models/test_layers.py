"""Finding the decoder layers: the right list, the risky ones with reasons, and a refusal in words elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.build import tiny_model
from conformance.rows import ALONE, CHANGES
from families import gemma, gemma_layers, llama, t5
from oracles import qwen_layers
from torch import nn

from vlm_analysis import LoadedModel, PruneMask
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import ModelError
from vlm_analysis.evaluation.run.timing import count_weights
from vlm_analysis.models.config import config_hash
from vlm_analysis.models.layers import (
    find_decoder_layers,
    find_decoder_path,
    layer_parameters,
    locked_layers,
    protected_layers,
    text_config,
)


def test_the_bundled_model_has_sixteen_decoder_layers(loaded: LoadedModel) -> None:
    assert find_decoder_layers(loaded.model) is qwen_layers(loaded.model)
    assert find_decoder_path(loaded.model)[0] == "model.language_model.layers"
    assert loaded.n_layers == 16 == text_config(loaded.model).num_hidden_layers


def test_a_vision_encoder_of_equal_length_is_not_taken_for_the_decoder() -> None:
    model = gemma(vision_layers=6)
    assert find_decoder_layers(model) is gemma_layers(model)


def test_a_language_model_alone_has_decoder_layers_too() -> None:
    model = llama()
    assert find_decoder_layers(model) is model.model.layers


def test_first_last_and_deepstack_layers_are_protected_with_reasons(loaded: LoadedModel) -> None:
    reasons = protected_layers(loaded.model)
    assert list(reasons) == [0, 1, 15]
    assert "first layer" in reasons[0]
    assert "DeepStack" in reasons[0]
    assert "DeepStack" in reasons[1]
    assert "last layer" in reasons[15]
    assert reasons == loaded.protected_layers


def test_without_deepstack_only_the_ends_are_protected() -> None:
    assert list(protected_layers(gemma())) == [0, 5]


def test_nothing_is_locked_in_the_bundled_model(loaded: LoadedModel) -> None:
    assert locked_layers(loaded.model) == {} == loaded.locked_layers


def test_an_encoder_decoder_model_is_refused() -> None:
    for find in (find_decoder_layers, protected_layers, locked_layers):
        with pytest.raises(ModelError, match=r"T5ForConditionalGeneration is an encoder-decoder.*Choose another"):
            find(t5())


@pytest.mark.parametrize("find", [find_decoder_layers, protected_layers, locked_layers, text_config])
def test_a_plain_module_is_refused(find: object) -> None:
    with pytest.raises(ModelError, match=r"Linear has no .*expected"):
        find(nn.Linear(2, 2))  # type: ignore[operator]


def test_a_decoder_of_another_length_than_its_configuration_is_refused() -> None:
    model = llama()
    model.config.num_hidden_layers = 5
    with pytest.raises(ModelError, match=r"were not found.*one list of 5 modules.*found 0"):
        find_decoder_layers(model)


@pytest.mark.parametrize("kind", ["gemma4", "gemma3n", "qwen3_vl", "qwen3_vl_moe"])
def test_parameters_of_layers_are_what_pruning_leaves_out(kind: str) -> None:
    model = tiny_model(
        kind, CHANGES.get(kind, {}) | {"text_config.hidden_size_per_layer_input": 12}, alone=kind in ALONE
    )
    sizes, dense = layer_parameters(model), count_weights(model)[0]
    free = [layer for layer in range(len(sizes)) if layer not in locked_layers(model)]
    for dropped in ((free[0],), (free[0], free[-2])):
        pruned = count_weights(apply_edit(model, PruneMask(len(sizes), dropped)))[0]
        assert dense - pruned == sum(sizes[layer] for layer in dropped)


def test_configuration_hash_tells_architectures_apart_and_nothing_else(tmp_path: Path) -> None:
    config = gemma().config
    again = type(config).from_dict(config.to_dict() | {"dtype": "bfloat16", "transformers_version": "4.0"})
    again.save_pretrained(tmp_path)
    assert config_hash(type(config).from_pretrained(tmp_path)) == config_hash(config)
    assert config_hash(gemma(layers=5).config) != config_hash(config) != config_hash(gemma(vision_layers=3).config)
