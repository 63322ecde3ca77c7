"""Pruning: the view is the model without the layers, to the last bit, and the dense model never notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import gemma, gemma_inputs, gemma_layers
from hypothesis import given, strategies as st
from oracles import ask, qwen_layers, same_weights, skipping, weights_of
from torch import nn
from transformers import AutoModelForImageTextToText

from vlm_analysis import DropPart, Edit, LoadedModel, PromptSet, PruneMask
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.view import Copies
from vlm_analysis.errors import EditError, MaskError

MASKS = [(), (5,), (2, 3, 4), (15,), (2, 7, 8, 12, 14), tuple(range(2, 15))]


@pytest.fixture(scope="module")
def model() -> Any:
    return gemma()


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


@torch.no_grad()
def uncached(model: Any, inputs: dict[str, torch.Tensor], steps: int) -> list[int]:
    """Decode greedily, the whole sequence anew for each token."""
    inputs, tokens = dict(inputs), []
    for _ in range(steps):
        token = logits(model, inputs)[:, -1].argmax(-1, keepdim=True)
        tokens.append(int(token))
        for name, value in inputs.items():
            if value.shape == inputs["input_ids"].shape and name != "input_ids":
                tail = value.new_ones(1, 1) if name == "attention_mask" else value.new_zeros(1, 1)
                inputs[name] = torch.cat([value, tail], dim=1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
    return tokens


def cached(model: Any, inputs: dict[str, torch.Tensor], steps: int) -> list[int]:
    tokens = model.generate(**inputs, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, pad_token_id=0)
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


class TestNumbers:
    @pytest.mark.parametrize("dropped", MASKS, ids=str)
    def test_the_view_equals_skipping_the_layers_to_the_last_bit(
        self, loaded: LoadedModel, few: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        view = apply_edit(loaded.model, PruneMask(16, dropped))
        skipped = skipping(loaded.model, qwen_layers, dropped)
        for prompt in (few[0], few[2], few[5]):
            inputs = ask(loaded, prompt)
            assert torch.equal(logits(view, inputs), logits(skipped, inputs))

    @pytest.mark.parametrize("dropped", [(5,), (0,), (1, 9)], ids=str)
    def test_dropping_layers_changes_the_logits(
        self, loaded: LoadedModel, few: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        inputs = ask(loaded, few[0])
        assert not torch.equal(
            logits(apply_edit(loaded.model, PruneMask(16, dropped)), inputs), logits(loaded.model, inputs)
        )

    @pytest.mark.parametrize("dropped", [(0,), (1,), (0, 1, 6)], ids=str)
    def test_without_deepstack_layers_the_view_equals_its_saved_and_reloaded_self(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, dropped: tuple[int, ...]
    ) -> None:
        view = apply_edit(loaded.model, PruneMask(16, dropped))
        view.save_pretrained(tmp_path)
        fresh = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
        inputs = ask(loaded, few[3])
        assert torch.equal(logits(view, inputs), logits(fresh, inputs))
        assert len(qwen_layers(fresh)) == 16 - len(dropped)

    @pytest.mark.parametrize("dropped", [(5,), (2, 3, 4, 10), (0, 15)], ids=str)
    def test_the_view_decodes_the_same_with_and_without_cache(
        self, loaded: LoadedModel, few: PromptSet, dropped: tuple[int, ...]
    ) -> None:
        view = apply_edit(loaded.model, PruneMask(16, dropped))
        inputs = ask(loaded, few[2])
        view.generation_config.eos_token_id = None
        assert cached(view, inputs, 8) == uncached(view, inputs, 8)

    def test_a_view_of_a_view_drops_both(self, loaded: LoadedModel, few: PromptSet) -> None:
        once = apply_edit(loaded.model, PruneMask(16, (3, 10)))
        twice = apply_edit(once, PruneMask(14, (4,)))  # 4 of the view is 5 of the dense model
        inputs = ask(loaded, few[1])
        assert torch.equal(logits(twice, inputs), logits(apply_edit(loaded.model, PruneMask(16, (3, 5, 10))), inputs))
        assert len(qwen_layers(once)) == 14
        assert once.config.text_config.num_hidden_layers == 14

    def test_hidden_states_of_the_view_are_those_of_the_kept_layers(self, loaded: LoadedModel, few: PromptSet) -> None:
        inputs = ask(loaded, few[0])
        with torch.no_grad():
            loaded.model(
                **inputs, output_hidden_states=True
            )  # transformers installs its hooks on the dense model first
            view = apply_edit(loaded.model, PruneMask(16, (5, 6)))
            assert len(view(**inputs, output_hidden_states=True).hidden_states) == 15
            assert len(loaded.model(**inputs, output_hidden_states=True).hidden_states) == 17


class TestTheDenseModelIsUntouched:
    def test_logits_weights_and_configuration_stay_as_they_were(self, loaded: LoadedModel, few: PromptSet) -> None:
        model, inputs = loaded.model, ask(loaded, few[0])
        before, weights, config = logits(model, inputs), weights_of(model), model.config.to_dict()
        names = [name for name, _ in model.named_modules()]
        view = apply_edit(model, PruneMask(16, (1, 5, 15)))
        logits(view, inputs)
        cached(view, inputs, 3)
        assert torch.equal(logits(model, inputs), before)
        assert same_weights(model, weights)
        assert model.config.to_dict() == config
        assert [name for name, _ in model.named_modules()] == names
        assert [layer.self_attn.layer_idx for layer in qwen_layers(model)] == list(range(16))

    def test_two_views_do_not_know_each_other(self, loaded: LoadedModel, few: PromptSet) -> None:
        inputs = ask(loaded, few[0])
        one = apply_edit(loaded.model, PruneMask(16, (5,)))
        alone = logits(one, inputs)
        two = apply_edit(loaded.model, PruneMask(16, (2, 8, 9)))
        logits(two, inputs)
        assert torch.equal(logits(one, inputs), alone)
        assert (len(qwen_layers(one)), len(qwen_layers(two))) == (15, 13)
        assert one.config is not two.config

    def test_a_hook_on_the_view_does_not_reach_the_dense_model(self, loaded: LoadedModel, few: PromptSet) -> None:
        inputs, called = ask(loaded, few[0]), []
        before = logits(loaded.model, inputs)
        view = apply_edit(loaded.model, PruneMask(16, (5,)))
        for module in view.modules():
            module.register_forward_hook(lambda *_: called.append(1))
            module.register_forward_pre_hook(lambda *_: called.append(1))
        assert torch.equal(logits(loaded.model, inputs), before)
        assert not called

    def test_a_module_put_into_the_view_does_not_reach_the_dense_model(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        inputs = ask(loaded, few[0])
        before = logits(loaded.model, inputs)
        view = apply_edit(loaded.model, PruneMask(16, (5,)))
        for layer in qwen_layers(view):
            layer.mlp.down_proj = nn.Linear(288, 96)
            layer.self_attn.add_module("extra", nn.Linear(2, 2))
            layer.self_attn.q_proj.weight = nn.Parameter(torch.zeros_like(layer.self_attn.q_proj.weight))
        view.lm_head = nn.Linear(96, 3)
        assert torch.equal(logits(loaded.model, inputs), before)
        assert not any(hasattr(layer.self_attn, "extra") for layer in qwen_layers(loaded.model))

    def test_training_mode_and_generation_settings_are_the_views_own(self, loaded: LoadedModel) -> None:
        view = apply_edit(loaded.model, PruneMask(16, (5,)))
        view.train()
        view.generation_config.max_length = 7
        assert not any(module.training for module in loaded.model.modules())
        assert loaded.model.generation_config.max_length != 7


class TestTheView:
    def test_every_weight_is_shared(self, loaded: LoadedModel) -> None:
        view = apply_edit(loaded.model, PruneMask(16, (2, 9)))
        dense = {value.data_ptr() for value in (*loaded.model.parameters(), *loaded.model.buffers())}
        assert {value.data_ptr() for value in (*view.parameters(), *view.buffers())} <= dense
        kept = [qwen_layers(loaded.model)[index] for index in view_kept((2, 9))]
        for mine, theirs in zip(qwen_layers(view), kept, strict=True):
            assert mine is not theirs
            for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
                assert one is other

    def test_no_module_is_shared(self, loaded: LoadedModel) -> None:
        view = apply_edit(loaded.model, PruneMask(16, (2, 9)))
        assert not {id(module) for module in view.modules()} & {id(module) for module in loaded.model.modules()}

    def test_layers_are_numbered_anew_and_counted(self, loaded: LoadedModel) -> None:
        view = apply_edit(loaded.model, PruneMask(16, (0, 2, 9)))
        assert [layer.self_attn.layer_idx for layer in qwen_layers(view)] == list(range(13))
        assert view.config.get_text_config().num_hidden_layers == 13
        assert loaded.model.config.get_text_config().num_hidden_layers == 16
        assert view.config.vision_config.to_dict() == loaded.model.config.vision_config.to_dict()

    def test_one_configuration_is_seen_by_all_its_modules(self, loaded: LoadedModel) -> None:
        view = apply_edit(loaded.model, PruneMask(16, (2, 9)))
        configs = [module.config for module in view.modules() if getattr(module, "config", None) is not None]
        text = [config for config in configs if config.model_type == "qwen3_vl_text"]
        assert len(text) > 13
        assert all(config is view.config.text_config for config in text)
        vision = [config for config in configs if config.model_type == view.config.vision_config.model_type]
        assert all(config is view.config.vision_config for config in vision)
        assert not {id(config) for config in configs} & {id(getattr(m, "config", None)) for m in loaded.model.modules()}

    def test_masks_share_a_layer_that_they_keep_at_the_same_place(self, loaded: LoadedModel, few: PromptSet) -> None:
        masks, copies, inputs = [PruneMask(16, (5,)), PruneMask(16, (5, 9))], {}, ask(loaded, few[0])
        one, two = (apply_edit(loaded.model, mask, copies=copies) for mask in masks)
        pairs = zip(qwen_layers(one), qwen_layers(two), strict=False)
        same = [first is second for first, second in pairs]
        assert same == [True] * 8 + [False] * 6  # from layer 10 on places differ
        assert len([place for _, place in copies if place is not None]) == 15 + 6
        for view, mask in ((two, masks[1]), (one, masks[0]), (two, masks[1])):
            assert [layer.self_attn.layer_idx for layer in qwen_layers(view)] == list(range(16 - mask.budget))
            assert torch.equal(logits(view, inputs), logits(apply_edit(loaded.model, mask), inputs))

    def test_an_edit_that_changes_a_layer_has_its_own(self, loaded: LoadedModel) -> None:
        copies: Copies = {}
        whole = apply_edit(loaded.model, PruneMask(16), copies=copies)
        view = apply_edit(loaded.model, Edit(16, (DropPart(mlp=(3,)),)), copies=copies)
        assert len([place for _, place in copies if place is not None]) == 16
        assert not set(view.modules()) & set(whole.modules())

    def test_masks_share_what_stands_beside_the_decoder_and_knows_nothing_of_its_layers(
        self, loaded: LoadedModel
    ) -> None:
        copies: Copies = {}
        one, two = (apply_edit(loaded.model, PruneMask(16, (layer,)), copies=copies) for layer in (0, 8))
        others = dict(two.named_modules())
        shared = {name for name, module in one.named_modules() if others.get(name) is module}
        assert {"lm_head", "model.visual", "model.language_model.embed_tokens", "model.language_model.norm"} <= shared
        assert not set(one.modules()) & set(loaded.model.modules())
        parts = [module for module in one.modules() if getattr(module, "config", None) is one.config.text_config]
        assert len(parts) > 2
        # the decoder and its rotary embedding hold the cut configuration
        assert not set(parts[:2]) & set(two.modules())


class TestRefusals:
    @pytest.mark.parametrize("n_layers", [15, 17])
    def test_a_mask_of_another_size_is_refused(self, loaded: LoadedModel, n_layers: int) -> None:
        with pytest.raises(MaskError, match=f"expected one for 16 layers, got one for {n_layers}"):
            apply_edit(loaded.model, PruneMask(n_layers, (3,)))

    def test_only_a_locked_layer_is_refused(self, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vlm_analysis.models.layers.locked_layers", lambda model: {3: "it stores keys"})
        with pytest.raises(MaskError, match="Layer 3 cannot be dropped: it stores keys"):
            apply_edit(loaded.model, PruneMask(16, (3, 4)))
        assert len(qwen_layers(apply_edit(loaded.model, PruneMask(16, (0, 1, 15))))) == 13  # protected is not locked


class TestPerLayerSettings:
    """Gemma 3 has one kind of attention per layer, written in its configuration."""

    def test_the_kinds_are_cut_with_the_layers(self, model: Any) -> None:
        kinds = list(model.config.text_config.layer_types)
        view = apply_edit(model, PruneMask(6, (1, 4)))
        assert view.config.text_config.layer_types == [kinds[index] for index in (0, 2, 3, 5)]
        assert model.config.text_config.layer_types == kinds

    @given(st.sets(st.integers(0, 5), max_size=5))
    def test_the_view_equals_skipping_the_layers_to_the_last_bit(self, model: Any, dropped: set[int]) -> None:
        view = apply_edit(model, PruneMask(6, tuple(dropped)))
        inputs = gemma_inputs()
        assert torch.equal(logits(view, inputs), logits(skipping(model, gemma_layers, dropped), inputs))

    def test_wrong_kinds_would_change_the_logits(self, model: Any) -> None:
        view = apply_edit(model, PruneMask(6, (2,)))
        right = logits(view, gemma_inputs())
        view.config.text_config.layer_types = model.config.text_config.layer_types[:5]
        assert not torch.equal(logits(view, gemma_inputs()), right)

    def test_the_view_decodes_the_same_with_and_without_cache(self, model: Any) -> None:
        view = apply_edit(model, PruneMask(6, (0, 2)))
        view.generation_config.eos_token_id = None
        assert cached(view, gemma_inputs(), 6) == uncached(view, gemma_inputs(), 6)

    def test_a_vision_encoder_of_equal_depth_is_not_cut(self, tmp_path: Path) -> None:
        model = gemma(vision_layers=6)
        view = apply_edit(model, PruneMask(6, (1, 2)))
        assert view.config.vision_config.num_hidden_layers == 6
        view.save_pretrained(tmp_path)
        fresh = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager").eval()
        assert torch.equal(logits(view, gemma_inputs()), logits(fresh, gemma_inputs()))


def view_kept(dropped: tuple[int, ...]) -> list[int]:
    return [index for index in range(16) if index not in dropped]


def test_layers_in_place_of_a_mask_are_refused_with_what_to_write(loaded):
    with pytest.raises(EditError, match=r"expected an Edit, got a tuple. Write PruneMask\(16, layers\)"):
        apply_edit(loaded.model, (1, 2))
