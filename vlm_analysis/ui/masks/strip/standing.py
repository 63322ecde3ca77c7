"""How much of its answers the model keeps with a mask, as JSON values: known, being measured, or what is missing to measure it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vlm_analysis.evaluation.evaluation import Evaluation, on_both, retention, retention_interval
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.evaluation.telling import telling_line, telling_score_of, title_of
from vlm_analysis.words import counted, in_groups

FLATTERED = "A mask that was chosen on these prompts is flattered by them."


def kept_of(evaluation: Evaluation, dense: Evaluation, name: str) -> dict[str, Any]:
    """Return the retention of each domain with its 90 % interval, by the score that tells something.

    Args:
        evaluation: of the mask.
        dense: of the dense model, on the same prompts.
        name: of the prompts.
    """
    evaluation, dense = on_both(evaluation, dense)
    metric = telling_score_of(dense, evaluation)
    shares, counts = retention(evaluation, dense, metric), dense.by_domain["n"].to_dict()
    groups = evaluation.groups_by_domain
    rows = []
    for domain, share in shares.items():
        low, high = retention_interval(evaluation, dense, str(domain), metric=metric)
        n_groups = groups[str(domain)]
        rows.append(
            {
                "name": str(domain),
                "share": None if pd.isna(share) else float(share),
                "value": "not defined" if pd.isna(share) else f"{share:.0%}",
                "interval": _interval(low, high, n_groups),
                "more": f"{in_groups(counts[domain], n_groups)}; 90 % interval over groups of prompts",
            }
        )
    of = "" if metric == "exact_match" else f" of {title_of(metric)}"
    words = f"Retention{of} on {name}, with its 90 % interval:"
    return {"state": "known", "words": words, "rows": rows, "more": f"{telling_line(metric)} {FLATTERED}".strip()}


def _interval(low: float, high: float, n_groups: int) -> str:
    if not pd.isna(low):
        return f"{low:.0%} to {high:.0%}"
    return "no interval" if n_groups >= LEAST_GROUPS else f"no interval: {counted(n_groups, 'group')}"
