"""The metrics of answers, from the log-probabilities at their positions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

MOST_AT_ONCE = 1 << 21  # log-probabilities scored together, some 100 MB with all that is made of them; our choice


def answer_scores(
    scored: np.ndarray, dense: np.ndarray | None, answer_ids: Sequence[int], ends: Collection[int] = ()
) -> dict[str, Any]:
    """Return the four metrics of one answer, or only `answer_nll` without the dense model's log-probabilities.

    Args:
        scored, dense: (answer_tokens, vocabulary) float32 log-probabilities of the edited and of the dense model.
        answer_ids: the answer's tokens with its end token.
        ends: end tokens of the model; any of them matches the end of the answer.
    """
    return AnswerScorer([dense], [answer_ids], ends).scores([scored], is_dense=scored is dense)[0]


class AnswerScorer:
    """Scores the answers of one batch, many at once, for one edited model after another (arguments as of `answer_scores`)."""

    def __init__(
        self, dense: Sequence[np.ndarray | None], answer_ids: Sequence[Sequence[int]], ends: Collection[int] = ()
    ) -> None:
        self._dense, self._ids, self._ends = dense, [np.asarray(ids) for ids in answer_ids], ends
        self._base: dict[int, _Rows] = {}  # the dense model's, by the first answer of a part

    def scores(self, scored: Sequence[np.ndarray], *, is_dense: bool = False) -> list[dict[str, Any]]:
        """Return the scores of each answer. Where the model is the dense one, its KL is 0."""
        found: dict[int, dict[str, Any]] = {}
        for part in self._parts(scored[0].shape[1]):
            rows = _Rows([scored[index] for index in part])
            base = None if self._dense[part[0]] is None else rows if is_dense else self._base_of(part)
            found |= zip(part, self._of_part(part, rows, base), strict=True)
        return [found[index] for index in range(len(scored))]

    def _parts(self, vocabulary: int) -> Iterator[list[int]]:
        """Yield the answers that are scored together: all with the dense model's log-probabilities, or all without."""
        for alone in (False, True):
            part, size = list[int](), 0
            for index, dense in enumerate(self._dense):
                if (dense is None) != alone:
                    continue
                added = len(self._ids[index]) * vocabulary
                if part and size + added > MOST_AT_ONCE:
                    yield part
                    part, size = [], 0
                part, size = [*part, index], size + added
            if part:
                yield part

    def _base_of(self, part: Sequence[int]) -> _Rows:
        base = self._base.get(part[0]) or _Rows([dense for index in part if (dense := self._dense[index]) is not None])
        if sum(rows.wide.size for rows in self._base.values()) + base.wide.size <= MOST_AT_ONCE:
            self._base[part[0]] = base
        return base

    def _of_part(self, part: Sequence[int], rows: _Rows, base: _Rows | None) -> Iterator[dict[str, Any]]:
        ids = np.concatenate([self._ids[index] for index in part])
        nll = rows.wide[np.arange(len(ids)), ids]
        ends = np.cumsum([0, *(len(self._ids[index]) for index in part)]).tolist()
        if base is None:
            yield from ({"answer_nll": -_mean(nll[first:end])} for first, end in pairwise(ends))
            return
        right, same = (rows.choice == ids).tolist(), rows.choice == base.choice
        lost, base_lost = rows.lost.tolist(), base.lost.tolist()
        kl = np.zeros(len(ids)) if base is rows else kl_of_tokens(base.wide, rows.wide, base.share)
        for first, end in pairwise(ends):
            broken = any(lost[first:end])  # an argmax over NaN is not a choice
            incomparable = broken or any(base_lost[first:end])
            last = right[end - 1] or (ids[end - 1] in self._ends and rows.choice[end - 1] in self._ends)
            yield {
                "exact_match": not broken and all(right[first : end - 1]) and bool(last),
                "answer_nll": -_mean(nll[first:end]),
                "token_agreement": np.nan if incomparable else _mean(same[first:end]),
                "kl_to_dense": np.nan if incomparable else max(_mean(kl[first:end]), 0.0),
            }


class _Rows:
    """Log-probabilities of several answers below each other: (n_tokens, vocabulary) in float64, with what is made of them."""

    def __init__(self, scored: Sequence[np.ndarray]) -> None:
        rows = scored[0] if len(scored) == 1 else np.concatenate(scored)
        self.wide, self.choice = rows.astype(np.float64), rows.argmax(axis=1)
        self.lost = np.asarray(np.isnan(self.wide).any(axis=1))

    @cached_property
    def share(self) -> np.ndarray:
        return np.exp(self.wide)


def _mean(values: np.ndarray) -> float:
    """Return what `values.mean()` does, which takes twice as long for a few numbers."""
    return float(np.add.reduce(values, dtype=np.float64) / len(values))


def kl_of_tokens(dense: np.ndarray, edited: np.ndarray, share: np.ndarray | None = None) -> np.ndarray:
    """Return the (n_tokens,) KL(dense ‖ edited) in nats of (n_tokens, vocabulary) float64 log-probabilities; `share` is exp(dense)."""
    share = np.exp(dense) if share is None else share
    with np.errstate(invalid="ignore"):  # a token the dense model rules out (−inf) adds nothing
        kl: np.ndarray = np.where(share == 0, 0.0, share * (dense - edited)).sum(axis=1)
    return kl
