"""Searches over masks: the objective in plain numbers, beam and evolution against brute force, and what all of them promise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import evaluation

from vlm_analysis import (
    Cancelled,
    Edit,
    Evaluation,
    LoadedModel,
    Objective,
    PromptSet,
    PruneMask,
    beam,
    evolve,
    greedy,
    sweep,
)
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError
from vlm_analysis.selection.search.objective import SCORES
from vlm_analysis.selection.search.search import most_tried

NAMES = ("math", "math", "general", "general", "general", "maps")
SEARCHES: dict[str, Callable[..., Edit]] = {"greedy": greedy, "beam": beam, "evolutionary": evolve}
Layers = tuple[int, ...]
Damage = Callable[[Layers], float]


def drawn_evaluation(seed: int, dropped: Layers = (1,), **changes: Any) -> Evaluation:
    rng = np.random.default_rng(seed)
    exact, agreement = rng.random(6) < 0.6, rng.random(6)
    return evaluation(
        dropped, rng.random(6), rng.random(6), NAMES, **{"exact": exact, "agreement": agreement, **changes}
    )


def drawn_damage(seed: int) -> Damage:
    """Return a damage in which layers add up and each pair adds its own."""
    alone, pairs = np.random.default_rng(seed).random(16), np.random.default_rng(seed + 1).normal(0, 0.5, (16, 16))

    def damage(dropped: Layers) -> float:
        return float(sum(alone[one] for one in dropped) + sum(pairs[two] for two in itertools.combinations(dropped, 2)))

    return damage


class Lab:
    """Measures masks by a damage function on one prompt, and keeps what it was asked."""

    def __init__(self, damage: Damage, n_layers: int = 8) -> None:
        self.damage, self.n_layers, self.calls = damage, n_layers, list[list[Layers]]()

    def __call__(self, masks: Sequence[Edit]) -> list[Evaluation]:
        self.calls.append([mask.dropped for mask in masks])
        return [
            evaluation(one.dropped, [self.damage(one.dropped)], [1], ["math"], n_layers=one.n_layers) for one in masks
        ]

    @property
    def tried(self) -> list[Layers]:
        return [dropped for call in self.calls for dropped in call if dropped]

    def best(self, free: Sequence[int], budget: int) -> Layers:
        """Return the best of all masks there are."""
        return min(itertools.combinations(free, budget), key=lambda dropped: (self.damage(dropped), dropped))


class TestObjective:
    @given(st.integers(0, 100), st.sampled_from(SCORES), st.sampled_from(["math", "general", None, "worst"]))
    def test_harm_is_the_definition_in_plain_numbers(self, seed: int, score: str, whose: str | None) -> None:
        pruned, dense = drawn_evaluation(seed), drawn_evaluation(seed + 1000, ())
        one, other = (np.array(frame.by_prompt[score], float) for frame in (pruned, dense))
        domains = np.array(NAMES)
        counts = {name: score in SCORES[:2] or other[domains == name].sum() > 0 for name in dict.fromkeys(NAMES)}

        def harm(names: Sequence[str]) -> float | None:
            rows = np.isin(domains, [name for name in names if counts[name]])
            if not rows.any():
                return None
            mean, base = one[rows].sum() / rows.sum(), other[rows].sum() / rows.sum()
            return {"kl_to_dense": mean, "answer_nll": mean - base}.get(score, 1 - mean / base if base else math.nan)

        if whose == "worst":
            found, asked = [harm([name]) for name in counts], Objective(score, worst=True)
            expected = max((value for value in found if value is not None), default=None)
        else:
            expected, asked = harm(list(counts) if whose is None else [whose]), Objective(score, whose)
        assert asked.harm(pruned, dense) == (None if expected is None else pytest.approx(expected, abs=1e-12))

    def test_domains_that_the_dense_model_fails_do_not_count(self) -> None:
        dense = drawn_evaluation(0, (), exact=[True, True, False, False, False, True])
        pruned = drawn_evaluation(1, exact=[True, False, True, True, True, True])
        assert Objective("exact_match").harm(pruned, dense) == pytest.approx(1 / 3)
        assert Objective("exact_match", worst=True).harm(pruned, dense) == 0.5
        assert Objective("exact_match", "general").harm(pruned, dense) is None

    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_what_is_not_finite_has_no_harm_where_it_counts(self, wrong: float) -> None:
        pruned = evaluation((1,), [0, 0, 0, 0, 0, wrong], [1] * 6, NAMES)
        dense = evaluation((), [0] * 6, [1] * 6, NAMES)
        assert Objective().harm(pruned, dense) is Objective(worst=True).harm(pruned, dense) is None
        assert Objective(target="math").harm(pruned, dense) == 0
        assert Objective("exact_match").rank(pruned, dense) == (0, math.inf, (1,))

    def test_equal_harms_go_by_kl_and_then_by_the_layers(self) -> None:
        def measure(masks: list[Edit]) -> list[Evaluation]:
            return [evaluation(one.dropped, [0.1 if 4 in one.dropped else 0.5], [1], ["math"]) for one in masks]

        assert greedy(measure, 2, n_layers=9, objective=Objective("exact_match")).provenance["drop_order"] == [4, 1]
        assert beam(measure, 2, n_layers=9, objective=Objective("exact_match")).dropped == (1, 4)

    def test_what_cannot_be_asked_is_refused(self) -> None:
        pruned, dense = drawn_evaluation(0), drawn_evaluation(1, ())
        with pytest.raises(MaskError, match=r"expected one of \['kl_to_dense', 'answer_nll', .*got 'bleu'"):
            Objective("bleu")
        with pytest.raises(MaskError, match="expected no target beside it, got 'math'"):
            Objective(target="math", worst=True)
        with pytest.raises(MaskError, match="not measured on domain 'art'"):
            Objective(target="art").harm(pruned, dense)
        with pytest.raises(MaskError, match="on the same prompts, got others"):
            Objective().harm(pruned, drawn_evaluation(1, (), prompts="o" * 64))


class TestBeam:
    @given(st.integers(0, 1000), st.integers(0, 5))
    def test_a_width_of_one_is_greedy(self, seed: int, budget: int) -> None:
        one, other = Lab(drawn_damage(seed)), Lab(drawn_damage(seed))
        assert beam(one, budget, n_layers=8, width=1) == greedy(other, budget, n_layers=8)
        assert [sorted(call) for call in one.calls] == [sorted(call) for call in other.calls]

    @given(st.integers(0, 1000), st.integers(1, 4))
    def test_a_beam_that_keeps_all_finds_the_best_there_is(self, seed: int, budget: int) -> None:
        lab = Lab(drawn_damage(seed))
        assert beam(lab, budget, n_layers=8, width=20).dropped == lab.best(range(1, 7), budget)
        assert len(lab.tried) == sum(math.comb(6, step) for step in range(1, budget + 1))

    def test_it_finds_the_pair_that_greedy_walks_past(self) -> None:
        harms = {(1,): 1.0, (2,): 1.1, (3,): 1.2, (2, 3): 0.1}
        damage = {**harms, (1, 2): 3.0, (1, 3): 3.0, (): 0.0}.__getitem__
        assert greedy(Lab(damage), 2, n_layers=5).dropped == (1, 2)
        mask = beam(Lab(damage), 2, n_layers=5, width=2)
        assert mask.dropped == (2, 3)
        assert mask.provenance["steps"] == [
            {"layers": [1], "harm": 1.0, "tried": 3},
            {"layers": [2, 3], "harm": 0.1, "tried": 3},
        ]

    def test_a_width_below_one_is_refused(self) -> None:
        for width in (0, -1, 1.5, True):
            with pytest.raises(MaskError, match="expected a width of at least 1"):
                beam(Lab(drawn_damage(0)), 2, n_layers=8, width=width)  # type: ignore[arg-type]


class TestEvolve:
    @given(st.integers(0, 1000), st.integers(1, 5), st.sets(st.integers(1, 10), min_size=5, max_size=5))
    def test_it_is_never_worse_than_the_best_it_starts_from(self, seed: int, generations: int, start: set[int]) -> None:
        lab = Lab(drawn_damage(seed))
        masks = [PruneMask(12, sorted(start)), PruneMask(12, (1, 2, 3, 4, 5)), PruneMask(12, sorted(start))]
        how: dict[str, Any] = {"n_layers": 12, "population": 4, "generations": generations, "seed": seed}
        mask = evolve(lab, 5, start=masks, **how)
        assert lab.damage(mask.dropped) == min(map(lab.damage, lab.tried))
        assert {one.dropped for one in masks} <= {*lab.tried}
        assert (
            len(set(lab.tried))
            == len(lab.tried)
            <= most_tried("evolutionary", 10, 5, population=4, generations=generations)
        )
        assert all(len(dropped) == 5 and set(dropped) <= set(range(1, 11)) for dropped in lab.tried)
        again = Lab(drawn_damage(seed))
        assert evolve(again, 5, start=masks, **how).provenance == mask.provenance
        assert again.calls == lab.calls

    @pytest.mark.parametrize("seed", range(5))
    def test_it_finds_the_best_there_is_among_eight_layers(self, seed: int) -> None:
        lab = Lab(drawn_damage(seed))
        assert evolve(lab, 3, n_layers=8, population=6, generations=6, seed=seed).dropped == lab.best(range(1, 7), 3)
        assert len(lab.tried) <= 20

    def test_generations_of_few_beat_as_many_random_masks(self) -> None:
        """Of 5 problems with 1820 masks each, 90 tried: the mean place among all masks."""
        found, drawn = [], []
        for seed in range(5):
            lab = Lab(drawn_damage(seed))
            order = sorted(map(lab.damage, itertools.combinations(range(16), 4)))
            best = evolve(lab, 4, n_layers=16, protected=(), population=10, generations=8, seed=seed)
            found.append(order.index(lab.damage(best.dropped)))
            rng = np.random.default_rng(seed)
            drawn.append(rng.choice(len(order), len(lab.tried), replace=False).min())
        assert np.mean(found) < np.mean(drawn) / 3

    def test_it_stops_when_all_masks_are_tried(self) -> None:
        lab = Lab(drawn_damage(3))
        mask = evolve(lab, 2, n_layers=5, generations=20)
        assert sorted(lab.tried) == [(1, 2), (1, 3), (2, 3)]
        assert [step["tried"] for step in mask.provenance["steps"]] == [3]
        assert evolve(lab, 3, n_layers=5).dropped == (1, 2, 3)

    def test_a_start_or_a_setting_that_does_not_fit_is_refused(self) -> None:
        lab = Lab(drawn_damage(0))
        for start in (PruneMask(8, (1,)), PruneMask(8, (0, 1)), PruneMask(9, (1, 2))):
            with pytest.raises(MaskError, match="cannot start from a mask of layers"):
                evolve(lab, 2, n_layers=8, start=[start])
        for wrong in ({"population": 0}, {"generations": -1}, {"seed": -1}, {"population": 2.5}):
            with pytest.raises(MaskError, match=f"expected {next(iter(wrong))} to be a whole number"):
                evolve(lab, 2, n_layers=8, **wrong)  # type: ignore[arg-type]
        assert lab.calls == []


@pytest.mark.parametrize("strategy", SEARCHES)
class TestAllSearches:
    @given(st.integers(0, 1000), st.integers(0, 6), st.sets(st.integers(0, 7), max_size=2))
    def test_budget_and_what_stays_are_kept_and_the_most_is_never_passed(
        self, strategy: str, seed: int, budget: int, locked: set[int]
    ) -> None:
        lab, free = Lab(drawn_damage(seed)), sorted(set(range(1, 7)) - locked)
        if budget > len(free):
            with pytest.raises(MaskError, match=f"Cannot drop {budget} layers: {len(free)} of 8"):
                SEARCHES[strategy](lab, budget, n_layers=8, locked=locked)
            return
        mask = SEARCHES[strategy](lab, budget, n_layers=8, locked=locked)
        assert mask.budget == budget
        assert set(mask.dropped) <= set(free)
        assert len(set(lab.tried)) == len(lab.tried) <= most_tried(strategy, len(free), budget)

    def test_the_mask_tells_how_it_was_found(self, strategy: str) -> None:
        lab, asked = Lab(drawn_damage(1)), Objective("answer_nll", "math")
        mask = SEARCHES[strategy](lab, 0.3, n_layers=8, objective=asked)
        found = edit_from_json(edit_to_json(mask)).provenance
        assert found == mask.provenance
        assert (found["strategy"], found["budget"]) == (strategy, 0.3)
        assert found["objective"] == {"score": "answer_nll", "target": "math", "worst": False}
        assert sum(step["tried"] for step in found["steps"]) == len(lab.tried)
        assert ("seed" in found) == (strategy == "evolutionary")

    def test_masks_that_cannot_be_told_are_skipped(self, strategy: str) -> None:
        lab = Lab(lambda dropped: math.nan if 2 in dropped else float(sum(dropped)))

        def measure(masks: list[Edit]) -> list[Evaluation | None]:
            return [None if 1 in one.mask.dropped else one for one in lab(masks)]

        assert SEARCHES[strategy](measure, 2, n_layers=8).dropped == (3, 4)
        with pytest.raises(MaskError, match=r"expected a finite kl_to_dense.* got none. Measure on other prompts"):
            SEARCHES[strategy](measure, 5, n_layers=8)

    def test_a_dense_model_that_answers_nothing_is_said_before_masks_are_measured(self, strategy: str) -> None:
        calls = []

        def measure(masks: list[Edit]) -> list[Evaluation]:
            calls.extend(masks)
            return [evaluation(one.dropped, [0], [1], ["math"], exact=False) for one in masks]

        with pytest.raises(MaskError, match="expected a finite exact_match of the dense model, above 0"):
            SEARCHES[strategy](measure, 2, n_layers=9, objective=Objective("exact_match"))
        assert calls == [PruneMask(9)]

    @pytest.mark.parametrize("where", ["measuring", "reporting"])
    def test_cancelling_stops_it_at_once(self, strategy: str, where: str) -> None:
        lab, said = Lab(drawn_damage(0)), list[str]()

        def measure(masks: list[Edit]) -> list[Evaluation]:
            if where == "measuring" and len(lab.calls) == 2:
                raise Cancelled
            return lab(masks)

        def report(done: int, total: int, message: str) -> None:
            said.append(message)
            if where == "reporting" and done == 1:
                raise Cancelled

        with pytest.raises(Cancelled):
            SEARCHES[strategy](measure, 3, n_layers=8, on_progress=report)
        assert len(lab.calls) == 2  # the dense model, and the first step
        assert "best so far" not in said[0]
        assert "2 of" in said[1]
        assert f"best so far {min(map(lab.damage, lab.tried)):.4g}" in said[1]


@pytest.mark.parametrize("some", [slice(2, 3), pytest.param(slice(2, 4), marks=pytest.mark.slow)])
def test_on_the_bundled_model_both_find_what_brute_force_finds(
    loaded: LoadedModel, few: PromptSet, some: slice
) -> None:
    free = [layer for layer in range(16) if layer not in loaded.protected_layers]
    masks = [PruneMask(16, dropped) for number in range(3) for dropped in itertools.combinations(free, number)]
    known = dict(zip(masks, sweep(loaded, few[some], masks), strict=True))
    harms = {mask.dropped: np.mean(one.by_prompt["kl_to_dense"]) for mask, one in known.items() if mask.budget == 2}
    tried: list[Edit] = []

    def measure(asked: list[Edit]) -> list[Evaluation]:
        tried.extend(asked)
        return [known[mask] for mask in asked]

    best = min(harms, key=harms.__getitem__)
    how: dict[str, Any] = {"n_layers": 16, "protected": loaded.protected_layers}
    assert beam(measure, 2, **how).dropped == best
    tried.clear()
    assert evolve(measure, 2, **how, population=8, generations=6).dropped == best
    assert len(tried) < len(harms)
