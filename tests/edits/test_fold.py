"""A fold is the map that it says, in the weight that is there; it goes the whole way as any change does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, same_weights, weights_of

from vlm_analysis import (
    Edit,
    Fold,
    LoadedModel,
    PromptSet,
    PruneMask,
    Tensors,
    apply_edit,
    evaluate,
    open_evaluation,
    save_evaluation,
    sweep,
)
from vlm_analysis.errors import EditError

DOWN = "mlp.down_proj"


def fold(values: np.ndarray, layer: int = 2, name: str = DOWN) -> Edit:
    return Edit(8, (Fold(layer, Tensors.of({name: values})),))


@torch.no_grad()
def mapped(model: Any, maps: Mapping[int, np.ndarray], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the logits of a model with hooks that map what MLPs give."""
    hooks = [
        model.get_decoder()
        .layers[layer]
        .mlp.register_forward_hook(
            lambda _, __, output, values=values: (output.double() @ torch.tensor(values).T).float()
        )
        for layer, values in maps.items()
    ]
    try:
        return model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def maps(small: LoadedModel) -> dict[int, np.ndarray]:
    size = small.model.get_decoder().layers[2].mlp.down_proj.out_features
    draw = np.random.default_rng(0)
    return {layer: np.eye(size) + draw.normal(scale=0.2, size=(size, size)) for layer in (2, 3)}


def test_a_fold_is_the_explicit_map_and_the_dense_model_never_notices(small, few, maps):
    inputs, before = ask(small, few[0]), weights_of(small.model)
    edit = PruneMask(8, (5,)) + fold(maps[2]) + fold(maps[3], 3)
    view = apply_edit(small.model, edit)
    expected = mapped(apply_edit(small.model, PruneMask(8, (5,))), maps, inputs)
    with torch.no_grad():
        torch.testing.assert_close(view(**inputs).logits, expected, rtol=1e-4, atol=1e-4)
    shared = {tensor.data_ptr() for tensor in small.model.state_dict().values()}
    own = [name for name, tensor in view.state_dict().items() if tensor.data_ptr() not in shared]
    assert own == [f"model.language_model.layers.{layer}.{DOWN}.weight" for layer in (2, 3)]
    assert same_weights(small.model, before)


def test_factors_of_channels_are_the_diagonal_map(small, maps):
    factors = maps[2].diagonal()
    one, other = (
        apply_edit(small.model, fold(values)).state_dict()[f"model.language_model.layers.2.{DOWN}.weight"]
        for values in (factors, np.diag(factors))
    )
    torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


def test_a_bias_is_mapped_too():
    from vlm_analysis.edits.kinds.fold import _multiply

    weight, bias = torch.rand(3, 5, dtype=torch.bfloat16), torch.rand(3, dtype=torch.float16)
    left = np.random.default_rng(0).normal(size=(3, 3))
    for values, expected in ((weight, left @ weight.double().numpy()), (bias, left @ bias.double().numpy())):
        own = values.clone()
        _multiply(left, own)
        assert torch.equal(own, torch.tensor(expected).to(own.dtype)), "rounded once"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (fold(np.eye(3)), r"expected one of \d+ channels, got one of shape \(3, 3\)"),
        (fold(np.eye(3), name="mlp.nothing"), "'mlp.nothing' of layer 2: .* got no such module"),
        (fold(np.eye(3), name="mlp"), "got a Qwen3VLTextMLP"),
        (Edit(8, (Fold(2, Tensors("0" * 64)),)), "got their hash only"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(small, edit, said):
    before = weights_of(small.model)
    with pytest.raises(EditError, match=said):
        apply_edit(small.model, edit)
    assert same_weights(small.model, before)


def test_folds_are_swept_and_saved_like_any_change(small: LoadedModel, few: PromptSet, maps, tmp_path):
    few = few[:2]
    dense = evaluate(small, few)
    edits = [fold(maps[2]), PruneMask(8, (5,)), PruneMask(8, (5,)) + fold(maps[2])]
    for edit, found in zip(edits, sweep(small, few, edits, reference=dense, batch_size=2), strict=True):
        alone = evaluate(small, few, edit, reference=dense, batch_size=2)
        pd.testing.assert_frame_equal(found.by_prompt, alone.by_prompt, check_exact=True)
    opened = open_evaluation(save_evaluation(found, tmp_path / "e.json"))
    assert opened.edit == edits[-1]
    with pytest.raises(EditError, match="Open the edit from its own file"):
        apply_edit(small.model, opened.edit)
