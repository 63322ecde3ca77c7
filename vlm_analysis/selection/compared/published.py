"""What papers report: the accuracies in the tables of arXiv:2603.20275, of other models than yours."""

from __future__ import annotations

from functools import cache

import pandas as pd

from vlm_analysis.assets import asset
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.strategies.domain_aware import PAPER

READING_OF = {
    "math-aware": "domain-aware-target",
    "non-math-aware": "domain-aware-others",
    "mixed": "domain-aware-mixed",
    "cka": "domain-aware-cka",
    "interlace": "domain-aware-interlace",
    "random": "random-draw",
}
"""The preset's name of each of the paper's methods, whose target is math."""


@cache
def published_retention() -> pd.DataFrame:
    """Return the retention that arXiv:2603.20275 reports, one row a model, method, group of benchmarks and budget.

    Columns: `model`, `method` (a key of `READING_OF`), `group` ("math" or "general"), `share` (of the pruneable layers: 0.1, 0.25,
    0.4) and `retention`, the mean over the group's benchmarks of the accuracy over that of the dense model as it was, 1 being 100 %; the
    mean is ours.
    All pruned models were tuned after pruning. No intervals are reported.
    """
    cells = pd.read_csv(asset("published", "khaki-2026.csv"))
    dense = cells[cells["method"] == "dense"].set_index(["model", "benchmark"])["accuracy_percent"]
    pruned = cells[cells["method"].isin(list(READING_OF))].copy()
    pruned["retention"] = pruned["accuracy_percent"] / [
        dense[pair] for pair in zip(pruned["model"], pruned["benchmark"], strict=True)
    ]
    pruned["share"] = pruned["budget_percent"] / 100
    keys = ["model", "method", "group", "share"]
    return pruned.groupby(keys, sort=False)["retention"].mean().reset_index()


def published_curves(comparison: Comparison, method: str = "mixed") -> pd.DataFrame:
    """Return the published retention of one method to lay over that of a comparison: columns title, domain, budget, value.

    A domain named "math" has the paper's math benchmarks, every other its general ones (our choice). `budget` is the share of the pruneable
    layers in layers of the comparison's model, not rounded; `title` names the other model.
    """
    table = published_retention()
    n_pruneable = comparison.dense.model.n_layers - 2
    parts = []
    for domain in comparison.domains:
        group = "math" if domain == "math" else "general"
        rows = table[(table["method"] == method) & (table["group"] == group)]
        titles = [f"{str(model).removesuffix('-Instruct')}, {method}, {PAPER}" for model in rows["model"]]
        columns = {"title": titles, "domain": domain, "budget": rows["share"] * n_pruneable, "value": rows["retention"]}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)
