"""Criteria from how much a layer changes its input: similarities, their comparison over domains, CKA, modality gaps.

Notation: s_d(l) is the mean cosine of layer l's input and output over the prompts of domain d; z_d is s_d z-scored over all
layers (population standard deviation; no spread gives 0). All functions return (..., n_layers).
"""

from __future__ import annotations

import numpy as np

from vlm_analysis.recording.measures import DELTAS, SHARES
from vlm_analysis.recording.recording import cka
from vlm_analysis.selection.criteria.query import ScoreQuery


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return `values` (..., n_layers) z-scored over the last axis with ddof 0; NaN layers stay NaN and are left out of mean and spread."""
    there = ~np.isnan(values)
    number = np.maximum(there.sum(axis=-1, keepdims=True), 1)
    mean = np.where(there, values, 0.0).sum(axis=-1, keepdims=True) / number
    centred = np.where(there, values - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=-1, keepdims=True) / number)
    # A spread within rounding of the values is none: equal layers must not be ranked by their last bit.
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return np.where(there, np.where(flat, 0.0, centred / np.where(flat, 1.0, spread)), np.nan)


def block_influence(query: ScoreQuery) -> np.ndarray:
    return 1.0 - query.mean("cosine", query.domain)


def target_aware(query: ScoreQuery) -> np.ndarray:
    return z_scores(query.mean("cosine", query.target))


def others_aware(query: ScoreQuery) -> np.ndarray:
    return z_scores(np.mean([query.mean("cosine", domain) for domain in query.others()], axis=0))


def mixed(query: ScoreQuery) -> np.ndarray:
    return query.weight * target_aware(query) + (1 - query.weight) * others_aware(query)


def mixed_others(query: ScoreQuery) -> np.ndarray:
    return (1 - query.weight) * target_aware(query) + query.weight * others_aware(query)


def worst_case(query: ScoreQuery) -> np.ndarray:
    """Return the lowest z of a layer over domains; NaN where a domain has none, as the lowest is then unknown."""
    return np.min([z_scores(query.mean("cosine", domain)) for domain in sorted(query.recording.domain_names)], axis=0)


def contrast(query: ScoreQuery) -> np.ndarray:
    return target_aware(query) - others_aware(query)


def attention_similarity(query: ScoreQuery) -> np.ndarray:
    return query.mean("attention_cosine", query.domain)


def mlp_similarity(query: ScoreQuery) -> np.ndarray:
    return query.mean("mlp_cosine", query.domain)


def important_tokens(query: ScoreQuery) -> np.ndarray:
    return query.mean("important_cosine", query.domain, which=SHARES.index(query.share))


def linear_cka(query: ScoreQuery) -> np.ndarray:
    own, cross, other = (query.mean("hsic", query.domain, which=part) for part in range(3))
    return cka(own, cross, other)


def skip_geometric(query: ScoreQuery) -> np.ndarray:
    return 1.0 - query.mean("cosine", query.domain, "vision")


def skip_proximal(query: ScoreQuery) -> np.ndarray:
    return query.mean("changed", query.domain, "vision", which=DELTAS.index(query.delta))


def cross_modal(query: ScoreQuery) -> np.ndarray:
    return query.mean("cross_modal", query.domain)


def cross_modal_pooled(query: ScoreQuery) -> np.ndarray:
    """Return the pooled distance; NaN for draws, as only sums over all prompts are kept."""
    pooled = query.recording.cross_modal_distance(query.domain)
    return np.full((query.sample.n_draws, len(pooled)), np.nan) if query.sample.n_draws else pooled
