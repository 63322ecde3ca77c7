"""Vision tokens skip layers of Pocket-VL: the dense model never notices, both forms agree, and the numbers are those that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import dispatch_model
from families import gemma, gemma_inputs
from oracles import ask, ids_of, weights_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, StaticCache

from vlm_analysis import (
    Edit,
    LoadedModel,
    PromptSet,
    PruneMask,
    Vision,
    apply_edit,
    early_exit,
    evaluate,
    freeze,
    late_entry,
    measure_cost,
    stream_both,
    sweep,
)
from vlm_analysis.edits.tokens.queries import Queries
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import find_decoder_layers

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
FORMS = ("masked", "sliced")


def both(form: str) -> Edit:
    return Edit(16, (Vision((0, 1, 15), (3, 4), form=form),)) + PruneMask(16, [7])


@torch.no_grad()
def logits(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs, use_cache=False).logits


@pytest.fixture(scope="module")
def inputs(loaded: LoadedModel, few: PromptSet) -> dict[str, torch.Tensor]:
    return ask(loaded, few[0])


def words_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return inputs["mm_token_type_ids"][0] == 0


class TestModel:
    @pytest.mark.parametrize("form", FORMS)
    def test_the_dense_model_never_notices(self, loaded, inputs, form):
        before, hooks = weights_of(loaded.model), [len(module._forward_pre_hooks) for module in loaded.model.modules()]
        dense = logits(loaded.model, inputs)
        view = apply_edit(loaded.model, both(form))
        assert not torch.allclose(logits(view, inputs)[:, -1], dense[:, -1], **CLOSE)
        assert torch.equal(logits(loaded.model, inputs), dense)
        after = weights_of(loaded.model)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert [len(module._forward_pre_hooks) for module in loaded.model.modules()] == hooks
        assert not any("forward" in vars(layer) for layer in find_decoder_layers(loaded.model))
        shared = {tensor.data_ptr() for tensor in loaded.model.state_dict().values()}
        assert all(tensor.data_ptr() in shared for tensor in view.state_dict().values())

    @pytest.mark.parametrize("how", ["eager", "sdpa"])
    def test_both_forms_give_text_the_same_logits(self, loaded, inputs, how, monkeypatch):
        monkeypatch.setattr(loaded.model.config.get_text_config(), "_attn_implementation", how)
        one, other = (logits(apply_edit(loaded.model, both(form)), inputs) for form in FORMS)
        torch.testing.assert_close(other[:, words_of(inputs)], one[:, words_of(inputs)], **CLOSE)

    @pytest.mark.parametrize("form", FORMS)
    def test_text_that_never_sees_the_picture_answers_as_if_it_were_another(self, loaded, inputs, form):
        view = apply_edit(loaded.model, late_entry(16, 16, form=form))
        other = inputs | {"pixel_values": inputs["pixel_values"].flip(0) + 0.5}
        text = words_of(inputs)
        assert torch.equal(logits(view, inputs)[:, text], logits(view, other)[:, text])
        view = apply_edit(loaded.model, late_entry(16, 15, form=form))
        assert not torch.equal(logits(view, inputs)[:, text], logits(view, other)[:, text])

    def test_frozen_vision_tokens_run_through_keys_and_values_alone(self, loaded, inputs):
        text = loaded.model.config.text_config
        with FlopCounterMode(display=False) as counter:
            logits(apply_edit(loaded.model, freeze(16, [4], form="sliced")), inputs)
        (of_layer,) = (
            one for name, one in counter.get_flop_counts().items() if name.endswith("language_model.layers.4")
        )
        products = sum(n for kind, n in of_layer.items() if str(kind) in ("aten.mm", "aten.addmm"))
        n_text, n_vision = (int(rows.sum()) for rows in (words_of(inputs), ~words_of(inputs)))
        width, heads, kv_heads = (
            text.hidden_size,
            text.num_attention_heads * text.head_dim,
            text.num_key_value_heads * text.head_dim,
        )
        weights = 2 * width * heads + 2 * width * kv_heads + 3 * width * text.intermediate_size
        assert products == 2 * (weights * n_text + 2 * width * kv_heads * n_vision)

    def test_an_edited_view_is_edited_again(self, loaded, inputs):
        twice = apply_edit(apply_edit(loaded.model, late_entry(16, 2)), PruneMask(16, [7]))
        assert torch.equal(
            logits(twice, inputs), logits(apply_edit(loaded.model, late_entry(16, 2) + PruneMask(16, [7])), inputs)
        )

    @pytest.mark.parametrize("form", FORMS)
    def test_a_model_that_accelerate_has_spread_runs_it_too(self, form):
        places = {f"model.language_model.layers.{index}": "cpu" for index in range(6)}
        places |= {f"model.language_model.{part}": "cpu" for part in ("embed_tokens", "norm", "rotary_emb")}
        places |= dict.fromkeys(("model.vision_tower", "model.multi_modal_projector", "lm_head"), "cpu")
        spread = dispatch_model(gemma(), places, main_device="cpu", force_hooks=True)
        edit = Edit(6, (Vision((0, 5), (2,), form=form),)) + PruneMask(6, [3])
        found = logits(apply_edit(spread, edit), gemma_inputs())
        assert torch.equal(found, logits(apply_edit(gemma(), edit), gemma_inputs()))

    def test_without_features_between_layers_they_are_not_added_where_tokens_skip(self, loaded, inputs):
        with_them, without = (apply_edit(loaded.model, late_entry(16, 3, deepstack=on)) for on in (True, False))
        entering: list[torch.Tensor] = []
        for view in (with_them, without):
            find_decoder_layers(view)[3].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
            logits(view, inputs)
        first = loaded.model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        added, plain = (states[:, ~words_of(inputs)][0] for states in entering)
        torch.testing.assert_close(plain, first, **CLOSE)
        assert not torch.allclose(added, first, **CLOSE)

    def test_what_cannot_be_told_is_refused(self, loaded, inputs):
        view = apply_edit(loaded.model, late_entry(16, 2))
        embeds = loaded.model.get_input_embeddings()(inputs["input_ids"])
        with pytest.raises(EditError, match="expected input_ids"), torch.no_grad():
            view(inputs_embeds=embeds)
        with pytest.raises(EditError, match="expected a decoder that takes them, got Gemma3TextModel"):
            apply_edit(gemma(), late_entry(6, 2, deepstack=False))


class TestDecoding:
    @pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])
    @pytest.mark.parametrize("form", FORMS)
    def test_each_step_with_a_cache_has_the_logits_of_the_whole_pass(self, loaded, few, form, fixed):
        tail = ids_of(loaded, "3 red")
        view, whole = apply_edit(loaded.model, both(form)), ask(loaded, few[0], tail)
        expected = logits(view, whole)[0, -len(tail) :]
        with torch.no_grad():
            cache = StaticCache(view.config.get_text_config(), max_cache_len=64) if fixed else None
            cache = view(**ask(loaded, few[0]), past_key_values=cache, use_cache=True).past_key_values
            for token, one in zip(tail, expected, strict=True):
                step = view(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[0, -1]
                torch.testing.assert_close(step, one, **CLOSE)

    @pytest.mark.parametrize("form", FORMS)
    def test_an_image_token_that_is_written_is_text(self, loaded, few, form):
        view, written = apply_edit(loaded.model, both(form)), torch.tensor([[loaded.model.config.image_token_id]])
        steps = []
        for said in ({}, {"mm_token_type_ids": torch.zeros_like(written)}):
            with torch.no_grad():
                cache = view(**ask(loaded, few[0]), use_cache=True).past_key_values
                steps.append(view(input_ids=written, past_key_values=cache, use_cache=True, **said).logits)
        assert torch.equal(*steps)

    def test_sliced_the_cache_holds_text_alone_except_in_layer_0(self, loaded, inputs):
        view = apply_edit(loaded.model, Edit(16, (Vision((0, 1, 2), (3,), form="sliced"),)))
        with torch.no_grad():
            cache = view(**inputs, use_cache=True).past_key_values
        lengths = [layer.keys.shape[-2] for layer in cache.layers]
        whole, text = inputs["input_ids"].shape[1], int(words_of(inputs).sum())
        assert lengths == [whole, text, text, *[whole] * 13]
        assert cache.get_seq_length() == whole

    @pytest.mark.parametrize("form", FORMS)
    def test_a_batch_padded_on_the_left_writes_what_each_prompt_does(self, loaded, few, form):
        view, asked = (
            apply_edit(loaded.model, both(form)),
            [ask(loaded, few[0]), ask(loaded, few[3], ids_of(loaded, "3"))],
        )
        alone = [
            view.generate(**one, max_new_tokens=4, min_new_tokens=4, do_sample=False)[0, -4:].tolist() for one in asked
        ]
        longest = max(one["input_ids"].shape[1] for one in asked)
        batch = {name: torch.cat([one[name] for one in asked]) for name in ("pixel_values", "image_grid_thw")}
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            batch[name] = torch.cat(
                [torch.nn.functional.pad(one[name], (longest - one[name].shape[1], 0)) for one in asked]
            )
        assert len({one["input_ids"].shape[1] for one in asked}) == 2
        found = view.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False)
        assert found[:, -4:].tolist() == alone

    def test_both_models_are_asked_in_turn(self, loaded, few):
        *_, last = stream_both(loaded, few[0], late_entry(16, 16), max_new_tokens=3)
        assert last.dense.ids
        assert last.pruned.ids


class TestScores:
    @pytest.mark.parametrize("form", FORMS)
    def test_a_sweep_gives_each_edit_what_it_has_alone_to_the_last_bit(self, loaded, few, form):
        dense = evaluate(loaded, few)
        edits = [late_entry(16, 2, form=form), late_entry(16, 4, form=form), freeze(16, [5], form=form), both(form)]
        for edit, one in zip(edits, sweep(loaded, few, edits, reference=dense), strict=True):
            alone = evaluate(loaded, few, edit, reference=dense)
            pd.testing.assert_frame_equal(one.by_prompt, alone.by_prompt, check_exact=True)
            assert one.edit == edit

    @pytest.mark.parametrize(
        ("edit", "known"),
        [
            (early_exit(16, 12, form="sliced"), (86.7, 97.8)),
            pytest.param(late_entry(16, 1, form="sliced"), (64.4, 71.1), marks=pytest.mark.slow),
            pytest.param(freeze(16, range(3), form="sliced"), (95.6, 88.9), marks=pytest.mark.slow),
        ],
        ids=["early exit", "late entry", "freeze"],
    )
    def test_known_numbers_come_out_again(self, loaded, packs, edit, known):
        """Exact match of math and general, as measured with another program."""
        exact = 100 * evaluate(loaded, packs, edit).by_domain["exact_match"]
        np.testing.assert_allclose([exact["math"], exact["general"]], known, atol=0.05)

    def test_the_cost_is_measured_and_names_the_form(self, loaded, few):
        edit = early_exit(16, 4, form="sliced") + PruneMask(16, [1])
        cost = measure_cost(loaded, few[:1], edit, rounds=1, new_tokens=2)
        assert cost.edit == edit != early_exit(16, 4) + PruneMask(16, [1])
        assert cost.n_parameters == (loaded.n_parameters, loaded.n_parameters - loaded.layer_parameters[1])
        kinds = ask(loaded, few[0])["mm_token_type_ids"][0]
        n_tokens, n_text = len(kinds), int((kinds == 0).sum())
        text = loaded.model.config.text_config
        a_token = 2 * text.num_key_value_heads * text.head_dim * 4  # bytes of its key and value
        assert cost.cache_bytes == (a_token * 16 * n_tokens, a_token * (3 * n_tokens + 12 * n_text))
        assert cost.prefill_flops is not None
        dense, edited = cost.prefill_flops
        per_layer = 2 * loaded.layer_parameters[0] * n_tokens
        assert (
            16 * per_layer < dense < 16.5 * per_layer + 16 * 4 * text.num_attention_heads * text.head_dim * n_tokens**2
        )
        assert edited < dense * (3 + 12 * n_text / n_tokens) / 16


class TestQueries:
    @pytest.mark.parametrize(("n_heads", "runs"), [(-1, 1), (4, 2)], ids=["any number of heads", "its own alone"])
    def test_they_are_left_out_where_a_layer_runs_without_and_made_where_not(self, n_heads, runs):
        class Layer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.config, self.q_proj = Qwen2Config(num_attention_heads=4), torch.nn.Linear(32, 32)

            def forward(self, states: torch.Tensor) -> torch.Tensor:
                return self.q_proj(states).view(1, 3, n_heads, 8)

        layer, states, called = Layer(), torch.ones(1, 3, 32), []

        def run() -> torch.Tensor:
            called.append(1)
            return layer(states)

        expected = layer(states)
        queries = Queries(layer)
        found = queries.run_without(run)
        assert len(called) == runs
        torch.testing.assert_close(found, torch.zeros(1, 3, 1, 8) if n_heads < 0 else expected)
        torch.testing.assert_close(layer(states), expected)
        queries.run_without(run)
        assert len(called) == runs + 1
