"""Multiple choice by likelihood: each choice is scored as an answer of its own, and the most likely one is the model's.

Two readings, as benchmarks report both: the likelihood of the whole choice (short ones are favoured), and its mean per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NOT_ASKED: dict[str, Any] = {"choice": None, "choice_match": np.nan, "choice_match_norm": np.nan}


def choice_scores(choices: Sequence[str], nlls: Sequence[float], lengths: Sequence[int], answer: str) -> dict[str, Any]:
    """Return the choice made, and whether it is the answer, by summed and by mean log-likelihood.

    Args:
        choices: the texts to choose from; of equally likely ones the first is taken.
        nlls: mean negative log-likelihood of each, in nats a token, its end token included. With NaN among them nothing is chosen.
        lengths: tokens of each, its end token included.
        answer: the text that is right.
    """
    means = np.asarray(nlls, dtype=np.float64)
    summed, mean = (_least(values) for values in (means * np.asarray(lengths), means))
    return {
        "choice": None if summed is None else choices[summed],
        "choice_match": float(summed is not None and choices[summed] == answer),
        "choice_match_norm": float(mean is not None and choices[mean] == answer),
    }


def _least(values: np.ndarray) -> int | None:
    return None if np.isnan(values).any() or np.isinf(values).all() else int(values.argmin())
