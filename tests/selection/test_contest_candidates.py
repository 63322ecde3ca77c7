"""The edits that compete in a contest: each saves the same, each stands once, and the best on the choosing prompts is picked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rankings import full_recording

from vlm_analysis import Edit, Evaluation, Locks, Mix, Narrow, PruneMask, WidthScores
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.model_info import LayerWidth, ModelInfo
from vlm_analysis.selection.contest.candidates import (
    Candidate,
    depth_candidates,
    mix_maker,
    pick,
    plan_of,
    width_candidates,
)

N_LAYERS, COST, GROUP_COST = 8, 3, 10
OF_LAYER = 40 * COST + 4 * GROUP_COST
WHOLE = N_LAYERS * OF_LAYER
MODEL = ModelInfo(
    "toy",
    "f" * 64,
    N_LAYERS,
    protected={0: "first", 7: "last"},
    layer_parameters=(OF_LAYER,) * N_LAYERS,
    n_parameters=2 * WHOLE,
    widths=(LayerWidth(40, 4, COST, GROUP_COST),) * N_LAYERS,
)
RNG = np.random.default_rng(5)
SCORES = WidthScores(
    MODEL,
    "p" * 64,
    tuple(RNG.random((4, 40)) for _ in range(N_LAYERS)),
    tuple(8 * RNG.random((4, 4)) for _ in range(N_LAYERS)),
    RNG.random(N_LAYERS),
    RNG.random(N_LAYERS),
    tokens=(40, 17),
    answers=(3, 1, 2),
)


@pytest.mark.parametrize(("share", "n"), [(0.1, 1), (0.125, 1), (0.13, 2), (0.5, 4), (0.75, 6)])
def test_a_share_is_rounded_up_to_whole_layers(share: float, n: int) -> None:
    plan = plan_of(MODEL, share, MODEL.locks)
    assert plan.n_dropped == n
    assert plan.share == pytest.approx(n / N_LAYERS)
    assert share <= plan.share + 1e-9 < share + 1 / N_LAYERS + 1e-9


def test_what_cannot_go_is_said() -> None:
    with pytest.raises(EvaluationError, match=r"expected at most 75% .* as 6 layers may go, got 90%"):
        plan_of(MODEL, 0.9, MODEL.locks)
    for lacking, locks in (
        (replace(MODEL, layer_parameters=()), MODEL.locks),
        (MODEL, Locks(N_LAYERS, locked=dict.fromkeys(range(N_LAYERS), "it stays"))),
    ):
        with pytest.raises(EvaluationError, match="counted parameters and layers that may go"):
            plan_of(lacking, 0.3, locks)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_mix_of_the_budget_saves_it_to_a_unit(n: int) -> None:
    plan = plan_of(MODEL, n / N_LAYERS, MODEL.locks)
    make = mix_maker(plan, SCORES)
    for n_dropped in range(n + 1):
        mix = Mix(tuple(range(2, 2 + n_dropped)), n - n_dropped)
        edit = make(mix)
        saved = edit.saved_parameters(MODEL)
        assert n * OF_LAYER - GROUP_COST < saved <= n * OF_LAYER
        assert edit.dropped == mix.dropped
        assert plan.saved(mix) == pytest.approx(n / N_LAYERS)
        narrowed = {layer for change in edit.changes if isinstance(change, Narrow) for layer in change.layers}
        assert not narrowed & {*mix.dropped}
        assert bool(narrowed) == bool(mix.narrow)
    assert plan.saved(Mix((2,), n)) == pytest.approx(n / N_LAYERS), "no more than the budget is cut"


def test_a_mix_without_scores_of_the_width_drops_layers_alone() -> None:
    make = mix_maker(plan_of(MODEL, 0.25, MODEL.locks), None)
    assert make(Mix((2, 3))) == PruneMask(N_LAYERS, (2, 3))
    with pytest.raises(EditError, match="expected scores of the width"):
        make(Mix((2,), 1))


def test_candidates_of_width_save_the_budget_and_stand_once() -> None:
    found, refused = width_candidates(SCORES, 0.25)
    assert not refused
    assert len({one.edit for one in found}) == len(found) >= 4
    for one in found:
        unit = N_LAYERS * COST if one.method.startswith("uniform") else GROUP_COST
        assert 2 * OF_LAYER - unit < one.edit.saved_parameters(MODEL) <= 2 * OF_LAYER
    odd = replace(MODEL, widths=(LayerWidth(0, 4, 0, GROUP_COST, "it routes"), *MODEL.widths[1:]))
    parts = (SCORES.neurons[0][:, :0], *SCORES.neurons[1:])
    found, refused = width_candidates(replace(SCORES, model=odd, neurons=parts), 0.25)
    assert {one.method for one in found} >= {"global"}
    assert "it routes" in refused["uniform"]


def test_candidates_of_depth_drop_so_many_layers_that_may_go_and_stand_once() -> None:
    recording = full_recording(n_layers=N_LAYERS)
    found = depth_candidates(recording, 3, recording.model.locks)
    assert len({one.edit for one in found}) == len(found) > 1
    assert all(one.edit.budget == 3 for one in found)
    assert all({*one.edit.dropped} <= {*recording.model.locks.free} for one in found)


def test_the_highest_mean_over_domains_is_picked_and_less_kl_of_equal_ones() -> None:
    masks = [PruneMask(N_LAYERS, (layer,)) for layer in (2, 3, 4)]
    rights = [[1, 0, 0, 0, 1, 1], [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 1, 0]]  # four of one domain, two of the other
    dense = _evaluation(Edit(N_LAYERS), [1] * 6, 0.0)
    evaluations = [_evaluation(mask, one, kl) for mask, one, kl in zip(masks, rights, (0.1, 0.3, 0.2), strict=True)]
    candidates = [Candidate(str(number), mask) for number, mask in enumerate(masks)]
    assert pick(candidates, evaluations, dense) == (candidates[0], pytest.approx((1 / 4 + 1) / 2))
    assert pick(candidates[1:], evaluations[1:], dense) == (candidates[2], pytest.approx((2 / 4 + 1 / 2) / 2))


def _evaluation(edit: Edit, right: list[int], kl: float) -> Evaluation:
    frame: dict[str, Any] = {"id": [f"p{at}" for at in range(6)], "domain": ["a"] * 4 + ["b"] * 2}
    frame |= {"exact_match": np.array(right, bool), "answer_nll": 0.5, "token_agreement": 1.0, "kl_to_dense": kl}
    return Evaluation(
        edit, MODEL, "r" * 64, pd.DataFrame({**frame, "answer": "a", "answer_source": "given", "answer_ids": [[1]] * 6})
    )
