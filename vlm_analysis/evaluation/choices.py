"""Multiple choice by likelihood: each choice is scored as an answer, and the most likely one is the model's choice.

Both common readings are computed: the likelihood of the whole choice, which favours short ones, and its mean per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NO_CHOICE: dict[str, Any] = {"choice": None, "choice_match": np.nan, "choice_match_norm": np.nan}


def choice_scores(choices: Sequence[str], nlls: Sequence[float], lengths: Sequence[int], answer: str) -> dict[str, Any]:
    """Return the most likely choice, and whether it is the answer, by summed and by mean log-likelihood.

    Args:
        choices: the texts to choose from; the first of equally likely ones is taken.
        nlls: mean negative log-likelihood of each, in nats per token, with its end token. With a NaN among them there is no choice.
        lengths: number of tokens of each, with its end token.
        answer: the correct text.
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
