"""Masks: only what makes sense can be one, strategies do what they say, and no file spoils that."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import full_recording

from vlm_analysis import STRATEGIES, LayerScores, PruneMask, make_mask, open_mask, save_mask
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo

CHOOSING = [key for key, row in STRATEGIES.items() if row.choose]


def scores(values: list[float], drop: str = "highest") -> LayerScores:
    return LayerScores("made", np.array(values, float), np.zeros(len(values)), drop, {"target": "math"})  # type: ignore[arg-type]


def rising(n_layers: int) -> LayerScores:
    return scores(list(range(n_layers)))


class TestMask:
    def test_a_mask_sorts_and_counts(self) -> None:
        mask = PruneMask(8, (5, 3))
        assert (mask.dropped, mask.kept, mask.budget, mask.ratio) == ((3, 5), (0, 1, 2, 4, 6, 7), 2, 0.25)

    @pytest.mark.parametrize(
        "dropped", [(3, 3), (8,), (-1,), (True,), (1.0,), ("1",), (None,), (math.nan,), tuple(range(8))]
    )
    def test_layers_that_make_no_sense_are_refused(self, dropped: tuple[Any, ...]) -> None:
        with pytest.raises(MaskError, match=r"once|0\.\.7|keep at least one"):
            PruneMask(8, dropped)

    @pytest.mark.parametrize("n_layers", [0, -1, True, 8.0, "8", None, math.nan])
    def test_numbers_of_layers_that_make_no_sense_are_refused(self, n_layers: Any) -> None:
        with pytest.raises(MaskError, match=r"whole number in 1\.\.10000"):
            PruneMask(n_layers)

    def test_numpy_integers_become_plain_ones(self) -> None:
        mask = PruneMask(np.int64(8), np.array([5, 3]))  # type: ignore[arg-type]
        assert mask == PruneMask(8, (3, 5))
        assert {type(value) for value in (mask.n_layers, *mask.dropped)} == {int}

    def test_equality_and_hash_ignore_all_but_the_layers(self) -> None:
        one = PruneMask(8, (3,), name="a", notes="b", provenance={"seed": 1}, model=ModelInfo("m", "f", 8))
        assert one == PruneMask(8, [3])  # type: ignore[arg-type]
        assert len({one, PruneMask(8, (3,)), PruneMask(8, (4,)), PruneMask(9, (3,))}) == 3

    def test_a_mask_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            PruneMask(8).dropped = (1,)  # type: ignore[misc]


class TestBudget:
    @pytest.mark.parametrize(
        ("n_layers", "budget", "layers"),
        [
            (100, 0.29, 29),
            (10, 0.3, 3),
            (28, 0.1, 2),
            (28, 0.25, 7),
            (28, 0.4, 11),
            (10, 0.0, 0),
            (10, 0, 0),
            (10, 8, 8),
            (10, 0.09, 0),
            (10, np.int64(3), 3),
            (10, np.float64(0.3), 3),
        ],
    )
    def test_a_ratio_counts_its_floor_and_a_whole_number_itself(self, n_layers: int, budget: Any, layers: int) -> None:
        assert make_mask(rising(n_layers), "first-k", budget).budget == layers

    @given(st.integers(3, 200), st.data())
    def test_every_exact_ratio_gives_its_layers(self, n_layers: int, data: st.DataObject) -> None:
        layers = data.draw(st.integers(0, n_layers - 2))
        assert make_mask(rising(n_layers), "first-k", layers / n_layers).budget == layers

    @pytest.mark.parametrize("budget", [math.nan, 1.0, 1.5, -1, -0.1, True, False, "3", None, math.inf])
    def test_a_budget_that_is_neither_is_refused(self, budget: Any) -> None:
        with pytest.raises(MaskError, match=r"number of layers .*or a ratio"):
            make_mask(rising(10), "first-k", budget)

    def test_a_budget_beyond_the_free_layers_is_refused(self) -> None:
        with pytest.raises(MaskError, match="Cannot drop 9 layers: 8 of 10 may go"):
            make_mask(rising(10), "first-k", 9)

    def test_a_budget_beyond_the_scored_layers_is_refused(self) -> None:
        with pytest.raises(MaskError, match="only 2 that may go have a score"):
            make_mask(scores([1, math.nan, 2, 3, 4]), "first-k", 3)


class TestStrategies:
    def test_first_and_last_layer_stay_by_default(self) -> None:
        assert make_mask(rising(6), "first-k", 4).dropped == (1, 2, 3, 4)
        assert make_mask(rising(6), "first-k", 1).dropped == (4,)

    def test_given_protection_replaces_the_default(self) -> None:
        assert make_mask(rising(6), "first-k", 2, protected=()).dropped == (4, 5)
        assert make_mask(rising(6), "first-k", 2, protected={4}).dropped == (3, 5)

    def test_locked_layers_stay_whatever_is_protected(self) -> None:
        assert make_mask(rising(6), "first-k", 2, protected=(), locked={5}).dropped == (3, 4)
        assert make_mask(rising(6), "first-k", 2, locked={3}).dropped == (2, 4)

    def test_first_k_follows_the_drop_order_at_both_ends(self) -> None:
        values = [0.0, 0.5, 0.1, 0.9, 0.5, 0.0]
        assert make_mask(scores(values), "first-k", 2).dropped == (1, 3)  # the tie of 1 and 4 goes to 1
        assert make_mask(scores(values, "lowest"), "first-k", 2).dropped == (1, 2)

    @given(
        st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=5, max_size=9),
        st.integers(1, 4),
        st.sets(st.integers(0, 8), max_size=3),
        st.sampled_from(["highest", "lowest"]),
    )
    def test_the_contiguous_block_is_the_best_of_all(
        self, values: list[float], budget: int, protected: set[int], drop: str
    ) -> None:
        sign = 1 if drop == "highest" else -1
        blocks = [range(start, start + budget) for start in range(len(values) - budget + 1)]
        totals = {b[0]: sign * math.fsum(values[i] for i in b) for b in blocks if not protected & set(b)}
        totals = {start: total for start, total in totals.items() if not math.isnan(total)}
        if not totals:
            with pytest.raises(MaskError):
                make_mask(scores(values, drop), "contiguous-block", budget, protected=protected)
            return
        mask = make_mask(scores(values, drop), "contiguous-block", budget, protected=protected)
        assert mask.dropped == tuple(range(mask.dropped[0], mask.dropped[0] + budget))
        assert totals[mask.dropped[0]] == pytest.approx(max(totals.values()), abs=1e-9)

    def test_equal_blocks_go_to_the_lower_start(self) -> None:
        assert make_mask(scores([1] * 7), "contiguous-block", 3).dropped == (1, 2, 3)

    def test_no_block_between_protected_layers_says_so(self) -> None:
        with pytest.raises(MaskError, match=r"No contiguous block of 3 layers.*\[0, 1, 3, 4\]"):
            make_mask(rising(6), "contiguous-block", 3, protected={2, 5})

    @pytest.mark.parametrize("strategy", CHOOSING)
    def test_budget_zero_drops_nothing(self, strategy: str) -> None:
        recording = full_recording(n_layers=6)
        assert make_mask(rising(6), strategy, 0, recording=recording).dropped == ()
        assert make_mask(rising(6), strategy, 0, recording=recording, protected=range(6)).dropped == ()

    @pytest.mark.parametrize("strategy", sorted(set(CHOOSING) - {"minimum-gap"}))
    def test_every_budget_that_fits_is_met(self, strategy: str) -> None:
        for n_layers, budget in itertools.product((3, 8), range(7)):
            if budget <= n_layers - 2:
                mask = make_mask(rising(n_layers), strategy, budget, recording=full_recording(n_layers=n_layers))
                assert mask.budget == budget
                assert not {0, n_layers - 1} & set(mask.dropped)

    def test_unknown_strategies_and_missing_scores_are_refused(self) -> None:
        with pytest.raises(MaskError, match=r"first-k.*contiguous-block.*got 'best'"):
            make_mask(rising(6), "best", 1)
        with pytest.raises(MaskError, match="needs layer scores"):
            make_mask(None, "first-k", 1, n_layers=6)

    def test_scores_and_n_layers_must_agree(self) -> None:
        with pytest.raises(MaskError, match=r"must agree.*'5', '6'"):
            make_mask(rising(6), "first-k", 1, n_layers=5)

    def test_the_mask_tells_where_it_comes_from(self) -> None:
        told = make_mask(rising(6), "first-k", 0.4, seed=3).provenance
        assert told == {
            "strategy": "first-k",
            "budget": 0.4,
            "seed": 3,
            "criterion": "made",
            "target": "math",
            "drop_order": [4, 3],
        }


class TestFiles:
    def test_a_saved_mask_opens_as_it_was(self, tmp_path: Path) -> None:
        mask = PruneMask(
            8, (5, 3), name="näme", notes="two\nlines", model=ModelInfo("m", "f" * 64, 8), provenance={"budget": 0.25}
        )
        opened = open_mask(save_mask(mask, tmp_path / "mask.json"))
        assert opened == mask
        assert (opened.name, opened.notes, opened.model, opened.provenance) == (
            mask.name, mask.notes, mask.model, mask.provenance,
        )  # fmt: skip
        content = json.loads((tmp_path / "mask.json").read_text("utf-8"))
        assert {key: content[key] for key in ("schema_version", "numbering", "n_layers", "dropped")} == {
            "schema_version": 1, "numbering": 0, "n_layers": 8, "dropped": [3, 5],
        }  # fmt: skip

    def test_the_file_tells_the_model_by_name_revision_and_configuration(self) -> None:
        model = ModelInfo("owner/model", "f" * 64, 8, revision="abc", config_hash="c" * 64)
        told = json.loads(edit_to_json(PruneMask(8, (3,), model=model)))["model"]
        assert told == {
            "name": "owner/model", "source": "owner/model", "revision": "abc", "config_hash": "c" * 64,
            "fingerprint": "f" * 64, "n_layers": 8,
        }  # fmt: skip

    def test_a_file_from_before_revision_and_configuration_were_told_still_opens(self) -> None:
        content = json.loads(edit_to_json(PruneMask(8, (3,), model=ModelInfo("m", "f" * 64, 8))))
        for key in ("source", "revision", "config_hash"):
            del content["model"][key]
        assert edit_from_json(json.dumps(content)).model == ModelInfo("m", "f" * 64, 8)

    @given(st.integers(1, 60), st.data())
    def test_any_mask_survives_its_text(self, n_layers: int, data: st.DataObject) -> None:
        dropped = data.draw(st.sets(st.integers(0, n_layers - 1), max_size=n_layers - 1))
        name = data.draw(st.text(max_size=20))
        mask = PruneMask(n_layers, tuple(dropped), name=name)
        assert edit_from_json(edit_to_json(mask)) == mask
        assert edit_from_json(edit_to_json(mask)).name == name

    def test_a_mask_made_with_a_numpy_budget_and_seed_can_be_saved(self, tmp_path: Path) -> None:
        ranked = replace(rising(8), options={"seed": np.int64(3)})
        mask = make_mask(ranked, "first-k", np.int64(2), seed=np.int64(1))  # type: ignore[arg-type]
        assert open_mask(save_mask(mask, tmp_path / "mask.json")) == mask

    @pytest.mark.parametrize(
        "change",
        [
            {"numbering": 2},
            {"numbering": True},
            {"numbering": 1, "dropped": [0]},
            {"schema_version": 2},
            {"schema_version": None},
            {"kind": "strata-recording"},
            {"dropped": "1,2"},
            {"dropped": [1, 1]},
            {"dropped": [8]},
            {"dropped": [-1]},
            {"dropped": [1.0]},
            {"dropped": [True]},
            {"dropped": [math.nan]},
            {"dropped": [[1]]},
            {"dropped": list(range(8))},
            {"n_layers": "8"},
            {"n_layers": math.nan},
            {"n_layers": None},
            {"model": {"name": "m"}},
            {"model": "m"},
            {"model": 3},
            {"model": {"name": "m", "fingerprint": "f", "n_layers": "many"}},
            {"model": {"name": "m", "fingerprint": "f", "n_layers": math.inf}},
        ],
        ids=str,
    )
    def test_a_wrong_mask_file_is_refused_in_words(self, tmp_path: Path, change: dict[str, Any]) -> None:
        content = json.loads(edit_to_json(PruneMask(8, (1,)))) | change
        (tmp_path / "mask.json").write_text(json.dumps(content))
        with pytest.raises(MaskError):
            open_mask(tmp_path / "mask.json")

    @pytest.mark.parametrize(
        "data",
        [b"", b"{", b"[1, 2]", b"3", b"null", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{", b"1" * 5000, b"\0"],
        ids=lambda data: repr(data[:12]),
    )
    def test_what_is_no_mask_is_refused_in_words(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "mask.json").write_bytes(data)
        with pytest.raises(MaskError):
            open_mask(tmp_path / "mask.json")

    def test_a_missing_mask_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MaskError, match=r"nowhere\.json"):
            open_mask(tmp_path / "nowhere.json")
        with pytest.raises(MaskError):
            open_mask(tmp_path)
