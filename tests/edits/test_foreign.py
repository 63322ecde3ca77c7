"""Masks of other tools: what they write opens, what Strata writes for them opens again, and what is no mask says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlm_analysis import (
    DropPart,
    Edit,
    Fold,
    Narrow,
    PruneMask,
    Tensors,
    drop_parts,
    early_exit,
    edit_to_llm_drop,
    mask_to_llama_cpp,
    mask_to_optipfair,
    mask_to_puzzletron,
    open_dialect,
    open_edit,
    open_mask,
)
from vlm_analysis.assets import asset
from vlm_analysis.errors import EditError, MaskError, NoLayerCountError

CONFIG: dict[str, Any] = {"num_hidden_layers": 8, "num_key_value_heads": 2, "intermediate_size": 64}
VLM = {"model_type": "llava", "text_config": CONFIG, "vision_config": {"intermediate_size": 9, "num_hidden_layers": 3}}
MASK = PruneMask(8, (3, 4))
WRITERS = {
    "m.optipfair.json": mask_to_optipfair,
    "m.txt": mask_to_llama_cpp,
    "m.puzzletron.json": lambda mask: mask_to_puzzletron(mask, CONFIG | {"num_hidden_layers": mask.n_layers}),
}


def block(attention: dict[str, Any] | None = None, ffn: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """An entry of `block_configs` as Puzzletron writes it, with every field."""
    common = {"no_op": False, "replace_with_linear": False, "sparsify": None, "weights_precision": "bf16"}
    return {
        "attention": common | {"num_key_value_heads": 2, "llama4": None, "mamba": None} | (attention or {}),
        "ffn": common | {"moe": None, "intermediate_size": 64} | (ffn or {}),
        "parallel_blocks": None,
    } | more


GONE = block({"no_op": True, "num_key_value_heads": None}, {"no_op": True, "intermediate_size": None})


def puzzletron(*blocks: Any, **more: Any) -> str:
    return json.dumps({"model_type": "llama", "num_hidden_layers": len(blocks), "block_configs": list(blocks)} | more)


@st.composite
def masks(draw: st.DrawFn) -> Edit:
    n_layers = draw(st.integers(2, 60))
    return PruneMask(n_layers, draw(st.sets(st.integers(0, n_layers - 1), min_size=1, max_size=n_layers - 1)))


class TestOut:
    @pytest.mark.parametrize("name", WRITERS)
    @given(mask=masks())
    def test_any_mask_that_is_written_opens_again(self, name: str, mask: Edit) -> None:
        text = WRITERS[name](mask)
        assert open_dialect(text.encode(), name, n_layers=mask.n_layers) == mask

    def test_each_file_says_what_its_tool_reads(self) -> None:
        assert json.loads(mask_to_optipfair(MASK)) == [3, 4]
        assert mask_to_llama_cpp(MASK) == "--prune-layers 3,4\n"
        written = json.loads(mask_to_puzzletron(MASK, VLM))
        assert {key: written[key] for key in VLM} == VLM
        stays = {
            "attention": {"no_op": False, "num_key_value_heads": 2},
            "ffn": {"no_op": False, "intermediate_size": 64},
        }
        assert written["block_configs"][2] == stays
        assert written["block_configs"][3] == {"attention": {"no_op": True}, "ffn": {"no_op": True}}

    def test_a_width_of_its_own_for_each_layer_is_kept(self, tmp_path: Path) -> None:
        widths = list(range(10, 90, 10))
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"intermediate_size": widths}))
        text = mask_to_puzzletron(MASK, tmp_path / "config.json")
        assert json.loads(text)["block_configs"][5]["ffn"]["intermediate_size"] == 60
        assert open_dialect(text.encode(), "config.json") == MASK

    def test_the_bundled_model_s_own_configuration_can_be_written_and_opened(self) -> None:
        mask = PruneMask(16, (3, 7))
        text = mask_to_puzzletron(mask, asset("pocket-vl", "config.json"))
        assert open_dialect(text.encode(), "config.json") == mask

    @pytest.mark.parametrize("write", [mask_to_optipfair, mask_to_llama_cpp])
    def test_a_list_without_layers_is_not_written(self, write: Any) -> None:
        with pytest.raises(MaskError, match="expected one dropped layer at least, got none"):
            write(PruneMask(8))

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            (None, "the width of its layers, got none"),
            ({}, "expected 8 layers in the model's configuration, got None"),
            (CONFIG | {"num_hidden_layers": 9}, "expected 8 layers in the model's configuration, got 9"),
            (CONFIG | {"intermediate_size": None}, "a number of 'intermediate_size'"),
            (CONFIG | {"intermediate_size": [1, 2]}, "a number of 'intermediate_size'"),
            (CONFIG | {"num_experts": 4}, "expected layers without experts"),
            (Path("nowhere.json"), "configuration at 'nowhere.json'"),
        ],
    )
    def test_a_configuration_without_the_widths_is_refused(self, config: Any, reason: str) -> None:
        with pytest.raises(MaskError, match=reason):
            mask_to_puzzletron(MASK, config)


class TestIn:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("list.json", "[3, 4]"),
            ("list.json", "[4, 3]"),
            ("kwargs.json", '{"pruning_type": "DEPTH", "layer_indices": [3, 4]}'),
            ("kwargs.json", '{"layer_indices": [3, 4], "show_progress": true, "num_layers_to_remove": null}'),
            ("bare.txt", " 3, 4\n"),
            ("bare.txt", "[3, 4]"),
            ("flag.txt", "./llama-quantize --prune-layers 3,4 in.gguf out.gguf q4_k_m"),
            ("flag.txt", "--prune-layers=3,4"),
            ("run.txt", "optipfair prune --pruning-type DEPTH \\\n  --layer-indices '3, 4' --output-path out  # two"),
        ],
    )
    def test_a_list_opens_once_the_number_of_layers_is_known(self, name: str, text: str, tmp_path: Path) -> None:
        (tmp_path / name).write_text(text)
        assert open_mask(tmp_path / name, n_layers=8) == MASK
        assert open_dialect(text.encode(), name, n_layers=8) == MASK
        with pytest.raises(NoLayerCountError, match="how many layers the model has"):
            open_edit(tmp_path / name)

    def test_the_provenance_names_the_tool(self) -> None:
        opened = [open_dialect(WRITERS[name](MASK).encode(), name, n_layers=8) for name in WRITERS]
        assert [one.provenance["opened_from"] for one in opened] == ["optipfair", "llama.cpp", "Puzzletron"]

    def test_a_configuration_of_puzzletron_opens_by_itself(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(puzzletron(block(), GONE, block()))
        assert open_edit(tmp_path / "config.json") == PruneMask(3, [1])
        nested = {"model_type": "qwen3_vl", "text_config": json.loads(puzzletron(block(), GONE))}
        assert open_dialect(json.dumps(nested).encode(), "config.json") == PruneMask(2, [1])

    def test_parts_of_puzzletron_open_and_are_written(self) -> None:
        no_attention, no_mlp = block({"no_op": True, "num_key_value_heads": None}), block(ffn={"no_op": True})
        text = puzzletron(block(), no_attention, GONE, no_mlp)
        edit = open_dialect(text.encode(), "config.json")
        assert edit == drop_parts(4, [1, 2], [2, 3])
        written = mask_to_puzzletron(edit, CONFIG | {"num_hidden_layers": 4})
        assert open_dialect(written.encode(), "config.json") == edit

    def test_widths_go_out_to_puzzletron_as_numbers(self) -> None:
        edit = PruneMask(8, [3]) + Edit(8, (Narrow({3: [0], 5: [0, 9]}, {6: [1]}),))
        blocks = json.loads(mask_to_puzzletron(edit, CONFIG))["block_configs"]
        assert [one["ffn"].get("intermediate_size") for one in blocks] == [64, 64, 64, None, 64, 2, 64, 64]
        assert [one["attention"].get("num_key_value_heads") for one in blocks] == [2, 2, 2, None, 2, 2, 1, 2]
        with pytest.raises(MaskError, match="got one that folds"):
            mask_to_puzzletron(Edit(8, (Fold(4, Tensors.of({"mlp.down_proj": np.eye(8)})),)), CONFIG)

    def test_whole_layers_of_llm_drop_open(self) -> None:
        lists = {"drop_attn_list": [4, 3], "drop_mlp_list": [3, 4], "num_hidden_layers": 8}
        flags = {key: [layer in (3, 4) for layer in range(8)] for key in ("drop_attn_list", "drop_mlp_list")}
        for content in (lists, lists | flags):
            assert open_dialect(json.dumps(content).encode(), "config.json") == MASK

    def test_parts_of_llm_drop_open_and_are_written(self) -> None:
        lists = {"drop_attn_list": [3, 5], "drop_mlp_list": [3, 6], "num_hidden_layers": 8}
        edit = open_dialect(json.dumps(lists).encode(), "config.json")
        assert edit == PruneMask(8, [3]) + Edit(8, (DropPart(attention=(5,), mlp=(6,)),))
        assert json.loads(edit_to_llm_drop(edit)) == lists
        assert json.loads(edit_to_llm_drop(MASK))["drop_mlp_list"] == [3, 4]
        for other in (early_exit(8, 6), Edit(8), edit + early_exit(8, 6)):
            with pytest.raises(EditError, match="cannot be written for LLM-Drop"):
                edit_to_llm_drop(other)

    def test_strata_s_own_files_open_as_before(self, tmp_path: Path) -> None:
        from vlm_analysis import save_mask

        assert open_mask(save_mask(MASK, tmp_path / "m.json"), n_layers=16) == MASK
        with pytest.raises(MaskError, match="expected the kind 'strata-mask' or 'strata-edit'"):
            open_dialect(b'{"num_hidden_layers": 8}', "config.json", n_layers=8)


REFUSED_KINDS = [
    ('{"pruning_type": "MLP_GLU", "pruning_percentage": 20}', "made narrower"),
    ('{"pruning_type": "MLP_GLU", "layer_indices": [3, 4]}', "made narrower"),
    ('{"pruning_type": "HEADS", "layer_indices": [3, 4]}', "another way .'HEADS'"),
    (puzzletron(block(), block({"replace_with_linear": True})), "'replace_with_linear' in layer 1"),
    (puzzletron(block(), block(parallel_blocks=[block()])), "'parallel_blocks' in layer 1"),
    (puzzletron(block(ffn={"moe": {"n": 8}}), block(ffn={"moe": {"n": 4}})), "other experts"),
]
WIDTHS = [
    (puzzletron(block(), block(ffn={"intermediate_size": 32})), "layer 1 with 'intermediate_size' 32 beside 64"),
    (puzzletron(block(), block({"num_key_value_heads": 1})), "layer 1 with 'num_key_value_heads' 1 beside 2"),
    (puzzletron(block(), intermediate_size=128), "layer 0 with 'intermediate_size' 64 beside 128"),
    (puzzletron(block(), text_config={"intermediate_size": 128}), "layer 0 with 'intermediate_size' 64 beside 128"),
    (
        puzzletron(block(), block({"no_op": True}, {"intermediate_size": 9})),
        "layer 1 with 'intermediate_size' 9 beside",
    ),
]
HOSTILE = [
    ("[3, 8]", r"0\.\.7, got 8"),
    ("[3, 3]", "each layer once"),
    ("[-1]", "got -1"),
    ("[3.0]", "got 3.0"),
    ("[true]", "got True"),
    ('["3"]', "got '3'"),
    ("[[3]]", r"got \[3\]"),
    ("[null]", "got None"),
    ("[NaN]", "NaN is no JSON"),
    ("[1e999]", "1e999 is no JSON"),
    ("[" * 100_000, "m.json"),
    ("[]", "one layer at least, got none"),
    ("[0, 1, 2, 3, 4, 5, 6, 7]", "keep at least one layer"),
    (f"[{'9' * 4000}]", r"0\.\.7, got 9"),
    (json.dumps(["x" * 90_000]), "got 'xxx"),
    (json.dumps([0] * 100_000), "each layer once"),
    ('{"layer_indices": "3,4"}', "a list in 'layer_indices'"),
    ('{"layer_indices": {"3": 4}}', "a list in 'layer_indices'"),
    ('{"layer_indices": [3], "keep": true}', "nothing but the layers to drop beside 'layer_indices', got 'keep'"),
    (
        '{"layer_indices": [3], "pruning_percentage": 20, "expansion_rate": 140}',
        "got 'pruning_percentage', 'expansion_rate'",
    ),
    ('{"pruning_type": "DEPTH", "layer_indices": [3], "num_layers_to_remove": 2}', "got 'num_layers_to_remove'"),
    ('{"drop_attn_list": "3", "drop_mlp_list": [3]}', "a list in 'drop_attn_list'"),
    ('{"drop_attn_list": [3, true], "drop_mlp_list": [3]}', "got True"),
    ('{"drop_attn_list": [true], "drop_mlp_list": [true], "num_hidden_layers": 8}', "for each of 8 layers"),
    ('{"drop_attn_list": [9], "drop_mlp_list": [9], "num_hidden_layers": 8}', "got 9"),
    ('{"drop_attn_list": [3], "drop_mlp_list": [3], "num_hidden_layers": "x"}', "number of layers"),
    ('{"block_configs": []}', "a list of 1 to"),
    ('{"block_configs": {"0": 1}}', "a list of 1 to"),
    ('{"block_configs": [3]}', "'attention' and 'ffn' with 'no_op'"),
    ('{"block_configs": [{"attention": null, "ffn": {}}]}', "'attention' and 'ffn' with 'no_op'"),
    ('{"block_configs": [{"attention": {"no_op": 1}, "ffn": {"no_op": 1}}]}', "'attention' and 'ffn' with 'no_op'"),
    (puzzletron(GONE, GONE), "one layer at least that stays"),
    (puzzletron(block(), num_hidden_layers=2), "an entry for each of 2 layers"),
]
HOSTILE_TEXTS = [
    ("--prune-layers 3,x", "layer numbers with commas between them, got x"),
    ("--prune-layers", "layer numbers with commas"),
    ("--prune-layers 3,,4", "layer numbers with commas"),
    ("--prune-layers -1", "layer numbers with commas"),
    ("--prune-layers ３", "layer numbers with commas"),
    ("--prune-layers 3,4 --prune-layers 5", "Leave one of them in"),
    ("--prune-layers 3,3", "each layer once"),
    ("--prune-layers 3 " * 2000, "Leave one of them in"),
    (f"--prune-layers {'x' * 50_000}", "layer numbers with commas"),
    ("3,8", r"0\.\.7, got 8"),
    ("optipfair prune --pruning-type MLP_GLU --layer-indices 3,4", "layers that are made narrower"),
    ("optipfair prune --layer-indices 3,4 --pruning-type=HEADS", "another way .'HEADS'"),
    ("optipfair prune --layer-indices 3,4 --pruning-percentage 20", "got --pruning-percentage"),
    ("optipfair prune --keep --layer-indices=3,4", "got --keep"),
    (f"--prune-layers {'9' * 30}", "layer numbers with commas"),
    ("'3,4", 'layer numbers ."3,4". or one of'),
    ("see --prune-layers-of 3", 'layer numbers ."3,4". or one of'),
    ("", 'layer numbers ."3,4". or one of'),
]


class TestRefused:
    @pytest.mark.parametrize(("text", "reason"), REFUSED_KINDS, ids=[reason for _, reason in REFUSED_KINDS])
    def test_changes_that_strata_does_not_have_are_named(self, text: str, reason: str) -> None:
        with pytest.raises(MaskError, match=reason) as told:
            open_dialect(text.encode(), "m.json", n_layers=8)
        assert "expected whole layers that are left out" in str(told.value)
        assert "Strata has no such change yet" in str(told.value)

    @pytest.mark.parametrize(("text", "reason"), WIDTHS)
    def test_a_width_without_the_numbers_of_neurons_says_how_to_choose_them(self, text: str, reason: str) -> None:
        with pytest.raises(MaskError, match=reason) as told:
            open_dialect(text.encode(), "m.json", n_layers=8)
        assert "does not say which neurons or heads stay: choose them with make_narrow" in str(told.value)

    @pytest.mark.parametrize(
        ("name", "text", "reason"),
        [("m.json", *case) for case in HOSTILE] + [("m.txt", *case) for case in HOSTILE_TEXTS],
        ids=lambda value: repr(value[:40]),
    )
    def test_what_makes_no_mask_is_refused_in_one_short_message(
        self, name: str, text: str, reason: str, tmp_path: Path
    ) -> None:
        (tmp_path / name).write_text(text)
        for open_it in (
            lambda: open_dialect(text.encode(), name, n_layers=8),
            lambda: open_edit(tmp_path / name, n_layers=8),
        ):
            with pytest.raises(MaskError, match=reason) as told:
                open_it()
            assert str(told.value).startswith(name)
            assert len(str(told.value)) < 800
