"""Agreement of rankings: Kendall's tau-b against hand-worked cases and a plain count of all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from rankings import DOMAINS, full_recording, left_out

from vlm_analysis import CRITERIA, LayerScores, score_layers
from vlm_analysis.selection.certainty.agreement import (
    agreement,
    criteria_items,
    domain_items,
    group_items,
    kendall_tau,
)

numbers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


def tau_by_pairs(one: list[int], other: list[int]) -> float:
    concordant = discordant = tied_one = tied_other = 0
    for i in range(len(one)):
        for j in range(i):
            product = (one[i] - one[j]) * (other[i] - other[j])
            concordant += product > 0
            discordant += product < 0
            tied_one += one[i] == one[j]
            tied_other += other[i] == other[j]
    pairs = len(one) * (len(one) - 1) // 2
    if pairs in (tied_one, tied_other):
        return math.nan
    return (concordant - discordant) / math.sqrt((pairs - tied_one) * (pairs - tied_other))


class TestTau:
    @pytest.mark.parametrize(
        ("one", "other", "tau"),
        [
            ([1, 2, 3], [10, 20, 30], 1),
            ([1, 2, 3], [3, 2, 1], -1),
            ([1, 2, 3, 4], [1, 3, 2, 4], 4 / 6),  # five pairs alike, one not
            ([1, 1, 2], [1, 2, 3], 2 / math.sqrt(2 * 3)),
            ([1, 1, 2, 2], [1, 2, 1, 2], 0),
            ([1, 2, 2, 3], [1, 2, 3, 3], 4 / 5),  # four alike, one tie in each, (6 − 1)(6 − 1) under the root
        ],
    )
    def test_worked_cases(self, one: list[int], other: list[int], tau: float) -> None:
        assert kendall_tau(np.array(one), np.array(other)) == pytest.approx(tau, abs=1e-15)

    @given(numbers)
    def test_it_is_the_count_of_all_pairs(self, pairs: list[tuple[int, int]]) -> None:
        one, other = map(list, zip(*pairs, strict=True))
        assert kendall_tau(np.array(one), np.array(other)) == pytest.approx(tau_by_pairs(one, other), nan_ok=True)

    @given(numbers)
    def test_it_is_symmetric_turns_with_one_side_and_ignores_any_rising_change(
        self, pairs: list[tuple[int, int]]
    ) -> None:
        one, other = (np.array(side, float) for side in zip(*pairs, strict=True))
        tau = kendall_tau(one, other)
        assert kendall_tau(other, one) == pytest.approx(tau, nan_ok=True)
        assert kendall_tau(-one, other) == pytest.approx(-tau, nan_ok=True)
        assert kendall_tau(np.exp(one), other) == pytest.approx(tau, nan_ok=True)

    def test_places_without_a_number_are_left_out(self) -> None:
        assert kendall_tau(np.array([1, np.nan, 2, 3]), np.array([1, 9, np.nan, 2])) == 1
        assert math.isnan(kendall_tau(np.array([1, np.nan]), np.array([1, 2])))
        assert math.isnan(kendall_tau(np.array([1, 1]), np.array([1, 2])))


class TestMatrix:
    def test_it_is_symmetric_with_ones_and_compares_wishes_not_values(self) -> None:
        recording = full_recording()
        items = {
            "influence": {"criterion": "block-influence"},
            "aware": {"criterion": "target-aware", "target": "math"},
            "turned": LayerScores("made", score_layers(recording, "block-influence").values, np.zeros(9), "highest"),
        }
        frame = agreement(recording, items)
        assert list(frame.index) == list(frame.columns) == list(items)
        np.testing.assert_array_equal(frame.to_numpy(), frame.to_numpy().T)
        np.testing.assert_array_equal(np.diag(frame), 1)
        assert frame.loc["influence", "turned"] == -1
        places = [score_layers(recording, **items[name]).order.index for name in ("influence", "aware")]  # type: ignore[arg-type]
        one, other = ([place(layer) for layer in range(9)] for place in places)
        assert frame.loc["influence", "aware"] == pytest.approx(tau_by_pairs(one, other))

    def test_only_the_asked_layers_count(self) -> None:
        recording = full_recording()
        values = np.array([9, 1, 2, 3, 4, 5, 6, 7, 0.0])
        other = np.array([0, 1, 2, 3, 4, 5, 6, 7, 9.0])
        items = {"a": LayerScores("a", values, values, "lowest"), "b": LayerScores("b", other, other, "lowest")}
        assert agreement(recording, items).loc["a", "b"] < 1
        assert agreement(recording, items, layers=range(1, 8)).loc["a", "b"] == 1

    def test_criteria_domains_and_token_groups_are_ready_to_compare(self) -> None:
        recording = full_recording()
        every = agreement(recording, criteria_items(recording, damage=left_out()))
        assert list(every.index) == [row.title for row in CRITERIA.values()]
        assert list(agreement(recording, criteria_items(recording)).index) == [
            row.title for row in CRITERIA.values() if row.needs != "damage"
        ]
        assert list(agreement(recording, domain_items(recording)).index) == list(DOMAINS)
        assert list(agreement(recording, group_items(recording)).index) == ["vision", "text", "answer", "last", "all"]
        recording.rows["token_counts"][:, 2] = 0
        assert "answer" not in group_items(recording)
