"""How much time the masks of a comparison leave, as far as they were timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vlm_analysis.evaluation.cost import Cost, speedup
from vlm_analysis.selection.compared.comparison import Comparison


def time_left(comparison: Comparison, costs: Sequence[Cost], phase: str) -> np.ndarray:
    """Return the (n_masks,) measured time of each mask over that of the dense model, NaN where it was not timed.

    Times compare where they were measured alike (`Cost.way`): those measured the way of most masks count, of the first such way.

    Args:
        costs: of any models and edits, the first of an edit counts.
        phase: prefill or decode.
    """
    keys, model = {mask.key for mask in comparison.masks}, comparison.dense.model.fingerprint
    ways: dict[tuple[object, ...], dict[str, Cost]] = {}
    for cost in costs:
        if cost.edit.key in keys and cost.model.fingerprint == model:
            ways.setdefault(cost.way, {}).setdefault(cost.edit.key, cost)
    most = max(ways.values(), key=len, default={})
    return np.array(
        [1 / speedup(most[mask.key], phase)[0] if mask.key in most else np.nan for mask in comparison.masks]
    )
