"""FLOPs of the vision encoder by formula, against those that torch counts in the real module, and its layers' part of a prefill."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conformance.build import N_LAYERS
from conformance.images import image_inputs
from conformance.towers import tower_model, tower_of
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vlm_analysis import Edit, LoadedModel, PromptSet, PruneMask, Tower, apply_edit, measure_cost
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.flops import EncoderShape, encoder_flops
from vlm_analysis.evaluation.run.latency import timed_batches
from vlm_analysis.evaluation.run.shapes import EncoderWatch
from vlm_analysis.model_info import ModelInfo, TowerInfo
from vlm_analysis.models.layers import layer_info


class Counted:
    """What torch counts in the layers of a vision encoder, and what it leaves out: biases and norms, as often as tokens run through."""

    def __init__(self) -> None:
        self.flops, self.left_out = 0, 0


@contextmanager
def counting(model: Any) -> Iterator[Counted]:
    tower, counted = tower_of(model), Counted()
    handles = [layer.register_forward_pre_hook(_left_out(layer, counted), with_kwargs=True) for layer in tower.layers]
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as mode:
            yield counted
    finally:
        for handle in handles:
            handle.remove()
    found = mode.get_flop_counts()
    names = [f"{type(model).__name__}.{tower.path}.{index}" for index in range(len(tower.layers))]
    counted.flops = sum(sum(found[name].values()) for name in names)


def _left_out(layer: nn.Module, counted: Counted) -> Any:
    vectors = sum(parameter.numel() for parameter in layer.parameters() if parameter.ndim < 2)

    def note(module: Any, args: Any, kwargs: Any) -> None:
        state = args[0] if args else kwargs["hidden_states"]
        counted.left_out += 2 * vectors * state.numel() // state.shape[-1]

    return note


@pytest.mark.parametrize(
    "kind", ["llava", "qwen2_5_vl", "mllama"]
)  # pictures apart, stretches of one row, and padded tiles
def test_the_formula_is_what_torch_counts_dense_and_without_layers(kind: str) -> None:
    model, inputs = tower_model(kind), image_inputs(kind)
    tower, watch = layer_info(model).tower, EncoderWatch(model)
    assert tower is not None
    with watch.watching(), counting(model) as dense:
        model(**inputs)
    shape = watch.mean(1)
    assert shape is not None
    edit = Edit(N_LAYERS, (Tower(4, tuple(tower.locks.keeping(unprotect=True).free[:2])),))
    view = apply_edit(model, edit)
    with counting(view) as edited:
        view(**inputs)
    info = ModelInfo("made", "f" * 64, N_LAYERS, tower=tower)
    assert edited.flops < dense.flops
    assert encoder_flops(info, edit, shape) == (dense.flops + dense.left_out, edited.flops + edited.left_out)


def test_a_class_that_runs_its_layers_on_a_map_has_no_formula() -> None:
    model = tower_model("got_ocr2")
    watch = EncoderWatch(model)
    with watch.watching(), torch.inference_mode():
        model(**image_inputs("got_ocr2"))
    assert watch.mean(1) is None


def test_layers_that_were_not_counted_are_refused() -> None:
    info = ModelInfo("made", "f" * 64, 2, tower=TowerInfo(2, (5, 5)))
    with pytest.raises(EvaluationError, match="expected the parameters of 3 layers, got those of 2"):
        encoder_flops(info, PruneMask(2, (1,)), EncoderShape((1.0,) * 3, (1.0,) * 3))


def test_a_cost_has_the_flops_of_its_prompts_and_the_time_of_each_layer(loaded: LoadedModel, few: PromptSet) -> None:
    edit = Edit(16, (Tower(3, (2,)),)) + PruneMask(16, (5,))
    cost = measure_cost(loaded, few[:2], edit, rounds=1, new_tokens=2)
    assert (cost.encoder_shares > 0).all()
    assert cost.expected_share("prefill") == pytest.approx(1 - cost.layer_shares[0, 5] - cost.encoder_shares[2])
    batches, _ = timed_batches(loaded, few[:2])
    means = []
    plain = copy.deepcopy(loaded.model)
    plain.set_attn_implementation("eager")  # torch does not count the attention of its own kernels on a CPU
    for model in (plain, apply_edit(plain, edit)):
        with counting(model) as counted:
            for batch in batches:
                model(**batch)
        means.append((counted.flops + counted.left_out) / len(batches))
    assert cost.encoder_flops == pytest.approx(tuple(means), rel=1e-12)
    assert cost.prefill_flops is not None
    assert cost.all_flops == pytest.approx([sum(pair) for pair in zip(cost.prefill_flops, means, strict=True)])
