"""The metrics of one answer, from the log-probabilities at its positions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np


def answer_scores(
    scored: np.ndarray, dense: np.ndarray | None, answer_ids: Sequence[int], ends: Collection[int] = ()
) -> dict[str, Any]:
    """Return the four metrics of one answer, or only `answer_nll` without the dense model's log-probabilities.

    Args:
        scored, dense: (answer_tokens, vocabulary) float32 log-probabilities of the edited and of the dense model.
        answer_ids: the answer's tokens with its end token.
        ends: end tokens of the model; any of them matches the end of the answer.
    """
    ids = np.asarray(answer_ids)
    wide = scored.astype(np.float64)
    nll = float(-wide[np.arange(len(ids)), ids].mean())
    if dense is None:
        return {"answer_nll": nll}
    choice, dense_choice = scored.argmax(axis=1), dense.argmax(axis=1)
    same, dense_wide = scored is dense, dense.astype(np.float64)
    broken = bool(np.isnan(wide).any())  # an argmax over NaN is not a choice
    incomparable = broken or bool(np.isnan(dense_wide).any())
    kl = 0.0 if same else float(kl_of_tokens(dense_wide, wide).mean())
    return {
        "exact_match": not broken and bool((choice[:-1] == ids[:-1]).all() and _same_end(choice[-1], ids[-1], ends)),
        "answer_nll": nll,
        "token_agreement": np.nan if incomparable else float((choice == dense_choice).mean()),
        "kl_to_dense": np.nan if incomparable else max(kl, 0.0),
    }


def kl_of_tokens(dense: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """Return the (n_tokens,) KL(dense ‖ edited) in nats of (n_tokens, vocabulary) float64 log-probabilities."""
    share = np.exp(dense)
    with np.errstate(invalid="ignore"):  # a token the dense model rules out (−inf) adds nothing
        kl: np.ndarray = np.where(share == 0, 0.0, share * (dense - edited)).sum(axis=1)
    return kl


def _same_end(choice: int, expected: int, ends: Collection[int]) -> bool:
    return choice == expected or (expected in ends and choice in ends)
