"""Comparisons made of given answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis import Comparison, Evaluation, PruneMask
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.selection.compared.comparison import ways_frame
from vlm_analysis.selection.strategies.many import Way

MODEL = ModelInfo("toy", "f" * 64, 8, layer_parameters=(10, 20, 30, 40, 40, 30, 20, 10), n_parameters=400)


def dense_of(right: np.ndarray, domains: list[str]) -> Evaluation:
    n = len(domains)
    frame = pd.DataFrame(
        {
            "id": [str(place) for place in range(n)],
            "domain": domains,
            "exact_match": right.astype(bool),
            "answer_nll": np.linspace(0.1, 0.5, n),
            "token_agreement": np.ones(n),
            "kl_to_dense": np.zeros(n),
            "answer": ["a"] * n,
            "answer_source": ["given"] * n,
            "answer_ids": [[1]] * n,
        }
    )
    return Evaluation(PruneMask(8), MODEL, "p" * 64, frame)


def made(
    scores: dict[tuple[str, str, int], np.ndarray], domains: list[str], dense: np.ndarray | None = None
) -> Comparison:
    """Return a comparison of one mask for each (criterion, strategy, budget), with the exact matches given."""
    n = len(domains)
    base = dense_of(np.ones(n) if dense is None else dense, domains)
    masks, ways, rows = [], [], []
    sets = [tuple(range(first, first + size)) for size in range(1, 8) for first in range(9 - size)]
    free = {size: [one for one in sets if len(one) == size] for size in range(1, 8)}
    for (criterion, strategy, budget), right in scores.items():
        mask = PruneMask(8, free[budget].pop(), name=f"{criterion} {budget}")
        masks.append(mask)
        suffix = "" if strategy == "first-k" else ", spaced"
        ways.append(Way(f"{criterion}{suffix}", criterion, strategy, None, budget, 0, mask))
        rows.append(right)
    values = np.array(rows, float)
    metrics = {
        "exact_match": values,
        "answer_nll": values + 0.3,
        "token_agreement": (values + 1) / 2,
        "kl_to_dense": 1 - values,
    }
    return Comparison(base, tuple(masks), metrics, ways_frame(ways, masks), "c" * 64, 0, {"three": "no reason"})
