"""The Cost as a value: its medians and intervals against plain numpy, and a file that is read back or refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from vlm_analysis import Cost, Drop, Edit, PruneMask, Tower, open_cost, save_cost, speedup
from vlm_analysis.cli.costed import of_costs
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import (
    cost_frame,
    flops_without,
    quartiles,
    ratio_of_medians,
    was_disturbed,
    weights_without,
)
from vlm_analysis.model_info import ModelInfo, TowerInfo

MODEL = ModelInfo("a model", "f" * 64, 4, layer_parameters=(10, 20, 30, 40), n_parameters=200)
ROUNDS = np.array([[100.0, 200, 120, 110, 130], [80.0, 150, 90, 99, 65]])


def made(**changes: object) -> Cost:
    return dataclasses.replace(
        Cost(
            edit=PruneMask(4, (1, 2), name="mine"),
            model=MODEL,
            device="cpu",
            threads=2,
            n_prompts=3,
            prompt_tokens=12.5,
            new_tokens=32,
            n_parameters=(200, 150),
            n_bytes=(800, 600),
            prefill_ms=ROUNDS,
            tokens_per_s=1000 / ROUNDS,
            layer_shares=np.array([[0.1, 0.2, 0.2, 0.1], [0.2, 0.25, 0.25, 0.2]]),
            prefill_flops=(1e9, 5e8),
            encoder_flops=(2e9, 1e9),
            cache_bytes=(4096, 1024),
        ),
        **changes,
    )


def test_speedup_is_the_median_of_the_rounds_own_ratios_and_lies_in_its_interval() -> None:
    cost = made()
    for phase in ("prefill", "decode"):
        value, low, high = speedup(cost, phase)
        ratios = sorted(dense / pruned for dense, pruned in ROUNDS.T)
        assert value == pytest.approx(ratios[2])
        assert ratios[0] - 1e-9 <= low <= value + 1e-9
        assert value - 1e-9 <= high <= ratios[-1] + 1e-9
        assert speedup(cost, phase) == (value, low, high)


def test_interval_of_equal_rounds_is_a_point_and_pairs_stay_pairs() -> None:
    drifting = np.array([[10.0, 20, 40], [5.0, 10, 20]])
    assert speedup(made(prefill_ms=drifting, tokens_per_s=1000 / drifting), "prefill") == pytest.approx((2, 2, 2))


def test_more_rounds_than_anyone_measures_are_refused() -> None:
    rounds = np.ones((2, 200_000))
    with pytest.raises(EvaluationError, match="1000 rounds at most"):
        made(prefill_ms=rounds, tokens_per_s=rounds)


def test_medians_that_part_from_the_rounds_own_ratios_tell_of_a_disturbed_machine() -> None:
    assert not was_disturbed(made(), "prefill")
    slowed = np.array([[14.0, 14, 14, 28, 42, 42, 42], [10.0, 10, 10, 26, 30, 30, 30]])
    cost = made(prefill_ms=slowed, tokens_per_s=1000 / slowed)
    for phase in ("prefill", "decode"):
        assert speedup(cost, phase)[0] == pytest.approx(1.4)
        assert ratio_of_medians(cost, phase) == pytest.approx(28 / 26)
        assert was_disturbed(cost, phase)
    apart = np.array([[10.0, 10, 10], [5.0, 5.2, 4.8]])
    assert not was_disturbed(made(prefill_ms=apart, tokens_per_s=1000 / apart), "prefill")


def test_expected_times_take_the_dropped_layers_shares_away() -> None:
    cost = made()
    assert cost.expected_prefill_ms == pytest.approx(120 * 0.6)
    assert cost.expected_tokens_per_s == pytest.approx((1000 / 120) / 0.5)
    assert cost.expected_share("prefill") == pytest.approx(0.6)


class TestVisionEncoder:
    MODEL = dataclasses.replace(MODEL, tower=TowerInfo(3, (5, 6, 7)))
    EDIT = Edit(4, (Drop((1,)), Tower(3, (0, 2))))
    SHARES = np.array([0.05, 0.1, 0.15])

    def cost(self, **changes: object) -> Cost:
        return made(model=self.MODEL, edit=self.EDIT, **{"encoder_shares": self.SHARES, **changes})

    def test_its_dropped_layers_take_their_measured_share_off_a_prefill_and_nothing_off_a_token(self) -> None:
        assert self.cost().expected_share("prefill") == pytest.approx(1 - 0.2 - 0.05 - 0.15)
        assert self.cost().expected_share("decode") == pytest.approx(1 - 0.25)
        other = Edit(4, (Tower(3, (1,)),))
        assert self.cost().expected_share("prefill", other) == pytest.approx(1 - 0.1)
        assert self.cost(encoder_shares=[]).expected_share("prefill") == pytest.approx(1 - 0.2)  # it was not timed

    def test_an_edit_of_another_encoder_has_no_cost_of_this_model(self) -> None:
        with pytest.raises(EvaluationError, match=r"A cost cannot be made\. The edit does not fit the model"):
            made(model=self.MODEL, edit=Edit(4, (Tower(24, (20,)),)))

    def test_flops_of_a_prompt_are_those_of_both_where_both_are_known(self) -> None:
        assert self.cost().all_flops == (3e9, 1.5e9)
        assert self.cost(encoder_flops=None).all_flops == (1e9, 5e8)
        assert self.cost(prefill_flops=None).all_flops is None

    def test_the_command_line_tells_the_share_of_both_and_each_in_its_rows(self) -> None:
        told = of_costs([self.cost()], [None])
        (row,) = told.data["costs"]
        assert (row["prefill_flops"], row["encoder_flops"], row["all_flops"]) == (5e8, 1e9, 1.5e9)
        assert row["prefill_flops_share"] == 0.5
        assert "prefill, FLOPs" in told.text
        without = of_costs([self.cost(encoder_flops=None, prefill_flops=(1e9, 4e8))], [None])
        assert without.data["costs"][0]["prefill_flops_share"] == 0.4

    def test_flops_of_a_token_are_those_of_the_decoder(self) -> None:
        assert flops_without(self.MODEL, self.EDIT) == (2 * 100, 2 * 80)

    def test_a_file_gives_them_back_and_shares_of_another_encoder_are_refused(self, tmp_path: Path) -> None:
        back = open_cost(save_cost(self.cost(), tmp_path / "cost.json"))
        np.testing.assert_array_equal(back.encoder_shares, self.SHARES)
        for odd in ([0.1], [0.5, 0.2, 0.2], [0.1, -0.1, 0.1], [0.1, float("nan"), 0.1]):
            with pytest.raises(EvaluationError, match="encoder_shares"):
                self.cost(encoder_shares=odd)


def test_frame_holds_relative_times_with_their_quartiles() -> None:
    frame = cost_frame([made(edit=PruneMask(4, (0, 1, 2))), made()])
    assert list(frame["phase"]) == ["decode", "decode", "prefill", "prefill"]
    assert list(frame["budget"]) == [2, 3, 2, 3]
    ratios = np.sort(ROUNDS[1] / ROUNDS[0])
    np.testing.assert_allclose(frame[["low", "value", "high"]], np.tile(ratios[1:4], (4, 1)))
    np.testing.assert_allclose(frame["expected"], [0.5, 0.3, 0.6, 0.5])
    assert set(frame["more"]) == {""}
    assert cost_frame([]).empty


def test_frame_says_what_an_edit_does_beside_dropping_decoder_layers() -> None:
    tower = Tower(3, (0, 2))
    frame = cost_frame([made(edit=Edit(4, (tower,))), made(edit=Edit(4, (Drop((1,)), tower)))])
    assert list(frame["budget"]) == [0, 1, 0, 1]
    assert set(frame["more"]) == {tower.words()} == {"drops layers 0 and 2 of the vision encoder"}


def test_quartiles_are_those_of_sorted_numbers() -> None:
    assert quartiles(np.array([5.0, 1, 4, 2, 3])) == (2, 3, 4)


def test_weights_are_known_without_measuring() -> None:
    mask = PruneMask(4, (1, 2))
    assert weights_without(MODEL, mask) == ((200, 150), (800, 600))
    assert weights_without(dataclasses.replace(MODEL, dtype="bfloat16"), mask)[1] == (400, 300)
    assert weights_without(dataclasses.replace(MODEL, dtype="float8_e4m3fn"), mask)[1] is None
    with pytest.raises(EvaluationError, match="Load the model"):
        weights_without(dataclasses.replace(MODEL, layer_parameters=(), n_parameters=0), mask)


def test_a_file_gives_the_same_cost_back(tmp_path: Path) -> None:
    cost = made()
    back = open_cost(save_cost(cost, tmp_path / "deep" / "cost.json"))
    for field in dataclasses.fields(Cost):
        one, other = getattr(cost, field.name), getattr(back, field.name)
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, field.name
    assert back.edit.name == "mine"
    plain = open_cost(
        save_cost(made(prefill_flops=None, encoder_flops=None, cache_bytes=None), tmp_path / "plain.json")
    )
    assert (plain.prefill_flops, plain.encoder_flops, plain.cache_bytes) == (None, None, None)
    with pytest.raises(EvaluationError, match="two numbers from 0 on as cache_bytes"):
        made(cache_bytes=(4096, -1))
    assert speedup(back, "decode") == speedup(cost, "decode")


def test_no_file_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"Measure again"):
        open_cost(tmp_path / "none.json")


@pytest.mark.parametrize("length", [0, 1, 40, 400])
def test_a_file_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = save_cost(made(), tmp_path / "cost.json")
    path.write_text(path.read_text("utf-8")[:length], "utf-8")
    with pytest.raises(EvaluationError, match="not a whole cost"):
        open_cost(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "strata-mask"),
        ("schema_version", 2),
        ("prefill_ms", [[1.0], [float("nan")]]),
        ("prefill_ms", [[1.0, 2.0, 3.0, 4.0, 0.0]] * 2),
        ("prefill_ms", [[1.0, 2.0], [3.0]]),
        ("prefill_ms", 3),
        ("prefill_ms", []),
        ("tokens_per_s", [[1.0], [2.0]]),
        ("tokens_per_s", None),
        ("layer_shares", [[0.5, 0.5, 0.5, 0.5]] * 2),
        ("layer_shares", [[0.1, 0.1, 0.1]] * 2),
        ("n_parameters", [200]),
        ("n_bytes", [800, -1]),
        ("n_bytes", [800, 10**400]),
        ("mask", {}),
        ("model", None),
        ("threads", "many"),
        *(
            (name, value)
            for name in ("threads", "n_prompts", "new_tokens", "prompt_tokens")
            for value in (-1, 0, 1e300)
        ),
        ("prompt_tokens", float("nan")),
        ("n_parameters", [10**300, 10]),
        ("prefill_ms", [[1e308] * 5] * 2),
        ("tokens_per_s", [[1e-300] * 5] * 2),
    ],
)
def test_damaged_text_is_refused(tmp_path: Path, name: str, value: object) -> None:
    path = save_cost(made(), tmp_path / "cost.json")
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**content, name: value}))
    with pytest.raises(EvaluationError, match="Update Strata" if name == "schema_version" else "Measure again"):
        open_cost(path)
    del content[name]
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"Measure again"):
        open_cost(path)


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 100_000])
def test_other_text_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cost.json").write_text(text)
    with pytest.raises(EvaluationError):
        open_cost(tmp_path / "cost.json")
