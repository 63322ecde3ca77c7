"""Measured damage: read from evaluations of left-out layers, and nothing foreign among them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rankings import evaluation, full_recording, left_out

from vlm_analysis import Evaluation, read_damage, score_layers
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo

NAMES = ("math", "math", "general")


def three_layers(**changes: Any) -> list[Evaluation]:
    """Dense, and layers 0 and 2 of four left out, on two prompts of math and one of general."""
    changes = {"n_layers": 4, **changes}
    return [
        evaluation((), (0, 0, 0), (1, 2, 3), NAMES, **changes),
        evaluation((0,), (0.1, 0.3, 0.8), (2, 4, 3), NAMES, **changes),
        evaluation((2,), (0.5, 0.5, 0.5), (1, 2, 9), NAMES, **changes),
    ]


def four_layers() -> Any:
    return full_recording(4, 4, ("math", "general"))


def test_damage_is_the_mean_over_all_prompts_or_the_targets() -> None:
    recording, damage = four_layers(), three_layers()
    np.testing.assert_allclose(
        score_layers(recording, "damage-kl", damage=damage).values, [0.4, np.nan, 0.5, np.nan], rtol=1e-12
    )
    np.testing.assert_allclose(
        score_layers(recording, "damage-kl", damage=damage, target="math").values,
        [0.2, np.nan, 0.5, np.nan],
        rtol=1e-12,
    )
    # dense 1, 2, 3: increases 1, 2, 0 and 0, 0, 6
    np.testing.assert_allclose(
        score_layers(recording, "damage-nll", damage=damage).values, [1, np.nan, 2, np.nan], rtol=1e-12
    )


def test_layers_that_were_not_left_out_are_named_and_never_dropped() -> None:
    scores = score_layers(four_layers(), "damage-kl", damage=three_layers(), target="math")
    assert scores.order == (0, 2)
    assert scores.options["not_measured"] == [1, 3]


def test_without_a_dense_evaluation_the_nll_stands_as_it_is_and_ranks_the_same() -> None:
    flags = [
        score_layers(full_recording(), "damage-nll", damage=left_out(dense=d)).options["over_dense"]
        for d in (True, False)
    ]
    assert flags == [True, False]
    recording, damage = four_layers(), three_layers()
    one, two = (score_layers(recording, "damage-nll", damage=given) for given in (damage, damage[1:]))
    assert one.order == two.order == (0, 2)
    np.testing.assert_allclose(two.values - one.values, [2, np.nan, 2, np.nan])


def test_a_number_that_is_not_finite_keeps_its_layer() -> None:
    for broken in (math.inf, math.nan):
        damage = [*three_layers(), evaluation((3,), (0, 0, broken), (1, 1, 1), NAMES, n_layers=4)]
        scores = score_layers(four_layers(), "damage-kl", damage=damage)
        assert scores.order == (0, 2)
        assert score_layers(four_layers(), "damage-kl", damage=damage, target="math").order[0] == 3


def test_prompts_in_another_order_are_matched_by_id() -> None:
    damage = three_layers()
    turned = evaluation(
        (2,), (0.5, 0.5, 0.5), (9, 1, 2), ("general", "math", "math"), n_layers=4, ids=["e2", "e0", "e1"]
    )
    one, two = (score_layers(four_layers(), "damage-nll", damage=[*damage[:2], last]) for last in (damage[2], turned))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.spread, two.spread)


def test_the_spread_is_near_the_standard_error_over_the_measured_prompts() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.normal(1, 0.2, (3, 50))
    damage = [evaluation((layer,), row, row, ["math"] * 50) for layer, row in enumerate(numbers)]
    spread = score_layers(full_recording(), "damage-kl", damage=damage).spread
    np.testing.assert_allclose(spread[:3], numbers.std(axis=1) / math.sqrt(50), rtol=0.2)
    assert np.isnan(spread[3:]).all()


def test_damage_read_once_can_be_handed_in_again() -> None:
    recording, damage = full_recording(), left_out()
    read = read_damage(damage, recording.model)
    one, two = (score_layers(recording, "damage-kl", damage=given) for given in (damage, read))
    np.testing.assert_array_equal(one.values, two.values)
    assert read.n_prompts() == 6
    assert read.n_prompts("maps") == 2


class TestRefused:
    def read(self, *damage: Evaluation) -> None:
        read_damage(damage, four_layers().model)

    def test_no_damage(self) -> None:
        for damage in ((), (three_layers()[0],)):
            with pytest.raises(MaskError, match=r"no measured damage.*Measure the damage"):
                self.read(*damage)
        with pytest.raises(MaskError, match="needs measured damage"):
            score_layers(four_layers(), "damage-kl")

    def test_another_model_is_named(self) -> None:
        with pytest.raises(MaskError, match="expected made with 4 layers, got made with 5 layers"):
            self.read(*three_layers(n_layers=5))
        with pytest.raises(MaskError, match="expected made with 4 layers, got strange"):
            self.read(*three_layers(model=ModelInfo("strange", "0" * 64, 4)))

    def test_a_mask_of_several_layers_is_named(self) -> None:
        with pytest.raises(MaskError, match=r"masks of one layer, got an edit that drops layers 1 and 2"):
            self.read(*three_layers(), evaluation((1, 2), (0, 0, 0), (0, 0, 0), NAMES, n_layers=4))

    def test_prompt_sets_are_not_mixed(self) -> None:
        strange = evaluation((1,), (0, 0, 0), (0, 0, 0), NAMES, n_layers=4, prompts="0" * 64)
        with pytest.raises(MaskError, match="different prompt sets"):
            self.read(*three_layers(), strange)
        with pytest.raises(MaskError, match="different prompts: expected the same ids"):
            self.read(*three_layers(), evaluation((1,), (0, 0), (0, 0), NAMES[:2], n_layers=4))

    def test_one_layer_twice_is_named(self) -> None:
        with pytest.raises(MaskError, match="layer 2 is given twice"):
            self.read(*three_layers(), three_layers()[2])

    def test_a_target_that_was_not_measured_lists_those_that_were(self) -> None:
        with pytest.raises(MaskError, match=r"not measured on domain 'art': expected one of \['math', 'general'\]"):
            score_layers(four_layers(), "damage-kl", damage=three_layers(), target="art")
