"""Which neurons and attention groups go: against a plain greedy and every pair of numbers, on made-up scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vlm_analysis import Edit, Narrow, WidthScores, make_narrow, open_width_scores, save_width_scores
from vlm_analysis.errors import EditError
from vlm_analysis.model_info import LayerWidth, ModelInfo

N_LAYERS, NEURONS, GROUPS, COST, GROUP_COST = 4, 30, 4, 6, 50
PARAMETERS = NEURONS * COST + GROUPS * GROUP_COST + 10  # of a layer; norms stay
PLAIN: dict[str, Any] = {"alpha": 0, "beta": 0, "pivots": "none", "least": 0.1}


def made(**changed: Any) -> WidthScores:
    rng = np.random.default_rng(7)
    widths = (LayerWidth(NEURONS, GROUPS, COST, GROUP_COST),) * N_LAYERS
    model = ModelInfo(
        "toy", "f" * 64, N_LAYERS, layer_parameters=(PARAMETERS,) * N_LAYERS, n_parameters=5000, widths=widths
    )
    fields: dict[str, Any] = {
        "neurons": tuple(rng.random((4, NEURONS)) for _ in range(N_LAYERS)),
        "kv_groups": tuple(8 * rng.random((4, GROUPS)) for _ in range(N_LAYERS)),
        "cmds": np.array([0.5, 1.0, 0.25, 0.5]),
        "sens": np.array([1.0, 2.0, 3.0, 4.0]),
        "seed": 3,
        "answers": (3, 1, 2),
        "tokens": (40, 17),
    }
    return WidthScores(model, "p" * 64, **{**fields, **changed})


SCORES = made()


def kept(edit: Edit) -> tuple[dict[int, tuple[int, ...]], dict[int, tuple[int, ...]]]:
    (change,) = edit.changes
    assert isinstance(change, Narrow)
    return dict(change.neurons), dict(change.kv_groups)


def gone_of(edit: Edit) -> set[tuple[str, int, int]]:
    gone: set[tuple[str, int, int]] = set()
    for unit, whole, parts in zip(("n", "g"), (NEURONS, GROUPS), kept(edit), strict=True):
        gone |= {(unit, layer, at) for layer, numbers in parts.items() for at in set(range(whole)) - set(numbers)}
    return gone


def parameters(gone: set[tuple[str, int, int]]) -> int:
    return sum(COST if unit == "n" else GROUP_COST for unit, _, _ in gone)


def plain_greedy(values: dict[tuple[str, int, int], float], budget: int, least: dict[str, int]) -> set[Any]:
    """Take one unit after the other, the least value over cost first, as long as its layer keeps enough and it fits."""
    gone: set[Any] = set()
    left = {(unit, layer): whole for unit, whole in (("n", NEURONS), ("g", GROUPS)) for layer in range(N_LAYERS)}
    cost = {"n": COST, "g": GROUP_COST}
    for one in sorted(values, key=lambda one: (values[one] / cost[one[0]],)):
        unit, layer, _ = one
        if left[unit, layer] > least[unit] and parameters(gone) + cost[unit] <= budget:
            gone.add(one)
            left[unit, layer] -= 1
    return gone


def values_by_hand(share: float) -> dict[tuple[str, int, int], float]:
    """A · P(l) with all defaults but those of `least`, written out."""
    g = 0.5 * (1 - share)
    rows = {"n": SCORES.neurons, "g": SCORES.kv_groups}
    means = [np.concatenate([part[at] for parts in rows.values() for part in parts]).mean() for at in (0, 1)]
    found = {}
    for unit, parts in rows.items():
        for layer, part in enumerate(parts):
            weight = 1 + 0.5 * SCORES.sens[layer] / 4 + SCORES.cmds[layer] / 1
            for at in range(part.shape[1]):
                found[unit, layer, at] = ((1 - g) * part[0, at] / means[0] + g * part[1, at] / means[1]) * weight
    return found


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_global_takes_what_a_plain_greedy_takes_and_meets_the_budget_within_one_neuron(share):
    edit = make_narrow(SCORES, share, least=0.2)
    budget = int(share * PARAMETERS * N_LAYERS)
    gone = gone_of(edit)
    assert gone == plain_greedy(values_by_hand(share), budget, {"n": 6, "g": 1})
    assert budget - COST < parameters(gone) <= budget


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_uniform_keeps_as_much_in_every_layer_and_loses_least_of_all_pairs_that_meet_the_budget(share):
    edit = make_narrow(SCORES, share, "uniform", **PLAIN)
    neurons, groups = kept(edit)
    (change,) = edit.changes
    assert isinstance(change, Narrow)
    assert change.uniform_in(range(N_LAYERS))
    budget, step = int(share * PARAMETERS * N_LAYERS), N_LAYERS * COST
    assert budget - step < parameters(gone_of(edit)) <= budget

    def loss(n: int, m: int) -> float:
        pairs = ((SCORES.neurons, n), (SCORES.kv_groups, m))
        return sum(float(np.sort(part[0])[:count].sum()) for parts, count in pairs for part in parts)

    pairs = [
        (n, m) for n in range(28) for m in range(4) if budget - step < n * step + m * N_LAYERS * GROUP_COST <= budget
    ]
    best = min(pairs, key=lambda pair: loss(*pair))
    assert ({len(one) for one in neurons.values()} or {NEURONS}, {len(one) for one in groups.values()} or {GROUPS}) == (
        {NEURONS - best[0]},
        {GROUPS - best[1]},
    )
    assert all(
        set(range(NEURONS)) - set(one) == set(np.argsort(SCORES.neurons[layer][0])[: best[0]])
        for layer, one in neurons.items()
    )


def test_a_unit_without_value_goes_first_and_a_layer_that_weighs_more_keeps_more():
    neurons = tuple(part.copy() for part in SCORES.neurons)
    neurons[2][:, 5] = 0
    assert gone_of(make_narrow(made(neurons=neurons), 0.005, **PLAIN)) >= {("n", 2, 5)}
    heavy = kept(make_narrow(SCORES, 0.3, **PLAIN, omega={1: 100.0}))[0]
    assert 1 not in heavy
    assert 1 in kept(make_narrow(SCORES, 0.3, **PLAIN))[0]


def test_baselines_read_their_own_rows_and_say_so_in_the_name():
    by_hand = {"magnitude": (3, {"by": "magnitude"}), "random pivots": (2, {"pivots": "random", "g_base": 1.0})}
    for word, (row, options) in by_hand.items():
        edit = make_narrow(SCORES, 0.0001 + COST / (PARAMETERS * N_LAYERS), **{**PLAIN, **options}, units=("neurons",))
        lowest = min(((part[row, at], layer, at) for layer, part in enumerate(SCORES.neurons) for at in range(NEURONS)))
        expected = {("n", *lowest[1:])} if word == "magnitude" else gone_of(edit)
        assert gone_of(edit) == expected
        assert word in edit.name
    assert "no pivots, no CMDS" in make_narrow(SCORES, 0.1, **PLAIN).name


def test_pivots_count_for_nothing_where_answers_are_too_short_for_steps():
    short = made(answers=(0, 0, 6), tokens=(12, 0))
    edit = make_narrow(short, 0.3)
    assert edit == make_narrow(short, 0.3, pivots="none")
    assert edit.provenance["width"]["g"] == 0
    assert edit.provenance["width"]["finding"].startswith("Nothing to protect: none of 6 answers")
    assert "2 are too short to hold steps" in SCORES.finding()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1.0}, "a share of the parameters between 0 and 1"),
        ({"share": 0.95}, "So many parameters cannot go"),
        ({"share": 0.001, "mode": "uniform"}, "at least one unit a layer"),
        ({"mode": "both"}, "one of uniform, global"),
        ({"g_base": 2}, "a number from 0 to 1 as g_base"),
        ({"alpha": float("nan")}, "a number from 0 on as alpha"),
        ({"omega": {1: 0}}, "numbers above 0 by layer as omega"),
        ({"omega": {9: 1.0}}, "whole numbers 0..3, got 9"),
        ({"units": ("heads",)}, "some of neurons, kv_groups as units"),
        ({"gamma": 1}, "expected one of by, pivots"),
    ],
)
def test_what_makes_no_sense_is_refused(options, said):
    with pytest.raises(EditError, match=said):
        make_narrow(SCORES, **{"share": 0.2, **options})


def test_layers_of_several_widths_and_unknown_weights_are_refused_with_the_way_out():
    one_locked = (LayerWidth(NEURONS, 0, COST, 0, "", "it mixes tokens by a state"), *SCORES.model.widths[1:])

    model = replace(SCORES.model, widths=one_locked)
    scores = replace(SCORES, model=model, kv_groups=(np.zeros((4, 0)), *SCORES.kv_groups[1:]))
    with pytest.raises(EditError, match="layer 0 cannot be cut: it mixes tokens by a state"):
        make_narrow(scores, 0.2, "uniform")
    assert 0 not in kept(make_narrow(scores, 0.4))[1]
    assert not kept(make_narrow(scores, 0.2, "uniform", units=("neurons",)))[1]
    with pytest.raises(EditError, match="with beta=0"):
        make_narrow(replace(SCORES, cmds=np.full(4, np.nan)), 0.2)
    with pytest.raises(EditError, match="Score with a seed"):
        make_narrow(replace(SCORES, seed=None), 0.2, pivots="random")


def test_scores_come_back_from_their_file(tmp_path):
    opened = open_width_scores(save_width_scores(SCORES, tmp_path / "it.npz"))
    for unit in ("neurons", "kv_groups"):
        for one, two in zip(getattr(opened, unit), getattr(SCORES, unit), strict=True):
            np.testing.assert_array_equal(one, two)
    assert (opened.model, opened.about(), opened.seed) == (SCORES.model, SCORES.about(), 3)
    assert make_narrow(opened, 0.3) == make_narrow(SCORES, 0.3)
    assert repr(opened) == "WidthScores(toy, 4 layers, 120 neurons, 16 attention groups, exact)"
