"""Attention maps: what is read of them is what the definitions say, and reading them changes neither model nor answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles import ask, cosine, group_members, qwen_layers, same_weights, walk, weights_of

from vlm_analysis import LoadedModel, Prompt, PromptSet, record
from vlm_analysis.recording.attention import important_tokens, token_weights, visual_attention
from vlm_analysis.recording.measures import SHARES

MAP = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.5, 0.5, 0.0, 0.0],
        [0.2, 0.4, 0.4, 0.0],
        [0.1, 0.2, 0.3, 0.4],
    ]
)
VISION = torch.tensor([True, True, False, False])


def heads_mean(layer: Any, states: np.ndarray, turns: Any) -> np.ndarray:
    """Return a Qwen3 layer's attention, queries × keys, heads averaged, in float64 from its own projections."""
    own = layer.self_attn
    normed = layer.input_layernorm(torch.from_numpy(states).float()[None])
    shape = (1, normed.shape[1], -1, own.head_dim)
    query = own.q_norm(own.q_proj(normed).view(shape)).transpose(1, 2)
    key = own.k_norm(own.k_proj(normed).view(shape)).transpose(1, 2)
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

    query, key = apply_rotary_pos_emb(query, key, *turns)
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.double().numpy() @ key.double().numpy().swapaxes(-1, -2) * own.head_dim**-0.5
    scores[:, :, *np.triu_indices(scores.shape[-1], 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).mean(1)[0]


class TestWorkedNumbers:
    def test_the_visual_attention_ratio_is_what_text_queries_give_to_vision_keys(self) -> None:
        assert visual_attention(MAP, VISION, ~VISION) == pytest.approx((0.6 + 0.3) / 2)

    def test_without_text_or_vision_there_is_no_ratio(self) -> None:
        nothing = torch.zeros(4, dtype=torch.bool)
        assert np.isnan(visual_attention(MAP, nothing, ~VISION))
        assert np.isnan(visual_attention(MAP, VISION, nothing))

    def test_token_weights_are_those_of_short_lvlm(self) -> None:
        # vision 0: from vision (1 + 0.5)/2, from text (0.2 + 0.1)/2; vision 1: (0 + 0.5)/2 and (0.4 + 0.2)/2
        # text 2: from text (0.4 + 0.3)/2, to vision (0.2 + 0.4)/2; text 3: (0 + 0.4)/2 and (0.1 + 0.2)/2
        wanted = [(0.75 + 0.15) / 2, (0.25 + 0.3) / 2, (0.35 + 0.3) / 2, (0.2 + 0.15) / 2]
        np.testing.assert_allclose(token_weights(MAP, VISION, ~VISION).numpy(), wanted, rtol=1e-6)

    def test_important_tokens_are_the_largest_with_ties_to_the_earlier(self) -> None:
        weights = np.array([0.3, 0.5, 0.3, 0.1])
        assert important_tokens(weights, 0.5).tolist() == [0, 1]
        assert important_tokens(weights, 0.51).tolist() == [0, 1, 2]
        assert important_tokens(weights, 0.01).tolist() == [1]


class TestOnPocket:
    def test_ratio_and_important_similarity_equal_attention_worked_by_hand(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        bare = [Prompt(p.images, p.question, p.domain, p.id) for p in few[:2]]
        recording = record(loaded, bare, attention=True)
        for number, prompt in enumerate(bare):
            inputs = ask(loaded, prompt)
            with torch.no_grad():
                xs, ys = walk(loaded, inputs)
                positions, _ = loaded.model.model.get_rope_index(
                    inputs["input_ids"],
                    mm_token_type_ids=inputs["mm_token_type_ids"],
                    image_grid_thw=inputs["image_grid_thw"],
                )
                turns = loaded.model.model.language_model.rotary_emb(torch.zeros(1), positions)
                maps = [heads_mean(layer, x, turns) for layer, x in zip(qwen_layers(loaded.model), xs, strict=True)]
            members = group_members(loaded, inputs, 0)
            vision, text = members["vision"], members["text"]
            for layer, attention in enumerate(maps):
                ratio = attention[text][:, vision].sum(1).mean()
                assert recording.rows["visual_attention"][number, layer] == pytest.approx(ratio, abs=1e-5)
                weights = np.zeros(len(vision))
                weights[vision] = (attention[vision][:, vision].mean(0) + attention[text][:, vision].mean(0)) / 2
                weights[text] = (attention[text][:, text].mean(0) + attention[text][:, vision].mean(1)) / 2
                for place, share in enumerate(SHARES):
                    best = np.argsort(-weights)[: int(np.ceil(share * len(weights)))]
                    wanted = cosine(xs[layer][best], ys[layer][best]).mean()
                    assert recording.rows["important_cosine"][number, layer, place] == pytest.approx(wanted, abs=1e-5)

    def test_the_dense_model_keeps_its_attention_and_its_weights(self, loaded: LoadedModel, few: PromptSet) -> None:
        before, way = weights_of(loaded.model), loaded.model.config.get_text_config()._attn_implementation
        record(loaded, few[:1], attention=True)
        assert loaded.model.config.get_text_config()._attn_implementation == way
        assert same_weights(loaded.model, before)

    def test_other_measures_agree_with_and_without_maps(self, loaded: LoadedModel, few: PromptSet) -> None:
        there, here = record(loaded, few[:3]), record(loaded, few[:3], attention=True)
        np.testing.assert_allclose(here.rows["cosine"], there.rows["cosine"], atol=1e-5)
        assert here.has("visual_attention")
        assert not there.has("visual_attention")

    def test_batches_give_the_same_ratios(self, loaded: LoadedModel, few: PromptSet) -> None:
        there, here = (record(loaded, few, attention=True, batch_size=size) for size in (1, 4))
        for name in ("visual_attention", "important_cosine"):
            np.testing.assert_allclose(here.rows[name], there.rows[name], atol=1e-5)
