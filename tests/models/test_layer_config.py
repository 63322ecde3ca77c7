"""Cutting a configuration: each way of speaking of layers by its own rule, and what is not about layers left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from families import gemma
from transformers import (
    Gemma3nTextConfig,
    Gemma4UnifiedTextConfig,
    LlavaConfig,
    MllamaTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from vlm_analysis import PruneMask
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import MaskError
from vlm_analysis.models.config import changed_by_saving, cut_config, cut_targets, vision_targets

KEPT = (0, 2, 3, 5)


def config(**settings: Any) -> Any:
    """Return a configuration of six layers that speaks of them by `settings`."""
    return SimpleNamespace(num_hidden_layers=6, **settings)


class TestOneEntryALayer:
    @pytest.mark.parametrize(
        ("name", "value", "cut"),
        [
            ("layer_types", ["a", "b", "c", "d", "e", "f"], ["a", "c", "d", "f"]),
            ("mlp_layer_types", ["dense", "sparse"] * 3, ["dense", "dense", "sparse", "sparse"]),
            ("indexer_types", ["own", "shared"] * 3, ["own", "own", "shared", "shared"]),
            ("hybrid_override_pattern", list("M*M-M*"), ["M", "M", "-", "*"]),
            ("intermediate_size", [1, 2, 3, 4, 5, 6], [1, 3, 4, 6]),
            ("num_key_value_heads", [1, 1, 2, 2, 4, 4], [1, 2, 2, 4]),
            ("no_rope_layers", [1, 1, 1, 0, 1, 1], [1, 1, 0, 1]),
            ("layer_types", ("a", "b", "c", "d", "e", "f"), ("a", "c", "d", "f")),
        ],
    )
    def test_the_kept_layers_entries_stay(self, name: str, value: Any, cut: Any) -> None:
        text = config(**{name: value})
        assert cut_config(text, KEPT) == {name: cut}
        assert getattr(text, name) == cut
        assert text.num_hidden_layers == 4

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("layer_types", ["a", "b"]),  # not one a layer
            ("layer_types", None),
            ("intermediate_size", 48),
            ("mrope_section", [1, 2, 3, 4, 5, 6]),  # of the right length by chance
            ("architectures", ["A", "B", "C", "D", "E", "F"]),
            ("some_layers", "abcdef"),
            ("layer_scale", {"0": 1, "5": 2}),
        ],
    )
    def test_a_shape_it_does_not_know_is_left_alone(self, name: str, value: Any) -> None:
        text = config(**{name: value})
        assert cut_config(text, KEPT) == {}
        assert getattr(text, name) == value


class TestLayerNumbers:
    @pytest.mark.parametrize(
        ("name", "value", "cut"),
        [
            ("cross_attention_layers", [1, 3], [2]),
            ("cross_attention_layers", [1, 4], []),
            ("cross_attention_layers", [2, 9], [1]),  # a number beyond the last layer is left out too
            ("cross_attention_layers", [3, 0], [2, 0]),
            ("full_attn_idxs", [0, 2, 5], [0, 1, 3]),
            ("moe_layers", [0, 1, 2, 3, 4, 5], [0, 1, 2, 3]),
            ("rope_scaling_layers", (2, 4, 5), (1, 3)),
            ("ple_layer_ids", [1, 4, 6], [1, 3, 4]),  # counted from one
            ("kv_source_layers", [0, 0, 2, 3, 3, 2], [0, 1, 2, 1]),  # one a layer, each a layer's number
        ],
    )
    def test_they_are_renumbered_and_dropped_layers_leave(self, name: str, value: Any, cut: Any) -> None:
        text = config(**{name: value})
        assert cut_config(text, KEPT) == {name: cut}
        assert getattr(text, name) == cut

    @pytest.mark.parametrize("value", [[True, False], ["1", "2"], []], ids=str)
    def test_a_list_that_holds_no_numbers_is_left_alone(self, value: list[Any]) -> None:
        text = config(cross_attention_layers=value)
        assert cut_config(text, KEPT) == {}
        assert text.cross_attention_layers == value

    @pytest.mark.parametrize("value", [[1, 1], [-1, 2]], ids=str)
    def test_a_list_that_cannot_be_understood_is_refused_unless_all_layers_stay(self, value: list[int]) -> None:
        with pytest.raises(
            MaskError, match=r"different layer numbers from 0 on in 'cross_attention_layers' .*, got \["
        ):
            cut_config(config(cross_attention_layers=value), KEPT)
        text = config(cross_attention_layers=value)
        cut_config(text, range(6))
        assert text.cross_attention_layers == value


class TestCounts:
    @pytest.mark.parametrize(
        ("name", "value", "cut"),
        [
            ("first_k_dense_replace", 3, 2),  # 0 and 2 of the first three stay
            ("first_k_dense_replace", 0, 0),
            ("max_window_layers", 28, 4),
            ("num_kv_shared_layers", 2, 1),  # 5 of the last two stays
            ("num_attention_heads", 6, 6),
        ],
    )
    def test_the_first_and_the_last_so_many_are_counted_anew(self, name: str, value: int, cut: int) -> None:
        text = config(**{name: value})
        assert cut_config(text, KEPT) == {}
        assert getattr(text, name) == cut

    def test_all_kept_changes_nothing(self) -> None:
        text = Qwen3_5TextConfig(num_hidden_layers=6)
        before = text.to_dict()
        cut_config(text, range(6))
        assert text.to_dict() == before


class TestOverridesOfSingleLayers:
    def test_per_layer_config_is_renumbered_and_dropped_layers_overrides_leave(self) -> None:
        text = Qwen3Config(num_hidden_layers=6, per_layer_config={1: {"intermediate_size": 8}, 5: {"head_dim": 4}})
        cut_config(text, KEPT)
        assert text.to_dict()["per_layer_config"] == {"3": {"head_dim": 4}}
        again = Qwen3Config.from_dict(text.to_dict())
        assert again.to_dict() == text.to_dict()

    def test_none_is_left_where_no_layer_differs_any_more(self) -> None:
        text = Qwen3Config(num_hidden_layers=6, per_layer_config={1: {"intermediate_size": 8}})
        cut_config(text, KEPT)
        assert not text.to_dict().get("per_layer_config")


class TestOtherConfigurations:
    def test_a_nested_vision_configuration_is_not_the_decoders(self) -> None:
        whole = LlavaConfig(text_config=Qwen3Config(num_hidden_layers=6, layer_types=["full_attention"] * 6))
        vision = whole.vision_config.to_dict()
        cut_config(whole.text_config, KEPT)
        assert whole.vision_config.to_dict() == vision
        assert len(whole.text_config.layer_types) == whole.text_config.num_hidden_layers == 4

    def test_layers_that_the_whole_model_names_are_renumbered(self) -> None:
        whole = config(deepstack_layer_map=[[7, 2], [3, 5]], spatial_target_layers=[3])
        assert vision_targets(whole) == {2, 3, 5}
        cut_targets(whole, KEPT)
        assert [tuple(pair) for pair in whole.deepstack_layer_map] == [(7, 1), (3, 3)]
        assert whole.spatial_target_layers == [2]

    def test_a_model_that_names_none_stays_as_it_is(self) -> None:
        whole = config()
        cut_targets(whole, KEPT)
        assert (vision_targets(whole), vars(whole)) == (set(), {"num_hidden_layers": 6})

    def test_modules_that_share_a_configuration_share_its_one_cut_copy(self) -> None:
        model = gemma()
        view = apply_edit(model, PruneMask(6, (1, 4)))
        for one, kinds in ((model, 6), (view, 4)):
            decoder = one.model.language_model
            assert {id(module.config) for module in decoder.modules() if hasattr(module, "config")} == {
                id(one.config.text_config)
            }
            assert len(one.config.text_config.layer_types) == kinds


class TestSaving:
    def test_a_cut_configuration_says_the_same_when_opened(self) -> None:
        text = MllamaTextConfig(num_hidden_layers=6, cross_attention_layers=[1, 3])
        cut_config(text, KEPT)
        assert changed_by_saving(text) == set()

    def test_what_transformers_would_repair_is_named(self) -> None:
        text = Gemma4UnifiedTextConfig(num_hidden_layers=6)
        text.layer_types = ["full_attention"] * 5 + ["sliding_attention"]  # it makes the last one attend fully
        assert changed_by_saving(text) == {"layer_types"}

    def test_what_transformers_would_refuse_raises(self) -> None:
        text = Gemma3nTextConfig(num_hidden_layers=6, num_kv_shared_layers=2, intermediate_size=[8] * 6)
        text.layer_types = ["sliding_attention"] * 5 + [
            "full_attention"
        ]  # which then reuses no layer's keys and values
        with pytest.raises(Exception, match="producing a cache"):
            changed_by_saving(text)
