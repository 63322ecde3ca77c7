"""Narrow as a value: what it keeps, its words and JSON, and what it refuses. No model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from vlm_analysis import Drop, Edit, Narrow, PruneMask, open_edit, save_edit
from vlm_analysis.edits.kinds.narrow import MOST_KEPT, as_runs, from_runs
from vlm_analysis.errors import EditError
from vlm_analysis.model_info import LayerWidth, ModelInfo

MODEL = ModelInfo(
    "m", "f", 4, widths=(*[LayerWidth(8, 2, 10, 100)] * 3, LayerWidth(0, 2, 0, 100, "it routes tokens to experts"))
)


class TestValue:
    def test_what_is_kept_stands_as_ascending_pairs_however_it_is_given(self):
        given_as = [
            Narrow({3: [2, 0, 1], 1: [5]}, {0: [0]}),
            Narrow({1: (5,), 3: range(3)}, {0: {0}}),
            Narrow({np.int64(1): np.array([5]), 3: np.arange(3)}, {0: [np.int64(0)]}),
            Narrow(((1, (5,)), (3, (0, 1, 2))), ((0, (0,)),)),
        ]
        assert {change.neurons for change in given_as} == {((1, (5,)), (3, (0, 1, 2)))}
        assert len(set(given_as)) == 1
        assert len({Edit(4, (change,)).key for change in given_as}) == 1

    def test_narrow_stands_behind_drop_and_before_fold_and_does_not_outlive_its_layer(self):
        edit = Edit(4, (Narrow({1: [0], 3: [0]}), Drop((3,))))
        assert [change.kind for change in edit.changes] == ["drop", "narrow"]
        assert edit == PruneMask(4, [3]) + Edit(4, (Narrow({1: [0]}),))
        assert Edit(4, (Narrow({3: [0]}), Drop((3,)))) == PruneMask(4, [3])
        assert Edit(4, (Narrow(),)).is_dense

    def test_two_keep_what_both_keep(self):
        both = Edit(4, (Narrow({1: [0, 1, 2]}, {1: [0]}),)) + Edit(4, (Narrow({1: [1, 2, 3], 2: [7]}),))
        assert both.changes == (Narrow({1: [1, 2], 2: [7]}, {1: [0]}),)

    def test_layers_are_equal_exactly_where_they_keep_the_same_in_the_same_form(self):
        changes = [
            Narrow({1: [0, 1]}),
            Narrow({1: [0, 2]}),
            Narrow({}, {1: [0, 1]}),
            Narrow({1: [0, 1]}, form="zeroed"),
        ]
        assert len({change.layers[1] for change in changes}) == 4
        assert Narrow({1: [0, 1], 2: [0, 1]}).layers[1] == Narrow({1: [0, 1]}).layers[1]

    def test_uniform_is_said_of_layers_that_keep_as_many(self):
        assert Narrow({0: [1, 2], 1: [0, 5]}, {0: [1], 1: [0]}).uniform
        assert not Narrow({0: [1, 2], 1: [0]}).uniform
        assert not Narrow({0: [1, 2], 1: [0, 5]}, {0: [1]}).uniform
        assert not Narrow({0: [1, 2], 1: [0, 5]}).uniform_in(range(3))
        assert Narrow({0: [1, 2], 1: [0, 5]}).uniform_in([0, 1])

    def test_words_say_how_many_and_never_list_numbers(self):
        assert Narrow({2: range(1000)}).words() == "keeps 1,000 MLP neurons of layer 2"
        many = Narrow({layer: range(100 + layer) for layer in range(14)}, {0: [0], 1: [1]}, form="zeroed")
        assert many.words() == (
            "keeps 100 to 113 MLP neurons of each of 14 layers and 1 attention group of each of layers 0 and 1 (zeroed)"
        )
        assert len(repr(Edit(14, (many,)))) < 250

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (({1: []},), "keeps no MLP neuron"),
            (({1: "01"},), "keeps no MLP neuron"),
            (({1: [0, 0]},), "got one twice"),
            (({1: [-1]},), "from 0 on, got -1"),
            (({1: [0.5]},), r"from 0 on, got 0\.5"),
            (({1: [True]},), "got True"),
            (({"1": [0]},), "No such layer"),
            (({-1: [0]},), "No such layer"),
            (([3],), "expected numbers by layer"),
            (({}, {1: []}), "keeps no attention group"),
        ],
    )
    def test_what_keeps_nothing_or_is_no_number_is_refused(self, arguments, said):
        with pytest.raises(EditError, match=said):
            Narrow(*arguments)

    def test_forms_and_contradictions_are_named(self):
        with pytest.raises(EditError, match="one of small, zeroed, got 'tiny'"):
            Narrow({1: [0]}, form="tiny")
        with pytest.raises(EditError, match="two ways"):
            Edit(4, (Narrow({1: [0]}), Narrow({2: [0]}, form="zeroed")))
        with pytest.raises(EditError, match="something of layer 1 that both keep"):
            Edit(4, (Narrow({1: [0]}), Narrow({1: [1]})))
        with pytest.raises(EditError, match=r"0\.\.3, got 4"):
            Edit(4, (Narrow({4: [0]}),))


class TestModel:
    def test_a_part_that_cannot_be_cut_is_refused_with_its_reason(self):
        assert Edit(4, (Narrow({0: [7]}, {3: [1]}),)).refuses(MODEL) == ""
        assert "MLP of layer 3 cannot be made narrow: it routes" in Edit(4, (Narrow({3: [0]}),)).refuses(MODEL)
        assert "MLP neurons 0..7, got 8" in Edit(4, (Narrow({0: [8]}),)).refuses(MODEL)
        assert "attention groups 0..1, got 2" in Edit(4, (Narrow({}, {0: [2]}),)).refuses(MODEL)

    def test_saved_parameters_are_those_of_what_goes(self):
        change = Narrow({0: [0, 1, 2], 1: range(8)}, {1: [0]})
        assert change.saved_parameters(MODEL) == 5 * 10 + 1 * 100
        assert Narrow({0: [0]}, form="zeroed").saved_parameters(MODEL) == 0


class TestFile:
    def test_a_file_opens_as_what_was_saved_and_is_small(self, tmp_path):
        edit = Edit(28, (Narrow({layer: range(13_000) for layer in range(28)}, {5: [0, 3]}, form="zeroed"),))
        path = save_edit(edit, tmp_path / "edit.json")
        assert path.stat().st_size < 5_000
        assert (open_edit(path), open_edit(path).key) == (edit, edit.key)

    @given(st.sets(st.integers(0, 60), min_size=1))
    def test_runs_are_read_as_the_numbers_that_were_written(self, numbers):
        assert from_runs(as_runs(sorted(numbers))) == tuple(sorted(numbers))

    @pytest.mark.parametrize(
        "content",
        [
            {"neurons": {"1": "5-3"}}, {"neurons": {"1": ""}}, {"neurons": {"1": "0,0"}}, {"neurons": {"1": "a"}},
            {"neurons": {"1": f"0-{MOST_KEPT}"}}, {"neurons": {"1": "0-9999999999"}}, {"neurons": {"x": "0"}},
            {"neurons": {"99": "0"}}, {"neurons": ["0"]}, {"neurons": {"1": [0]}}, {"form": "other"}, {"kv_groups": None},
        ],
    )  # fmt: skip
    def test_a_damaged_file_is_named(self, tmp_path, content):
        path = save_edit(Edit(4, (Narrow({1: [0, 1]}),)), tmp_path / "edit.json")
        whole = json.loads(path.read_text())
        whole["changes"][0] |= content
        path.write_text(json.dumps(whole))
        with pytest.raises(EditError):
            open_edit(path)
