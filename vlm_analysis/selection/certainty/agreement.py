"""How far rankings agree: Kendall's tau-b between criteria, domains and token groups."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import score_layers, usable_criteria
from vlm_analysis.words import TOKEN_GROUPS


def kendall_tau(one: np.ndarray, other: np.ndarray) -> float:
    """Return Kendall's tau-b of two (n,) arrays, in [-1, 1]; 1 for equal orders; ties in only one of them lower it.

    (concordant − discordant) / √((pairs − ties in one) · (pairs − ties in the other)). Entries where one of them is NaN are left
    out; NaN where fewer than two are left or one of them is all ties. Source: Kendall, Biometrika 33 (1945).
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    there = ~(np.isnan(one) | np.isnan(other))
    one, other = one[there], other[there]
    above = np.triu_indices(len(one), 1)
    signs = [np.sign(values[above[0]] - values[above[1]]) for values in (one, other)]
    untied = [int(np.count_nonzero(sign)) for sign in signs]
    if not all(untied):
        return np.nan
    return float(signs[0] @ signs[1] / np.sqrt(untied[0] * untied[1]))


def agreement(
    recording: Recording,
    items: Mapping[str, LayerScores | Mapping[str, Any]],
    *,
    layers: Collection[int] | None = None,
) -> pd.DataFrame:
    """Return Kendall's tau-b between the wishes of every two items, as a symmetric frame with their names on both sides.

    Args:
        recording: what was measured.
        items: by name, LayerScores, or the arguments of `score_layers` with `criterion` among them.
        layers: the layers to compare, such as those that may go; None for all. Layers without a score in one of two items
            are left out for these two.

    Raises:
        StrataError: as `score_layers`.
    """
    indices = sorted(layers) if layers is not None else list(range(recording.n_layers))
    wishes = {}
    for name, item in items.items():
        scores = item if isinstance(item, LayerScores) else score_layers(recording, **item)
        wishes[name] = scores.wish[indices]
    rows = [[kendall_tau(one, other) for other in wishes.values()] for one in wishes.values()]
    return pd.DataFrame(rows, index=list(wishes), columns=list(wishes), dtype=np.float64)


def criteria_items(recording: Recording, **options: Any) -> dict[str, dict[str, Any]]:
    """Return every criterion this recording can be scored with, by its title; `options` are arguments of `score_layers`."""
    usable = [criterion for criterion, reason in usable_criteria(recording, **options).items() if not reason]
    return {CRITERIA[criterion].title: {**options, "criterion": criterion} for criterion in usable}


def domain_items(recording: Recording, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments of `score_layers` for the similarity of each domain, by domain."""
    return {name: {**options, "criterion": "target-aware", "target": name} for name in recording.domain_names}


def group_items(recording: Recording, criterion: str = "block-influence", **options: Any) -> dict[str, dict[str, Any]]:
    """Return the arguments of `score_layers` for one criterion over each token group that has tokens, by token group."""
    groups = [group for group in TOKEN_GROUPS if recording.prompts_with(None, group)]
    return {group: {**options, "criterion": criterion, "token_group": group} for group in groups}
