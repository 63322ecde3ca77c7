"""Narrow on the bundled model: cut weights, zeros and activations masked by hand are one; and the whole way to a checkpoint."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles import ask, same_weights, weights_of
from transformers import AutoModelForImageTextToText

from vlm_analysis import (
    Adapt,
    Drop,
    Edit,
    Fold,
    LoadedModel,
    Narrow,
    PromptSet,
    Tensors,
    Vision,
    apply_edit,
    evaluate,
    export_checkpoint,
    measure_cost,
    open_edit,
    sweep,
)
from vlm_analysis.errors import EditError, ExportError
from vlm_analysis.evaluation.flops import Shape, prefill_flops
from vlm_analysis.export.serving.rules import will_it_serve
from vlm_analysis.figures.heatmaps import edit_strips

HEAD, PER_GROUP, NEURONS = 24, 2, 288  # of the bundled model: size of a head, query heads of a group, neurons
DRAW = np.random.default_rng(0)


def some(n: int) -> list[int]:
    return sorted(DRAW.choice(NEURONS, n, replace=False).tolist())


GLOBAL = Narrow({2: some(200), 3: some(100), 5: some(287)}, {3: [1], 4: [0]})
UNIFORM = Narrow({layer: some(180) for layer in range(8)}, {layer: [layer % 2] for layer in range(8)})


def edited(change: Narrow, *others: Any, form: str = "small") -> Edit:
    return Edit(8, (Narrow(change.neurons, change.kv_groups, form=form), *others))


@torch.no_grad()
def masked_by_hand(model: Any, change: Narrow, inputs: dict[str, Any], gone: tuple[int, ...] = ()) -> torch.Tensor:
    """Return the logits in float64 of a model whose projections into the stream do not see what goes."""
    double = copy.deepcopy(model).double()
    layers = double.get_decoder().layers

    def seeing(columns: list[int]) -> Any:
        return lambda _, args: (torch.zeros_like(args[0]).index_copy(-1, torch.tensor(columns), args[0][..., columns]),)

    with ExitStack() as stack:
        for layer, kept in change.neurons:
            hook = layers[layer].mlp.down_proj.register_forward_pre_hook(seeing(list(kept)))
            stack.callback(hook.remove)
        size = HEAD * PER_GROUP
        for layer, kept in change.kv_groups:
            columns = [group * size + column for group in kept for column in range(size)]
            layers[layer].self_attn.o_proj.register_forward_pre_hook(seeing(columns))
        for layer in gone:
            layers[layer].register_forward_hook(lambda _, args, kwargs, output: args[0], with_kwargs=True)
        given = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
        return double(**given, use_cache=False).logits


@pytest.fixture
def inputs(small: LoadedModel, few: PromptSet) -> dict[str, torch.Tensor]:
    return ask(small, few[0])


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


class TestModel:
    @pytest.mark.parametrize("change", [GLOBAL, UNIFORM])
    def test_cut_weights_and_zeros_give_what_masked_activations_give_in_float64(self, small, inputs, change):
        before, config = weights_of(small.model), small.model.config.to_dict()
        wanted = masked_by_hand(small.model, change, inputs, (6,))
        for form in ("small", "zeroed"):
            found = logits(apply_edit(small.model, edited(change, Drop((6,)), form=form)), inputs)
            torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-5)
        assert (wanted - logits(small.model, inputs)).abs().max() > 0.1
        assert same_weights(small.model, before)
        assert small.model.config.to_dict() == config

    def test_the_small_model_has_the_parameters_that_are_promised_and_the_zeroed_one_all(self, small):
        for change in (GLOBAL, UNIFORM):
            edit = edited(change, Drop((6,)))
            left = sum(parameter.numel() for parameter in apply_edit(small.model, edit).parameters())
            promised = edit.saved_parameters(small.info)
            assert left == small.n_parameters - promised
            assert promised > small.layer_parameters[6]
        view = apply_edit(small.model, edited(GLOBAL, form="zeroed"))
        assert sum(parameter.numel() for parameter in view.parameters()) == small.n_parameters
        down = view.get_decoder().layers[3].mlp.down_proj.weight
        assert set(torch.nonzero(down.abs().sum(0))[:, 0].tolist()) == set(dict(GLOBAL.neurons)[3])

    def test_other_changes_come_after_it(self, small, inputs):
        width = small.model.get_decoder().layers[2].mlp.down_proj.out_features
        fold = Fold(2, Tensors.of({"mlp.down_proj": np.eye(width) + DRAW.normal(scale=0.1, size=(width, width))}))
        shapes = {"7.self_attn.q_proj.A": (2, width), "7.self_attn.q_proj.B": (4 * HEAD, 2)}
        factors = Tensors.of({name: DRAW.normal(scale=0.1, size=shape) for name, shape in shapes.items()})
        others = (Drop((6,)), fold, Adapt(factors, ("7.self_attn.q_proj",)), Vision(absent=(5,), form="sliced"))
        one, two = (
            logits(apply_edit(small.model, edited(GLOBAL, *others, form=form)), inputs) for form in ("small", "zeroed")
        )
        torch.testing.assert_close(one, two, rtol=1e-5, atol=2e-5)
        assert (one - logits(apply_edit(small.model, edited(GLOBAL)), inputs)).abs().max() > 0.1

    @pytest.mark.parametrize("change", [pytest.param(GLOBAL, marks=pytest.mark.slow), UNIFORM])
    def test_it_decodes_the_same_with_and_without_cache(self, small, inputs, change):
        view = apply_edit(small.model, edited(change))
        length = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        with torch.no_grad():
            one, other = (view.generate(**inputs, **length, use_cache=cached) for cached in (True, False))
        assert one.tolist() == other.tolist()
        assert one.shape[1] == inputs["input_ids"].shape[1] + 6

    def test_numbers_that_a_layer_does_not_have_are_refused(self, small):
        with pytest.raises(EditError, match=r"Layer 2 cannot be made narrow: expected MLP neurons 0\.\.287, got 288"):
            apply_edit(small.model, edited(Narrow({2: [288]})))
        with pytest.raises(EditError, match=r"expected attention groups 0\.\.1, got 2"):
            apply_edit(small.model, edited(Narrow({}, {2: [2]})))

    @pytest.mark.slow
    def test_a_narrow_view_is_made_narrow_again_by_its_own_numbers(self, small, inputs):
        kept = dict(UNIFORM.neurons)
        twice = apply_edit(apply_edit(small.model, edited(UNIFORM)), edited(Narrow({1: range(90)})))
        once = {**kept, 1: kept[1][:90]}
        alone = apply_edit(small.model, edited(Narrow(once, UNIFORM.kv_groups)))
        assert torch.equal(logits(twice, inputs), logits(alone, inputs))


class TestWork:
    def test_a_sweep_gives_each_edit_what_evaluating_it_alone_gives_to_the_last_bit(self, small, few):
        few = few[3:5]
        dense = evaluate(small, few)
        other = Narrow({2: GLOBAL.neurons[0][1], 7: range(9)})
        edits = [edited(GLOBAL), edited(other, Drop((6,)))]
        for edit, found in zip(edits, sweep(small, few, edits, reference=dense), strict=True):
            alone = evaluate(small, few, edit, reference=dense)
            pd.testing.assert_frame_equal(found.by_prompt, alone.by_prompt, check_exact=True)
            assert found.by_prompt["kl_to_dense"].min() > 0

    @pytest.mark.slow
    def test_cost_counts_the_weights_that_are_left(self, small, few):
        edit = edited(GLOBAL)
        cost = measure_cost(small, few[:1], edit, rounds=1, new_tokens=2)
        assert cost.n_parameters == (small.n_parameters, small.n_parameters - edit.saved_parameters(small.info))
        assert cost.cache_bytes is not None
        assert cost.cache_bytes[1] * 16 == cost.cache_bytes[0] * 14  # two groups of sixteen are gone

    def test_flops_of_a_prefill_are_those_of_its_matrices(self, small):
        tokens, hidden = 10.0, small.model.get_decoder().layers[0].mlp.down_proj.out_features
        shape = Shape(0, tokens, 4 * HEAD, 2 * hidden * 2 * HEAD)
        dense, left = prefill_flops(small.info, edited(GLOBAL), shape)
        pairs = tokens * (tokens + 1) / 2
        neurons = sum(NEURONS - len(kept) for _, kept in GLOBAL.neurons)
        of_neurons = neurons * 3 * 2 * hidden * tokens
        of_groups = 2 * (2 * tokens * hidden * (2 * PER_GROUP + 2) * HEAD + 4 * PER_GROUP * HEAD * pairs)
        assert dense - left == pytest.approx(of_neurons + of_groups, rel=1e-12)
        assert prefill_flops(small.info, edited(GLOBAL, form="zeroed"), shape) == (dense, dense)

    def test_a_strip_draws_narrow_layers_as_changed(self):
        drawn = edit_strips([("narrow", edited(GLOBAL, Drop((6,))))], 8).data[0].z[0]
        assert [int(value) for value in drawn] == [0, 0, 2, 2, 2, 2, 1, 0]


@pytest.mark.usefixtures("_proved_here")
class TestExport:
    def test_a_uniform_edit_is_a_smaller_stock_checkpoint_equal_to_the_last_bit(self, small, inputs, tmp_path: Path):
        edit = edited(UNIFORM, Drop((6,)))
        manifest = export_checkpoint(small, edit, tmp_path / "narrow")
        assert manifest.verified
        fresh, told = AutoModelForImageTextToText.from_pretrained(tmp_path / "narrow", output_loading_info=True)
        assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert torch.equal(logits(fresh.eval(), inputs), logits(apply_edit(small.model, edit), inputs))
        text = fresh.config.get_text_config()
        found = (text.intermediate_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim)
        assert found == (180, 2, 1, HEAD)
        assert manifest.parameters_after == sum(parameter.numel() for parameter in fresh.parameters())
        assert manifest.parameters_after == small.n_parameters - edit.saved_parameters(small.info)
        assert open_edit(tmp_path / "narrow" / "strata-edit.json") == edit
        assert {one.verdict for one in will_it_serve(small, edit) if one.engine == "transformers"} == {"loads"}

    def test_widths_that_differ_are_refused_small_and_written_as_zeros_when_asked(self, small, inputs, tmp_path: Path):
        with pytest.raises(ExportError, match=r"build all layers equally wide.*masked=True"):
            export_checkpoint(small, edited(GLOBAL), tmp_path / "no")
        assert not (tmp_path / "no").exists()
        assert {one.verdict for one in will_it_serve(small, edited(GLOBAL))} == {"refuses"}
        manifest = export_checkpoint(small, edited(GLOBAL), tmp_path / "masked", masked=True, verify=False)
        assert manifest.parameters_after == manifest.parameters_before
        zeroed = edited(GLOBAL, form="zeroed")
        fresh = AutoModelForImageTextToText.from_pretrained(tmp_path / "masked").eval()
        assert torch.equal(logits(fresh, inputs), logits(apply_edit(small.model, zeroed), inputs))
        assert open_edit(tmp_path / "masked" / "strata-edit.json") == zeroed
        assert "(zeroed)" in (tmp_path / "masked" / "README.md").read_text()
