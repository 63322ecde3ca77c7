"""How much time masks leave: measured alike, by the masks of the comparison, and nothing where they were not timed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compared import MODEL, made

from vlm_analysis import Cost, PruneMask
from vlm_analysis.selection.compared.findings import front_places, front_words, mask_table
from vlm_analysis.selection.compared.timed import time_left

ONE_TO_THREE = {("a", "first-k", budget): np.ones(4) for budget in (1, 2, 3)}


def timed(edit: PruneMask, dense_ms: float, ms: float, **more: object) -> Cost:
    shares = [[0.1] * 8] * 2
    times, speeds = [[dense_ms] * 2, [ms] * 2], [[1.0] * 2, [2.0] * 2]
    return replace(Cost(edit, MODEL, "cpu", 2, 3, 9, 8, (4, 3), (4, 3), times, speeds, shares), **more)


def test_the_time_left_is_pruned_over_dense_and_unknown_where_none_was_measured() -> None:
    comparison = made(ONE_TO_THREE, ["math"] * 4)
    first, _, third = comparison.masks
    costs = [timed(first, 10, 8), timed(first, 10, 5), timed(third, 20, 10), timed(PruneMask(8, (6,)), 10, 1)]
    assert time_left(comparison, costs, "prefill") == pytest.approx([0.8, np.nan, 0.5], nan_ok=True)
    assert time_left(comparison, costs, "decode") == pytest.approx([0.5, np.nan, 0.5], nan_ok=True)
    assert np.isnan(time_left(comparison, [], "prefill")).all()
    other = replace(MODEL, fingerprint="o" * 64)
    assert np.isnan(time_left(comparison, [timed(first, 10, 8, model=other)], "prefill")).all()


def test_times_that_were_not_measured_alike_are_not_mixed() -> None:
    comparison = made(ONE_TO_THREE, ["math"] * 4)
    first, second, third = comparison.masks
    costs = [timed(first, 10, 9, threads=8), timed(second, 10, 8), timed(third, 10, 7)]
    assert time_left(comparison, costs, "prefill") == pytest.approx([np.nan, 0.8, 0.7], nan_ok=True)


def test_the_front_says_what_is_saved_of_the_time_by_the_masks_that_were_timed() -> None:
    comparison = made(ONE_TO_THREE, ["math"] * 4)
    table = mask_table(comparison).assign(left=[0.9, 0.7, np.nan])
    words = front_words(table, "worst", "exact match on math", left="left", of="prefill time")
    assert words == "2 layers, 30% of the prefill time, can go while 100% of exact match on math is kept."


def test_what_is_timed_is_the_front_and_the_next_one_where_one_mask_beats_all() -> None:
    equal = made(ONE_TO_THREE, ["math"] * 4)
    assert front_places(equal, np.array([0.9, 0.7, 0.5]), 8) == [2, 1]
    worse = made({**ONE_TO_THREE, ("a", "first-k", 3): np.array([1, 1, 1, 0])}, ["math"] * 4)
    assert front_places(worse, np.array([0.9, 0.7, 0.5]), 8) == [2, 1]
    assert front_places(equal, np.array([0.9, 0.7, 0.5]), 1) == [2]
    assert front_places(equal, np.array([np.nan, np.nan, 0.5]), 8) == [2]
