"""Greedy pruning: each step drops the layer that harms least on top of those gone before, measured again."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import evaluation

from vlm_analysis import Edit, Evaluation, Locks, Objective, greedy
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.search.greedy import greedy_steps

NAMES = ("math", "general")


def measured_by(damage: Callable[[tuple[int, ...]], tuple[float, float]]) -> Callable[..., list[Evaluation]]:
    """Return a measure that gives each mask a damage on one prompt of math and one of general."""

    def measure(masks: list[Edit]) -> list[Evaluation]:
        return [evaluation(mask.dropped, damage(mask.dropped), (1, 1), NAMES, n_layers=mask.n_layers) for mask in masks]

    return measure


def neighbours_hurt(dropped: tuple[int, ...]) -> tuple[float, float]:
    """Return 0.1 a layer's number, and 10 for each pair of neighbours; on general all is turned."""
    pairs = sum(two - one == 1 for one, two in itertools.pairwise(dropped))
    return sum(dropped) / 10 + 10 * pairs, -sum(dropped) / 10 + 10 * pairs


def test_the_damage_is_measured_on_top_of_what_is_gone() -> None:
    mask = greedy(measured_by(neighbours_hurt), 3, n_layers=8, objective=Objective(target="math"))
    assert mask.dropped == (1, 3, 5)
    assert [step["layer"] for step in mask.provenance["steps"]] == [1, 3, 5]
    assert [step["tried"] for step in mask.provenance["steps"]] == [6, 5, 4]
    assert mask.provenance["steps"][1]["harm"] == pytest.approx(0.4)
    assert edit_from_json(edit_to_json(mask)).provenance == mask.provenance


def test_the_target_decides_whose_damage_counts() -> None:
    assert greedy(measured_by(neighbours_hurt), 2, n_layers=8, objective=Objective(target="general")).dropped == (4, 6)
    assert greedy(measured_by(neighbours_hurt), 2, n_layers=8).dropped == (1, 3)  # both together are even: the lower


@given(st.integers(0, 50), st.integers(0, 5), st.sets(st.integers(0, 7), max_size=2))
def test_every_step_is_the_best_there_was(seed: int, budget: int, locked: set[int]) -> None:
    def damage(dropped: tuple[int, ...]) -> tuple[float, float]:
        one, two = np.random.default_rng([seed, *dropped]).random(2)
        return float(one), float(two)

    free = sorted(set(range(1, 7)) - locked)
    if budget > len(free):
        with pytest.raises(MaskError, match=f"Cannot drop {budget} layers: {len(free)} of 8"):
            greedy(measured_by(damage), budget, n_layers=8, locked=locked)
        return
    gone: list[int] = []
    while len(gone) < budget:
        left = [layer for layer in free if layer not in gone]
        gone.append(min(left, key=lambda layer: sum(damage(tuple(sorted([*gone, layer]))))))
    assert greedy(measured_by(damage), budget, n_layers=8, locked=locked).dropped == tuple(sorted(gone))


def test_a_layer_whose_damage_is_not_finite_stays() -> None:
    mask = greedy(measured_by(lambda dropped: (math.inf, 0) if 1 in dropped else (5, 5)), 2, n_layers=5)
    assert mask.dropped == (2, 3)
    with pytest.raises(MaskError, match=r"No layer can go after \[2, 3\]"):
        greedy(measured_by(lambda dropped: (math.nan, 0) if 1 in dropped else (5, 5)), 3, n_layers=5)


def test_a_layer_without_which_the_model_cannot_run_stays() -> None:
    def measure(masks: list[Edit]) -> list[Evaluation | None]:
        found = measured_by(neighbours_hurt)(masks)
        return [None if {1, 2} <= set(one.mask.dropped) or 3 in one.mask.dropped else one for one in found]

    going = greedy_steps(measure, n_layers=5, locks=Locks(5, {4: "kept"}), objective=Objective(target="math"))
    steps = [next(going), next(going)]
    assert [step.layer for step in steps] == [0, 2]
    assert steps[0].harm == {0: 0, 1: pytest.approx(0.1), 2: pytest.approx(0.2), 3: None}


def test_one_layer_stays_whatever_is_protected() -> None:
    assert greedy(measured_by(neighbours_hurt), 2, n_layers=3, protected=()).budget == 2
    with pytest.raises(MaskError, match="Cannot drop 3 layers: 2 of 3"):
        greedy(measured_by(neighbours_hurt), 3, n_layers=3, protected=())


def test_nothing_is_measured_for_no_budget_and_once_a_step_otherwise() -> None:
    calls: list[int] = []

    def measure(masks: list[Edit]) -> list[Evaluation]:
        calls.append(len(masks))
        return measured_by(neighbours_hurt)(masks)

    assert greedy(measure, 0, n_layers=8).dropped == ()
    assert calls == []
    greedy(measure, 0.25, n_layers=8)
    assert calls == [1, 6, 5]  # the dense model first


def test_steps_go_on_to_the_last_layer_that_may_go() -> None:
    steps = list(greedy_steps(measured_by(neighbours_hurt), n_layers=5, objective=Objective(target="math")))
    assert [step.layer for step in steps] == [1, 3, 2]
    assert len(list(greedy_steps(measured_by(neighbours_hurt), n_layers=3, locks=Locks(3)))) == 2  # one layer must stay


def test_evaluations_of_other_masks_and_an_unknown_target_are_refused() -> None:
    measure = measured_by(neighbours_hurt)
    turned, short = (lambda masks: measure(masks)[::-1]), (lambda masks: measure(masks)[1:])
    for wrong, asked in ((turned, 6), (short, 1)):
        with pytest.raises(MaskError, match=f"expected evaluations of {asked} masks in their order"):
            greedy(wrong, 1, n_layers=8)
    with pytest.raises(MaskError, match="not measured on domain 'art'"):
        greedy(measure, 1, n_layers=8, objective=Objective(target="art"))
