"""The criteria: how a Recording becomes one number per decoder layer.

Notation: s_d(l) is the mean cosine of layer l's input and output over the prompts of domain d; z_d is s_d z-scored over all
layers (population standard deviation; no spread gives 0). Where a paper leaves a choice open the docstring says "our choice".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vlm_analysis.errors import MaskError
from vlm_analysis.rank.scores import LayerScores
from vlm_analysis.recording import Recording

N_RESAMPLES = 200
DomainMeans = Mapping[str, np.ndarray]  # domain -> (..., n_layers)


@dataclass(frozen=True)
class Criterion:
    """A row of the table: what it is called, where it comes from, what it computes and what it needs."""

    title: str
    source: str
    formula: str
    needs: Literal["recording", "domains", "nothing"]
    drop: Literal["highest", "lowest"]
    values: Callable[[DomainMeans, np.ndarray, str | None, float], np.ndarray] | None  # None: drawn, not measured


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return `values` (..., n_layers) z-scored over the last axis with ddof 0; NaN layers stay NaN and count for nothing."""
    if np.isnan(values).all():
        return values
    mean = np.nanmean(values, axis=-1, keepdims=True)
    spread = np.nanstd(values, axis=-1, keepdims=True)
    centred = values - mean
    # A spread within rounding of the values is none: equal layers must not be ranked by their last bit.
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return np.where(flat, np.where(np.isnan(values), np.nan, 0.0), centred / np.where(flat, 1.0, spread))


def _block_influence(by_domain: DomainMeans, overall: np.ndarray, target: str | None, weight: float) -> np.ndarray:
    return 1.0 - overall


def _target_aware(by_domain: DomainMeans, overall: np.ndarray, target: str | None, weight: float) -> np.ndarray:
    assert target is not None
    return z_scores(by_domain[target])


def _others_aware(by_domain: DomainMeans, overall: np.ndarray, target: str | None, weight: float) -> np.ndarray:
    others = [means for domain, means in by_domain.items() if domain != target]
    return z_scores(np.mean(others, axis=0))


def _mixed(by_domain: DomainMeans, overall: np.ndarray, target: str | None, weight: float) -> np.ndarray:
    aware = _target_aware(by_domain, overall, target, weight)
    return weight * aware + (1 - weight) * _others_aware(by_domain, overall, target, weight)


CRITERIA: dict[str, Criterion] = {
    "block-influence": Criterion(
        "Block influence",
        "ShortGPT, arXiv:2403.03853",
        "1 − mean cos(x_l, y_l)",
        "recording",
        "lowest",
        _block_influence,
    ),
    "target-aware": Criterion(
        "Target-aware", "domain-aware selection, arXiv:2603.20275", "z_target(l)", "domains", "highest", _target_aware
    ),
    "others-aware": Criterion(
        "Others-aware",
        "domain-aware selection, arXiv:2603.20275; mean over several other domains is our choice",
        "z over layers of the mean of s_d(l) over d ≠ target",
        "domains",
        "highest",
        _others_aware,
    ),
    "mixed": Criterion(
        "Mixed",
        "domain-aware selection, arXiv:2603.20275 (weight 0.7; that it multiplies the target is our reading)",
        "w · z_target(l) + (1 − w) · z_others(l)",
        "domains",
        "highest",
        _mixed,
    ),
    "random": Criterion("Random", "baseline: a seeded draw", "uniform in [0, 1)", "nothing", "highest", None),
}


def score_layers(
    recording: Recording,
    criterion: str,
    *,
    target: str | None = None,
    weight: float = 0.7,
    token_group: str = "all",
    damage: Any = None,
    seed: int = 0,
) -> LayerScores:
    """Return the scores of every decoder layer under `criterion`.

    Args:
        recording: what was measured.
        criterion: a key of `CRITERIA`.
        target: the domain whose answers should survive, for criteria that compare domains; by default the recording's first.
        weight: the share of the target in `mixed`, in [0, 1].
        token_group: which tokens the similarities are averaged over.
        damage: measured damage for criteria that need it; none of today's does.
        seed: for `random` and for the resampling behind `spread`.

    Raises:
        MaskError: an unknown criterion or target, a weight outside [0, 1], or one domain where two are needed.
        RecordingError: an unknown token group.
    """
    if criterion not in CRITERIA:
        raise MaskError(f"Unknown criterion: expected one of {list(CRITERIA)}, got {criterion!r}.")
    if not 0 <= weight <= 1:
        raise MaskError(f"The weight of the target must lie in [0, 1], got {weight!r}.")
    if seed < 0:
        raise MaskError(f"The seed must be a whole number of at least 0, got {seed!r}.")
    row = CRITERIA[criterion]
    options: dict[str, Any] = {"token_group": token_group, "recording_prompts": recording.prompts}
    if row.values is None:
        values = np.random.default_rng(seed).random(recording.n_layers)
        return LayerScores(criterion, values, np.zeros_like(values), row.drop, {**options, "seed": seed})
    if row.needs == "domains":
        target = _checked_target(recording, criterion, target)
        options["target"] = target
    if criterion == "mixed":
        options["weight"] = weight
    by_domain = {name: recording.layer_similarity(name, token_group) for name in recording.domain_names}
    values = row.values(by_domain, recording.layer_similarity(None, token_group), target, weight)
    resampled = row.values(*_resampled_means(recording, token_group, seed), target, weight)
    return LayerScores(criterion, values, resampled.std(axis=0), row.drop, options)


def _checked_target(recording: Recording, criterion: str, target: str | None) -> str:
    names = recording.domain_names
    if target is None:
        target = names[0]
    if target not in names:
        raise MaskError(f"No such target domain: expected one of {list(names)}, got {target!r}.")
    if criterion != "target-aware" and len(names) < 2:
        raise MaskError(
            f"Criterion {criterion!r} compares domains: expected at least two, got only {names[0]!r}. Add prompts of another."
        )
    return target


def _resampled_means(recording: Recording, token_group: str, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return per domain, and over all prompts, the (N_RESAMPLES, n_layers) means of prompts drawn with replacement.

    Prompts are drawn within their domain, so that every draw has every domain with its own number of prompts.
    """
    rng = np.random.default_rng(seed)
    by_domain: dict[str, np.ndarray] = {}
    total = np.zeros((N_RESAMPLES, recording.n_layers))
    count = 0
    for domain in recording.domain_names:
        values = recording.prompt_similarity(domain, token_group)
        values = values[recording.has_group(domain, token_group)]
        if len(values) == 0:
            by_domain[domain] = np.full((N_RESAMPLES, recording.n_layers), np.nan)
            continue
        drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=N_RESAMPLES)
        sums = drawn.astype(np.float64) @ values
        by_domain[domain] = sums / len(values)
        total += sums
        count += len(values)
    return by_domain, total / count if count else np.full_like(total, np.nan)
