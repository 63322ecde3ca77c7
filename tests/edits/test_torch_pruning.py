"""Histories of Torch-Pruning come in and go out as the neurons that they take; the tool itself cuts the same model by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vlm_analysis import (
    Edit,
    Narrow,
    PruneMask,
    apply_edit,
    edit_to_torch_pruning,
    open_dialect,
    open_edit,
)
from vlm_analysis.errors import EditError, MaskError, NoLayerCountError
from vlm_analysis.model_info import LayerWidth, ModelInfo

GATE = "model.language_model.layers.{}.mlp.gate_proj"
INFO = ModelInfo(
    "toy",
    "",
    3,
    layer_parameters=(1,) * 3,
    widths=(LayerWidth(6, 2, 1, 1),) * 2 + (LayerWidth(0, 2, 0, 1, mlp_locked="it routes tokens"),),
)


def opened(history: Any, model: ModelInfo | None = INFO) -> Edit:
    return open_dialect(json.dumps(history).encode(), "history.json", model=model)


def test_numbers_are_those_that_entries_before_left() -> None:
    history = [
        [GATE.format(0), True, [0, 5]],
        ["layers.0.mlp.down_proj", False, [3]],
        ["model.layers.1.feed_forward.w2", False, [1]],
    ]
    edit = opened(history)
    assert edit == Edit(3, (Narrow({0: [1, 2, 3], 1: [0, 2, 3, 4, 5]}),))
    assert edit.provenance == {"opened_from": "Torch-Pruning"}
    assert (
        edit_to_torch_pruning(edit)
        == json.dumps([[GATE.format(0), True, [0, 4, 5]], [GATE.format(1), True, [1]]]) + "\n"
    )
    assert opened(json.loads(edit_to_torch_pruning(edit))) == edit


def test_it_needs_the_widths_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "history.json").write_text(json.dumps([[GATE.format(0), True, [0]]]))
    for model in (None, ModelInfo("old", "", 3)):
        with pytest.raises(NoLayerCountError, match="how wide the model's layers are: expected their widths"):
            open_edit(tmp_path / "history.json", model=model)
    assert open_edit(tmp_path / "history.json", model=INFO) == Edit(3, (Narrow({0: range(1, 6)}),))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ([GATE.format(0), False, [0]], "got inputs of model.language_model.layers.0.mlp.gate_proj"),
        (["model.visual.layers.0.mlp.fc1", True, [0]], "got outputs of model.visual"),
        (["model.layers.0.self_attn.k_proj", True, [0]], "neurons of the MLPs"),
        ([GATE.format(3), True, [0]], r"expected layers 0\.\.2, got layer 3"),
        ([GATE.format(2), True, [0]], "layer 2: it routes tokens"),
        ([GATE.format(0), True, [6]], r"neurons in 0\.\.5 of layer 0"),
        ([GATE.format(0), True, [1, 1]], "different neurons"),
        ([GATE.format(0), True, [True]], "different neurons"),
        ([GATE.format(0), True, list(range(6))], "one that stays"),
        ([GATE.format("9" * 40), True, [0]], "neurons of the MLPs"),
    ],
)
def test_what_is_not_an_edit_of_this_model_is_refused(entry: Any, said: str) -> None:
    with pytest.raises(MaskError, match=said):
        opened([entry])


@pytest.mark.parametrize(
    "edit",
    [
        PruneMask(3, [1]),
        Edit(3, (Narrow({}, {0: [0]}),), model=INFO),
        PruneMask(3, [1], model=INFO) + Edit(3, (Narrow({0: [1]}),)),
        Edit(3, (Narrow({0: [1]}),)),
    ],
)
def test_only_narrow_mlps_of_a_known_model_go_out(edit: Edit) -> None:
    with pytest.raises(EditError, match="cannot be written for Torch-Pruning: expected an edit that"):
        edit_to_torch_pruning(edit)


@pytest.mark.slow
def test_the_tool_cuts_a_model_by_what_goes_out_as_the_edit_does() -> None:
    import torch_pruning

    from vlm_analysis.models.layers import layer_info

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
    info = layer_info(model)
    edit = Edit(3, (Narrow({0: range(5, 48), 2: range(0, 48, 2)}),), model=info)
    history = json.loads(edit_to_torch_pruning(edit, layers="model.layers"))
    inputs = torch.randint(0, 64, (1, 9), generator=torch.Generator().manual_seed(1))
    view = apply_edit(model, edit)
    expected = view(inputs).logits
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, inputs, forward_fn=lambda one, given: one(given, use_cache=False).logits, verbose=False
    )
    graph.load_pruning_history(history)
    assert model.model.layers[2].mlp.down_proj.weight.shape == (32, 24)
    torch.testing.assert_close(model(inputs).logits, expected, rtol=0, atol=0)
    assert opened(json.loads(json.dumps(graph.pruning_history())), info) == edit
