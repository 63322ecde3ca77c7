"""A layer without its attention or its MLP is the layer whose part writes zeros. Such edits are swept, timed and kept, and not exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, changed_copy, same_weights, weights_of
from torch import nn
from typer.testing import CliRunner

from vlm_analysis import (
    Drop,
    DropPart,
    Edit,
    Fold,
    LoadedModel,
    Narrow,
    PromptSet,
    PruneMask,
    Tensors,
    apply_edit,
    cli,
    drop_parts,
    early_exit,
    evaluate,
    export_checkpoint,
    freeze,
    measure_cost,
    open_edit,
    save_edit,
    sweep,
    will_it_serve,
)
from vlm_analysis.errors import EditError, ExportError
from vlm_analysis.evaluation.flops import Shape, prefill_flops
from vlm_analysis.model_info import LayerWidth, ModelInfo

BOTH = drop_parts(8, attention=[0, 3], mlp=[4])
CACHE_OF_A_TOKEN = 2 * 4  # bytes of a key and a value of one float32 number: what stays where tokens are counted


@contextmanager
def writing_zeros(model: Any, *names: str) -> Iterator[None]:
    """Inside, these modules of the decoder's layers run and give zeros."""
    layers = model.get_decoder().layers
    hooks = [
        layers.get_submodule(name).register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        for name in names
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def test_it_is_the_layer_whose_part_writes_zeros(small: LoadedModel, few: PromptSet):
    inputs, before = ask(small, few[0]), weights_of(small.model)
    view = apply_edit(small.model, PruneMask(8, (5,)) + BOTH)
    found = view(**inputs).logits
    with writing_zeros(small.model, "0.self_attn.o_proj", "3.self_attn.o_proj", "4.mlp.down_proj"):
        expected = apply_edit(small.model, PruneMask(8, (5,)))(**inputs).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert same_weights(small.model, before)
    gone = set(apply_edit(small.model, PruneMask(8, (5,))).state_dict()) - set(view.state_dict())
    assert {name.rpartition("layers.")[2].rsplit(".", 2)[0] for name in gone} == {"0.self_attn", "3.self_attn", "4.mlp"}


@torch.no_grad()
def test_decoding_with_a_cache_writes_what_decoding_without_one_does(small: LoadedModel, few: PromptSet):
    inputs = ask(small, few[0])
    for edit in (BOTH, drop_parts(8, attention=range(7)), BOTH + early_exit(8, 4, form="sliced")):
        view = apply_edit(small.model, edit)
        how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        one, other = (view.generate(**inputs, **how, use_cache=used) for used in (True, False))
        assert torch.equal(one, other), edit.words()


@torch.no_grad()
def test_a_layer_without_attention_caches_nothing_but_the_first_that_counts_tokens(small: LoadedModel, few: PromptSet):
    inputs = ask(small, few[0])
    dense, left = (
        [
            sum(tensor.numel() * 4 for tensor in vars(layer).values() if torch.is_tensor(tensor))
            for layer in model(**inputs, use_cache=True).past_key_values.layers
        ]
        for model in (small.model, apply_edit(small.model, BOTH))
    )
    n_tokens = inputs["input_ids"].shape[1]
    expected = [CACHE_OF_A_TOKEN * n_tokens if layer == 0 else size for layer, size in enumerate(dense)]
    expected[3] = 0
    assert left == expected


def test_edits_are_swept_and_saved_like_any(small: LoadedModel, few: PromptSet, tmp_path: Path):
    few = few[:2]
    dense = evaluate(small, few)
    edits = [BOTH, drop_parts(8, mlp=[4]), PruneMask(8, (5,)) + drop_parts(8, mlp=[4])]
    for edit, found in zip(edits, sweep(small, few, edits, reference=dense, batch_size=2), strict=True):
        alone = evaluate(small, few, edit, reference=dense, batch_size=2)
        pd.testing.assert_frame_equal(found.by_prompt, alone.by_prompt, check_exact=True)
        assert open_edit(save_edit(edit, tmp_path / "one.json")) == edit


class TestTheValue:
    def test_a_layer_without_both_parts_is_dropped(self):
        edit = drop_parts(8, [3, 5], [5])
        assert edit.changes == (Drop((5,)), DropPart(attention=(3,)))
        assert [layer for layer, _ in edit.steps.layers] == [0, 1, 2, 3, 4, 6, 7]
        with pytest.raises(EditError, match=r"Nothing is left of layer 5: .* Drop the layer"):
            _ = drop_parts(8, [5]) + drop_parts(8, mlp=[5])

    def test_it_makes_way_for_a_dropped_layer_and_stays_beside_vision_tokens(self):
        edit = freeze(8, [4]) + Edit(8, (Narrow({5: [0]}),)) + PruneMask(8, (3,)) + drop_parts(8, [3], [4])
        assert [change.kind for change in edit.changes] == ["drop", "drop-part", "narrow", "vision"]
        assert edit.changes[1] == DropPart(mlp=(4,))
        assert drop_parts(8, [3]).steps != drop_parts(8, mlp=[3]).steps != Edit(8).steps

    @pytest.mark.parametrize(
        ("content", "said"),
        [({"attention": 3, "mlp": []}, "a list of layers as 'attention'"), ({"attention": [3, 3], "mlp": []}, "once")],
    )
    def test_a_damaged_file_is_named(self, content: dict[str, Any], said: str):
        with pytest.raises(EditError, match=said):
            DropPart.from_json(content)

    def test_flops_and_parameters_are_those_of_what_is_left(self):
        info = ModelInfo(
            "toy",
            "",
            3,
            layer_parameters=(100, 100, 100),
            n_parameters=400,
            widths=(LayerWidth(5, 2, 10, 20, mlp_parameters=50, attention_parameters=40),) * 3,
        )
        edit = drop_parts(3, [1], [2])
        dense, left = prefill_flops(info, edit, Shape(4, 6, 8, 20))
        pairs = 10 * 11 / 2
        assert dense == 3 * (2 * 100 * 10 + 4 * 8 * pairs)
        assert left == (2 * 100 * 10 + 4 * 8 * pairs) + 2 * 60 * 10 + (2 * 50 * 10 + 4 * 8 * pairs)
        assert edit.saved_parameters(info) == 40 + 50


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"locked": {3: "it is needed"}}, "attention of layer 3 cannot be left out: it is needed"),
        ({"attention_layers": (1, 5)}, "through a state"),
        ({"cross_attention_layers": (3,)}, "by cross-attention"),
    ],
)
def test_attention_that_is_needed_or_none_is_refused_and_the_mlp_is_not(info: dict[str, Any], said: str):
    model = ModelInfo("any", "", 8, **info)
    assert said in drop_parts(8, [3]).refuses(model)
    assert drop_parts(8, mlp=[3]).refuses(model) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layer: layer.register_forward_hook(lambda _, __, output: output + 1), "which does more besides"),
        (
            lambda layer: layer.register_module("attention", nn.Linear(1, 1)),
            "one for its MLP, got Qwen3VLTextDecoderLayer",
        ),
        (lambda layer: layer.mlp.register_module("experts", nn.ModuleList([nn.Linear(2, 2)] * 2)), "got experts"),
    ],
)
def test_a_layer_that_is_built_otherwise_is_refused_with_the_reason(small: LoadedModel, change: Any, said: str):
    spoilt = changed_copy(small)
    change(spoilt.model.get_decoder().layers[4])
    with pytest.raises(EditError, match=said):
        apply_edit(spoilt.model, drop_parts(8, mlp=[4]))


def test_what_is_left_out_cannot_be_folded(small: LoadedModel):
    fold = Fold(4, Tensors.of({"mlp.down_proj": np.eye(8)}))
    with pytest.raises(EditError, match="folded"):
        apply_edit(small.model, Edit(8, (DropPart(mlp=(4,)), fold)))


def test_widths_of_what_is_left_out_vanish(small: LoadedModel):
    narrow = Narrow({3: [0], 4: range(100)}, {3: [0], 4: [1]})
    edit = Edit(8, (narrow, DropPart((3,), (4,))))
    assert edit.changes == (DropPart((3,), (4,)), Narrow({3: [0]}, {4: [1]}))
    assert edit == drop_parts(8, [3], [4]) + Edit(8, (narrow,))
    assert drop_parts(8, mlp=[4]) + Edit(8, (Narrow({4: [0]}),)) == drop_parts(8, mlp=[4])
    view = apply_edit(small.model, edit)
    saved = sum(one.numel() for one in small.model.parameters()) - sum(one.numel() for one in view.parameters())
    assert edit.saved_parameters(small.info) == saved > 0


def test_it_is_not_exported_and_says_why(small: LoadedModel, tmp_path: Path):
    with pytest.raises(ExportError, match="run attention and MLP of every layer"):
        export_checkpoint(small, BOTH, tmp_path / "out")
    assert {one.verdict for one in will_it_serve(small, BOTH)} == {"refuses"}


def test_the_cost_counts_what_is_left(small: LoadedModel, few: PromptSet):
    cost = measure_cost(small, few[:1], drop_parts(8, [3], [4]), rounds=1, new_tokens=2)
    layers = small.model.get_decoder().layers
    gone = sum(one.numel() for part in (layers[3].self_attn, layers[4].mlp) for one in part.parameters())
    assert cost.n_parameters == (small.n_parameters, small.n_parameters - gone)
    assert cost.edit.saved_parameters(small.info) == gone
    assert cost.cache_bytes is not None
    assert cost.cache_bytes[1] * 8 == cost.cache_bytes[0] * 7
    assert cost.prefill_flops is not None
    assert cost.prefill_flops[1] < cost.prefill_flops[0]


@pytest.mark.usefixtures("_no_bars", "_loaded_once")
def test_the_command_makes_such_a_mask(loaded: LoadedModel, few: PromptSet, tmp_path: Path):
    from vlm_analysis import record, save_recording

    recording = save_recording(record(loaded, few[:1], full=False), tmp_path / "r.npz")

    def strata(*words: object, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.strata, [str(word) for word in words])
        assert done.exit_code == code, (done.stderr, done.exception)
        return done

    out = tmp_path / "lists.llm-drop.json"
    said = strata("mask", recording, "--drop-attention", "3,5", "--drop-mlp", "5-7", "--drop", "9", "--out", out)
    assert "drops layer" in said.stdout or "leaves out" in said.stdout
    assert json.loads(out.read_text()) == {
        "drop_attn_list": [3, 5, 9],
        "drop_mlp_list": [5, 6, 7, 9],
        "num_hidden_layers": 16,
    }
    expected = PruneMask(16, (5, 9)) + drop_parts(16, [3], [6, 7])
    assert open_edit(out) == expected
    assert json.loads(strata("show", out, "--json").stdout)["key"] == expected.key
    refused = strata("mask", recording, "--drop-mlp", "x", code=2)
    assert "--drop-mlp names no layers: expected layers like 3,5-7, got 'x'" in " ".join(refused.stderr.split())
