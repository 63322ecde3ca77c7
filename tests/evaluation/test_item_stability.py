"""Stability counts the prompts on which right stays right and wrong stays wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from compared import dense_of

from vlm_analysis import PruneMask, stability
from vlm_analysis.errors import EvaluationError

DOMAINS = ["math"] * 4 + ["general"] * 2
BEFORE, AFTER = np.array([1, 1, 0, 0, 1, 1]), np.array([1, 0, 1, 0, 1, 1])


def test_it_is_the_share_of_prompts_on_which_both_are_right_or_both_wrong():
    edited = replace(dense_of(AFTER, DOMAINS), edit=PruneMask(8, (3,)))
    rows = [("math", 4, 0.5, 1, 1), ("general", 2, 1.0, 0, 0), ("all domains", 6, 4 / 6, 1, 1)]
    expected = pd.DataFrame(rows, columns=["domain", "n", "stability", "broke", "came_right"])
    pd.testing.assert_frame_equal(stability(dense_of(BEFORE, DOMAINS), edited), expected)


def test_only_prompts_that_both_have_count_and_one_domain_has_one_row():
    edited = dense_of(AFTER, DOMAINS)
    part = replace(edited, by_prompt=edited.by_prompt.iloc[1:4])
    (row,) = stability(dense_of(BEFORE, DOMAINS), part).to_dict(orient="records")
    assert row == {"domain": "math", "n": 3, "stability": pytest.approx(1 / 3), "broke": 1, "came_right": 1}


def test_other_prompts_are_refused():
    with pytest.raises(EvaluationError, match="different prompt sets"):
        stability(dense_of(BEFORE, DOMAINS), replace(dense_of(AFTER, DOMAINS), prompts="q" * 64))
