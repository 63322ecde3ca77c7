"""What became of each answer: outcomes, worst first, what both models are known to say, and the search over all prompts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from vlm_analysis import Evaluation, PruneMask
from vlm_analysis.evaluation.answers import answer_changes, found, pooled
from vlm_analysis.evaluation.evaluation import with_extras
from vlm_analysis.model_info import ModelInfo

MODEL = ModelInfo("toy", "f" * 64, 4)


def evaluation(exact: Sequence[bool], nll: Sequence[float], agreement: Sequence[float], **extras: list) -> Evaluation:
    n, dropped = len(exact), [1] if min(agreement) < 1 else []
    frame = pd.DataFrame(
        {
            "id": [f"p{row}" for row in range(n)],
            "domain": ["math", "general"] * (n // 2) + ["math"] * (n % 2),
            "exact_match": exact,
            "answer_nll": nll,
            "token_agreement": agreement,
            "kl_to_dense": [1 - one for one in agreement],
            "answer": [f"answer {row}" for row in range(n)],
            "answer_source": "given",
            "answer_ids": [[1, 2]] * n,
        }
    )
    return Evaluation(PruneMask(4, dropped), MODEL, "p" * 64, with_extras(frame, extras))


DENSE = evaluation([True, True, False, False, True], [0.1] * 5, [1.0] * 5)
EDITED = evaluation([False, True, True, False, False], [0.5, 0.2, 0.1, 0.4, 2.0], [0.5, 1, 0.5, 0.5, 0.25])


def test_answers_are_lost_gained_right_or_wrong_and_the_most_harmed_comes_first() -> None:
    changes = answer_changes(EDITED, DENSE)
    assert dict(zip(changes["id"], changes["outcome"], strict=True)) == {
        "p4": "lost",
        "p0": "lost",
        "p3": "wrong",
        "p1": "right",
        "p2": "gained",
    }
    assert list(changes["id"]) == ["p4", "p0", "p3", "p1", "p2"]
    assert changes["extra_nll"].tolist() == pytest.approx([1.9, 0.4, 0.3, 0.1, 0.0])


def test_a_model_says_what_it_matches_exactly_and_else_what_was_written() -> None:
    written = ["seven", None, None, "nine", None]
    several = [None, ["answer 1", "another"], None, None, None]
    rows = answer_changes(
        evaluation([False, True, True, False, False], [0.5] * 5, [0.5] * 5, response=written, answers=several), DENSE
    ).set_index("id")
    assert rows["edited_says"].to_dict() == {"p0": "seven", "p1": None, "p2": "answer 2", "p3": "nine", "p4": None}
    assert rows["dense_says"].to_dict() == {
        "p0": "answer 0",
        "p1": "answer 1",
        "p2": None,
        "p3": None,
        "p4": "answer 4",
    }


def test_where_exact_match_tells_nothing_answers_differ_or_are_the_same() -> None:
    free = [evaluation([False] * 3, [1.0] * 3, [1.0] * 3), evaluation([False] * 3, [1.0] * 3, [0.75, 1, 0.25])]
    changes = answer_changes(free[1], free[0])
    assert changes[["id", "outcome"]].to_numpy().tolist() == [["p2", "differs"], ["p0", "differs"], ["p1", "same"]]


def test_a_search_looks_into_every_text_and_filters_add_up() -> None:
    changes = answer_changes(EDITED, DENSE)
    questions = {"p0": "How MANY red circles?", "p4": "how many blue ones?"}
    assert list(found(changes, questions, search="many")["id"]) == ["p4", "p0"]
    assert list(found(changes, questions, search="red many")["id"]) == ["p0"]
    assert list(found(changes, questions, search="ANSWER 3")["id"]) == ["p3"]
    assert list(found(changes, questions, outcome="lost", domain="math")["id"]) == ["p4", "p0"]
    assert found(changes, questions, outcome="gained", search="circles").empty
    assert len(found(changes, {})) == 5


def test_pooled_scores_are_those_of_all_prompts() -> None:
    table = pooled(DENSE, "all").by_domain
    assert (list(table.index), table.loc["all", "exact_match"], table.loc["all", "n"]) == (["all"], 0.6, 5)
