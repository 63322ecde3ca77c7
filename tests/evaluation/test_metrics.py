"""The metrics of many answers at once, against a plain float64 computation of each."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlm_analysis.evaluation.run import metrics
from vlm_analysis.evaluation.run.metrics import AnswerScorer

VOCABULARY, ENDS, LENGTHS = 7, (0, 1), (1, 4, 2, 9, 3)


def log_probs(rng: np.random.Generator, n_tokens: int) -> np.ndarray:
    logits = rng.normal(size=(n_tokens, VOCABULARY)) * 3
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def by_hand(scored: np.ndarray, dense: np.ndarray | None, ids: list[int]) -> dict[str, float]:
    """Return the metrics of one answer, token by token."""
    edited = [[float(number) for number in row] for row in scored]
    nll = -sum(row[token] for row, token in zip(edited, ids, strict=True)) / len(ids)
    if dense is None:
        return {"answer_nll": nll}
    base = [[float(number) for number in row] for row in dense]
    kl = [sum(math.exp(d) * (d - e) for d, e in zip(*pair, strict=True)) for pair in zip(base, edited, strict=True)]
    said, expected = ([row.index(max(row)) for row in rows] for rows in (edited, base))
    right = said == ids or (said[:-1] == ids[:-1] and said[-1] in ENDS and ids[-1] in ENDS)
    same = [one == other for one, other in zip(said, expected, strict=True)]
    return {
        "exact_match": right,
        "answer_nll": nll,
        "token_agreement": sum(same) / len(ids),
        "kl_to_dense": sum(kl) / len(ids),
    }


@pytest.mark.parametrize("most", [1, 50, 1 << 20])
def test_answers_scored_together_have_the_metrics_of_each_alone(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(metrics, "MOST_AT_ONCE", most)
    rng = np.random.default_rng(5)
    dense = [None if n == 2 else log_probs(rng, n) for n in LENGTHS]
    ids = [[*rng.integers(2, VOCABULARY, size=n - 1).tolist(), 0] for n in LENGTHS]
    scorer = AnswerScorer(dense, ids, ENDS)
    for _ in range(3):
        scored = [log_probs(rng, n) for n in LENGTHS]
        scored[0][0, 1] = 1.0  # ends, with another end token
        scored[1][np.arange(4), ids[1]] = 1.0
        wanted = [by_hand(*answer) for answer in zip(scored, dense, ids, strict=True)]
        found = scorer.scores(scored)
        assert [list(one) for one in found] == [list(one) for one in wanted]
        assert [list(one.values()) for one in found] == [pytest.approx(list(one.values()), abs=1e-12) for one in wanted]
        assert [one.get("exact_match") for one in found[:3]] == [True, True, None]


def test_the_dense_model_agrees_with_itself() -> None:
    rng = np.random.default_rng(6)
    dense, ids = [log_probs(rng, n) for n in LENGTHS], [[0] * n for n in LENGTHS]
    found = AnswerScorer(dense, ids, ENDS).scores(dense, is_dense=True)
    assert [(one["token_agreement"], one["kl_to_dense"]) for one in found] == [(1.0, 0.0)] * len(LENGTHS)


def test_numbers_that_are_none_leave_the_other_answers_comparable() -> None:
    rng = np.random.default_rng(7)
    dense, scored = ([log_probs(rng, n) for n in LENGTHS] for _ in range(2))
    scored[1][2], dense[3][0] = np.nan, np.nan
    found = AnswerScorer(dense, [[0] * n for n in LENGTHS]).scores(scored)
    assert np.isnan([one["kl_to_dense"] for one in found]).tolist() == [False, True, False, True, False]
    assert np.isnan([one["token_agreement"] for one in found]).tolist() == [False, True, False, True, False]
    assert not found[1]["exact_match"]
