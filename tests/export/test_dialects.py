"""Dialects: every mask survives each of them, and what no mask can say is refused by its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml
from hypothesis import given, strategies as st

from vlm_analysis import Edit, LayerScores, PruneMask, make_mask, mask_to_csv, mask_to_mergekit, open_dialect
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError
from vlm_analysis.export.dialects import kept_ranges, mask_from_csv, mask_from_mergekit
from vlm_analysis.model_info import ModelInfo

MODEL = ModelInfo("owner/model", "f" * 64, 8, revision="abc123")
MASK = PruneMask(8, (3, 4, 7), model=MODEL)
SLICES = "merge_method: passthrough\nslices:\n"


def one_slice(start: object, end: object, model: str = "m", extra: str = "") -> str:
    return f"- sources:\n  - {{model: {model}, layer_range: [{start}, {end}]{extra}}}\n"


@st.composite
def masks(draw: st.DrawFn) -> Edit:
    n_layers = draw(st.integers(1, 60))
    dropped = draw(st.permutations(range(n_layers)))[: draw(st.integers(0, n_layers - 1))]
    told = {"drop_order": dropped} if dropped and draw(st.booleans()) else {}
    return PruneMask(n_layers, tuple(dropped), model=MODEL, provenance=told)


class TestRoundTrips:
    @given(masks())
    def test_any_mask_survives_mergekit(self, mask: Edit) -> None:
        assert mask_from_mergekit(mask_to_mergekit(mask), mask.n_layers) == mask

    @given(masks(), st.sampled_from(["\n", "\r\n"]), st.booleans())
    def test_any_mask_and_its_drop_order_survive_csv(self, mask: Edit, line_end: str, mark: bool) -> None:
        data = mask_to_csv(mask).replace("\n", line_end).encode("utf-8-sig" if mark else "utf-8")
        opened = open_dialect(data, "mask.CSV")
        assert opened == mask
        assert opened.provenance.get("drop_order") == mask.provenance.get("drop_order")

    @given(masks())
    def test_csv_counted_from_one_is_converted_once_when_declared(self, mask: Edit) -> None:
        header, *rows = mask_to_csv(mask).splitlines()
        shifted = [f"{int(row.split(',')[0]) + 1},{row.split(',', 1)[1]}" for row in rows]
        assert mask_from_csv("\n".join([header, *shifted]), from_one=True) == mask
        assert mask_from_csv("\n".join([header.replace("layer", "layer_from_1"), *shifted])) == mask
        with pytest.raises(MaskError, match="numbers from 1: say that it counts from 1"):
            mask_from_csv("\n".join([header, *shifted]))

    @given(st.binary(max_size=300), st.sampled_from([".json", ".yaml", ".yml", ".csv"]))
    def test_no_bytes_do_more_than_be_refused(self, data: bytes, suffix: str) -> None:
        with pytest.raises(MaskError):
            open_dialect(data, f"mask{suffix}", n_layers=8)

    def test_json_is_opened_by_its_name_too(self) -> None:
        assert open_dialect(b"\xef\xbb\xbf" + edit_to_json(MASK).encode(), "m.json") == MASK


class TestMergekit:
    def test_the_file_says_what_mergekit_reads(self) -> None:
        text = mask_to_mergekit(MASK)
        source = "owner/model@abc123"
        assert yaml.safe_load(text) == {
            "merge_method": "passthrough",
            "modules": {
                "text_decoder": {
                    "slices": [
                        {"sources": [{"model": source, "layer_range": [0, 3]}]},
                        {"sources": [{"model": source, "layer_range": [5, 7]}]},
                    ]
                },
                "vision_tower": {"models": [{"model": source}]},
                "multi_modal_projector": {"models": [{"model": source}]},
            },
        }
        assert "Layers count from 0; [a, b] means layers a to b - 1" in text
        assert kept_ranges(MASK) == [(0, 3), (5, 7)]

    def test_modules_can_be_named_otherwise(self) -> None:
        text = mask_to_mergekit(MASK, "./here", decoder="model.layers", others=["default"])
        assert list(yaml.safe_load(text)["modules"]) == ["model.layers", "default"]
        assert mask_from_mergekit(text, 8).provenance["source"] == "./here"

    def test_a_mask_of_no_model_needs_a_source(self) -> None:
        with pytest.raises(MaskError, match="expected the mask to know its own"):
            mask_to_mergekit(PruneMask(8, (3,)))

    @pytest.mark.parametrize("model", ["{path: m}", "{model: {path: m}}", "{model: {path: m, revision: r}}", "&a m"])
    def test_every_way_to_name_a_model_is_read(self, model: str) -> None:
        assert mask_from_mergekit(SLICES + one_slice(0, 3, model), 8).kept == (0, 1, 2)

    def test_a_form_for_language_models_and_a_repeated_name_are_read(self) -> None:
        text = f"base_model: &name m\n{SLICES}{one_slice(0, 2, '*name')}{one_slice(4, 8, '*name')}"
        assert mask_from_mergekit(text, 8).dropped == (2, 3)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (SLICES + one_slice(0, 3) + one_slice(2, 8), "rising order"),
            (SLICES + one_slice(4, 8) + one_slice(0, 4), "rising order"),
            (SLICES + one_slice(0, 3) + one_slice(0, 3), "rising order"),
            (SLICES + one_slice(0, 3) + one_slice(4, 8, "other"), "slices of one model"),
            (f"base_model: other\n{SLICES}{one_slice(0, 3)}", "slices of one model"),
            (SLICES + one_slice(0, 9), "0 to 8"),
            (SLICES + one_slice(-1, 3), "0 to 8"),
            (SLICES + one_slice(3, 3), "not empty"),
            (SLICES + one_slice(5, 3), "not empty"),
            (SLICES + one_slice(".nan", 3), "whole numbers"),
            (SLICES + one_slice("0.0", 3), "whole numbers"),
            (SLICES + one_slice("true", 3), "whole numbers"),
            (SLICES + one_slice("'0'", 3), "whole numbers"),
            (SLICES + one_slice("0, 1", 3), "whole numbers"),
            (SLICES + one_slice(0, "9" * 5000), "mask"),
            (SLICES + one_slice(0, 3, "m+lora"), "without a LoRA"),
            (SLICES + one_slice(0, 3, "{path: m, lora: x}"), "a model's id"),
            (SLICES + one_slice(0, 3, "[m]"), "a model's id"),
            (SLICES + one_slice(0, 3, '"\\ud800"'), "mask"),
            (SLICES + one_slice(0, 3, extra=", parameters: {scale: 0.5}"), "no 'parameters'"),
            (f"{SLICES}{one_slice(0, 3)}parameters: {{scale: 0}}", "no 'parameters'"),
            (f"{SLICES}- sources: [{{model: m, layer_range: [0, 3]}}]\n  residual_weight: 1", "no 'residual_weight'"),
            (SLICES + "- sources: [{model: m, layer_range: [0, 3]}, {model: m, layer_range: [0, 3]}]", "one source"),
            (SLICES.replace("passthrough", "slerp") + one_slice(0, 3), "passthrough"),
            ("merge_method: passthrough\nmodels: [{model: m}]", "'slices' in one module"),
            ("merge_method: passthrough\nslices: []", "'slices' in one module"),
            ("merge_method: passthrough\nslices: 3", "list of entries"),
            ("merge_method: passthrough\nslices: [3]", "list of entries"),
            ("merge_method: passthrough\nmodules: [1]", "named modules"),
            ("merge_method: passthrough\nmodules: {a: 1}", "named modules"),
            ("merge_method: passthrough\nmodules: {a: {slices: [1]}, b: {slices: [1]}}", "one module"),
            ("", "'modules'"),
            ("3", "'modules'"),
            ("a: [", "YAML"),
            ("!!python/object/apply:os.getcwd []", "YAML"),
            ("a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]", "alias to a list"),
            ("&a [*a]", "alias to a list"),
            ("[" * 5000, "YAML"),
            ("when: 2001-99-99", "YAML"),
            ("{[1]: 2}: 3", "YAML"),
        ],
        ids=lambda value: value[-40:] if len(value) > 40 else None,
    )
    def test_what_no_mask_can_say_is_refused_by_its_reason(self, text: str, reason: str) -> None:
        with pytest.raises(MaskError, match=reason) as told:
            mask_from_mergekit(text, 8, "m.yaml")
        assert str(told.value).startswith("m.yaml")
        assert len(str(told.value)) < 500

    def test_the_number_of_layers_must_be_told(self) -> None:
        with pytest.raises(MaskError, match="does not say how many layers"):
            open_dialect(mask_to_mergekit(MASK).encode(), "m.yaml")


class TestCsv:
    def test_the_file_has_one_row_a_layer_counted_from_zero(self) -> None:
        assert mask_to_csv(PruneMask(3, (1,))) == "layer,kept,drop_order\n0,1,\n1,0,\n2,1,\n"

    def test_a_ranked_mask_tells_which_layer_went_first(self) -> None:
        scores = LayerScores("made", np.array([0, 1.0, 5, 3, 0]), np.zeros(5), "highest", {})
        assert mask_to_csv(make_mask(scores, "first-k", 2)).splitlines()[1:] == [
            "0,1,",
            "1,1,",
            "2,0,1",
            "3,0,2",
            "4,1,",
        ]
        assert "drop_order" not in make_mask(scores, "contiguous-block", 2).provenance

    @pytest.mark.parametrize("order", [[1, 1], ["x"], [math.nan], 3, [[]], [2, 3]])
    def test_a_drop_order_that_is_not_the_masks_is_left_out(self, order: object) -> None:
        text = mask_to_csv(PruneMask(4, (1, 2), provenance={"drop_order": order}))
        assert text.splitlines()[2:4] == ["1,0,", "2,0,"]

    def test_order_of_rows_and_columns_and_further_columns_do_not_matter(self) -> None:
        assert mask_from_csv("kept,why,layer\n1,,2\n0,bad,1\n\n1,,0\n") == PruneMask(3, (1,))

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "no table"),
            ("layer\n1", "the columns"),
            ("layer,kept,kept\n0,1,1", "each once"),
            ("layer,kept", "row for each layer"),
            ("layer,kept\n0", "row 2: expected 2 cells"),
            ("layer,kept\n0,nan", "whole number in 'kept'"),
            ("layer,kept\n-1,1", "whole number in 'layer'"),
            ("layer,kept\n0.0,1", "whole number in 'layer'"),
            ("layer,kept\n٣,1", "whole number in 'layer'"),
            ("layer,kept\n,1", "whole number in 'layer'"),
            (f"layer,kept\n{'9' * 5000},1", "whole number in 'layer'"),
            ("layer,kept\n0,2", "1 .stays. or 0"),
            ("layer,kept\n0,1\n0,0", "each once"),
            ("layer,kept\n0,1\n2,0", "each once"),
            ("layer,kept\n0,0", "at least one layer"),
            ("layer,kept,drop_order\n0,1,\n1,0,2", "1 to 1 in 'drop_order'"),
            ("layer,kept,drop_order\n0,1,1\n1,0,", "'drop_order'"),
            ("layer,kept,drop_order\n0,1,1\n1,0,1", "'drop_order'"),
            ("layer,kept\n" + "".join(f"{n},1\n" for n in range(10_001)), "1 to 10000"),
        ],
        ids=lambda value: repr(value[:40]),
    )
    def test_a_table_that_makes_no_sense_is_refused_by_its_reason(self, text: str, reason: str) -> None:
        with pytest.raises(MaskError, match=reason) as told:
            mask_from_csv(text, "m.csv")
        assert len(str(told.value)) < 500


class TestFiles:
    @pytest.mark.parametrize(
        ("data", "name", "reason"),
        [
            (b"x" * (1 << 18) + b"x", "m.csv", "at most 262144 bytes"),
            (b"x" * (1 << 20) + b"x", "m.json", "at most 1048576 bytes"),
            (b"\xff\xfea\0", "m.yaml", "UTF-8, got byte 0xff at 0"),
            (b"{}", "m.toml", "name ending in"),
            (b"{}", "csv", "name ending in"),
        ],
    )
    def test_files_too_large_or_of_no_known_kind_are_refused(self, data: bytes, name: str, reason: str) -> None:
        with pytest.raises(MaskError, match=reason):
            open_dialect(data, name, n_layers=8)

    def test_a_mask_file_that_declares_numbering_from_one_is_converted_once(self) -> None:
        text = edit_to_json(MASK).replace('"numbering": 0', '"numbering": 1')
        opened = edit_from_json(text)
        assert opened.dropped == (2, 3, 6)
        assert edit_from_json(edit_to_json(opened)) == opened
