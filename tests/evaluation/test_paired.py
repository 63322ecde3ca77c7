"""Two edits compared prompt by prompt: differences against an independent computing, and the answers that part them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Evaluation, PruneMask
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.paired import EVERY, paired_differences, parted
from vlm_analysis.model_info import ModelInfo

MODEL = ModelInfo("made", "a" * 64, 8)
T_95_9 = 1.8331129326536335  # of Student's t with 9 degrees of freedom, from tables
RIGHT = {  # by prompt: dense, one, other
    "general": ("1111111111", "1111111110", "1111100000"),
    "math": ("1111110000", "0011111000", "1111000000"),
}


def evaluation(
    right: Sequence[int], layers: Sequence[int] = (), nll: Sequence[float] | None = None, **more
) -> Evaluation:
    n = len(right)
    frame = pd.DataFrame(
        {
            "id": [f"p{row}" for row in range(n)],
            "domain": ["general"] * (n // 2) + ["math"] * (n - n // 2),
            "exact_match": np.array(right, bool),
            "answer_nll": nll if nll is not None else [0.1] * n,
            "token_agreement": [1.0] * n,
            "kl_to_dense": [0.0] * n,
            "answer": ["a"] * n,
            "answer_source": ["given"] * n,
            "answer_ids": [[1]] * n,
            **more,
        }
    )
    return Evaluation(PruneMask(8, layers), MODEL, "b" * 64, frame)


def three(**more) -> list[Evaluation]:
    told = [[int(sign) for name in RIGHT for sign in RIGHT[name][place]] for place in (1, 2, 0)]
    return [evaluation(right, layers, **more) for right, layers in zip(told, ([3], [4], []), strict=True)]


def test_the_difference_of_a_domain_is_that_of_the_right_answers_over_the_dense_ones() -> None:
    one, other, dense = three()
    table = paired_differences(one, other, dense).set_index("domain")
    assert list(table.index) == ["general", "math", EVERY]
    assert table.loc["general", ["n", "groups", "one", "other", "difference"]].tolist() == [10, 10, 0.9, 0.5, 0.4]
    assert table.loc["math", ["one", "other"]].tolist() == pytest.approx([5 / 6, 4 / 6])
    assert table.loc[EVERY, "difference"] == pytest.approx((9 + 5 - 5 - 4) / 16)


def test_the_interval_is_students_over_the_prompts_own_differences() -> None:
    one, other, dense = three()
    row = paired_differences(one, other, dense).set_index("domain").loc["general"]
    gaps = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 0])  # all ten are right in the dense model: a mean of differences
    reach = T_95_9 * gaps.std(ddof=1) / np.sqrt(10)
    assert [row["low"], row["high"]] == pytest.approx([0.4 - reach, 0.4 + reach])
    turned = paired_differences(other, one, dense).set_index("domain").loc["general"]
    assert [turned["low"], turned["high"]] == pytest.approx([-row["high"], -row["low"]])


def test_prompts_of_one_group_are_one_draw() -> None:
    groups = [f"g{row // 5}" for row in range(20)]
    table = paired_differences(*three(group=groups)).set_index("domain")
    assert table["groups"].tolist() == [2, 2, 4]
    assert table[["low", "high"]].isna().all(axis=None)


def test_edits_with_the_same_answers_differ_by_nothing_and_have_no_interval() -> None:
    one, _, dense = three()
    table = paired_differences(one, one, dense)
    assert table["difference"].tolist() == [0, 0, 0]
    assert table["low"].isna().all()
    assert parted(one, one, dense).empty


def test_answers_that_one_breaks_and_the_other_keeps_are_those_the_dense_model_has_right() -> None:
    one, other, dense = three()
    table = parted(one, other, dense)
    assert table[table["keeps"] == "one"]["id"].tolist() == ["p5", "p6", "p7", "p8", "p14", "p15"]
    assert table[table["keeps"] == "other"]["id"].tolist() == ["p10", "p11"]  # p16 is won by one, not kept


def test_where_no_answer_matches_the_score_that_tells_parts_them_widest_first() -> None:
    wrong = [0] * 4
    dense = evaluation(wrong)
    one = evaluation(wrong, [3], token_agreement=[1.0, 0.5, 1.0, 0.0])
    other = evaluation(wrong, [4], token_agreement=[1.0, 1.0, 0.75, 1.0])
    table = parted(one, other, dense)
    assert table[["id", "keeps", "gap"]].to_numpy().tolist() == [
        ["p3", "other", 1.0],
        ["p1", "other", 0.5],
        ["p2", "one", 0.25],
    ]
    assert paired_differences(one, other, dense).set_index("domain").loc["general", "difference"] == pytest.approx(
        -0.25
    )


def test_only_prompts_that_all_have_count_and_other_prompt_sets_are_refused() -> None:
    one, other, dense = three()
    short = Evaluation(other.edit, MODEL, other.prompts, other.by_prompt.iloc[2:].reset_index(drop=True))
    assert paired_differences(one, short, dense)["n"].tolist() == [8, 10, 18]
    elsewhere = Evaluation(other.edit, MODEL, "c" * 64, other.by_prompt)
    with pytest.raises(EvaluationError, match="different prompt sets"):
        paired_differences(one, elsewhere, dense)
