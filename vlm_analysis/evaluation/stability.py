"""Stability: on how many prompts the dense and the edited model are both right or both wrong."""

from __future__ import annotations

import pandas as pd

from vlm_analysis.evaluation.evaluation import Evaluation, check_same_work, on_both
from vlm_analysis.words import total_of_domains

COLUMNS = ("domain", "n", "stability", "broke", "came_right")


def stability(dense: Evaluation, edited: Evaluation) -> pd.DataFrame:
    """Return the stability of an edit (LLM-Streamline, arXiv:2403.19135), a row a domain, then one over all prompts if they are several.

    Columns: `domain`; `n`, the prompts that both have; `stability`, the share of them on which both models answer exactly, or neither does,
    in [0, 1]; `broke` and `came_right`, how many only the dense model answers exactly, and only the edited one.

    Raises:
        EvaluationError: they are not of one model and one prompt set, or have no prompt in common.
    """
    check_same_work(edited, dense)
    one, other = on_both(dense, edited)
    right = pd.DataFrame(
        {
            "domain": one.by_prompt["domain"].to_numpy(),
            "before": one.by_prompt["exact_match"].to_numpy(bool),
            "after": other.by_prompt["exact_match"].to_numpy(bool),
        }
    )
    parts = list(right.groupby("domain", sort=False))
    if len(parts) > 1:
        parts.append((total_of_domains(right["domain"]), right))
    rows = [
        (
            str(name),
            len(part),
            float((part["before"] == part["after"]).mean()),
            int((part["before"] & ~part["after"]).sum()),
            int((~part["before"] & part["after"]).sum()),
        )
        for name, part in parts
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
