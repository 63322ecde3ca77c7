"""Criteria from how much a layer changes what it is given: similarities, their comparison over domains, CKA, modality gaps.

Notation: s_d(l) is the mean cosine of layer l's input and output over the prompts of domain d; z_d is s_d z-scored over all
layers (population standard deviation; no spread gives 0). All functions return (..., n_layers).
"""

from __future__ import annotations

import numpy as np

from vlm_analysis.recording.measures import DELTAS, SHARES
from vlm_analysis.recording.recording import cka
from vlm_analysis.selection.criteria.asked import Asked


def z_scores(values: np.ndarray) -> np.ndarray:
    """Return `values` (..., n_layers) z-scored over the last axis with ddof 0; NaN layers stay NaN and count for nothing."""
    there = ~np.isnan(values)
    number = np.maximum(there.sum(axis=-1, keepdims=True), 1)
    mean = np.where(there, values, 0.0).sum(axis=-1, keepdims=True) / number
    centred = np.where(there, values - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=-1, keepdims=True) / number)
    # A spread within rounding of the values is none: equal layers must not be ranked by their last bit.
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(mean))
    return np.where(there, np.where(flat, 0.0, centred / np.where(flat, 1.0, spread)), np.nan)


def block_influence(asked: Asked) -> np.ndarray:
    return 1.0 - asked.mean("cosine", asked.domain)


def target_aware(asked: Asked) -> np.ndarray:
    return z_scores(asked.mean("cosine", asked.target))


def others_aware(asked: Asked) -> np.ndarray:
    return z_scores(np.mean([asked.mean("cosine", domain) for domain in asked.others()], axis=0))


def mixed(asked: Asked) -> np.ndarray:
    return asked.weight * target_aware(asked) + (1 - asked.weight) * others_aware(asked)


def mixed_others(asked: Asked) -> np.ndarray:
    return (1 - asked.weight) * target_aware(asked) + asked.weight * others_aware(asked)


def worst_case(asked: Asked) -> np.ndarray:
    """Return the lowest z of a layer over domains; NaN where a domain has none, for the worst is not known then."""
    return np.min([z_scores(asked.mean("cosine", domain)) for domain in sorted(asked.recording.domain_names)], axis=0)


def contrast(asked: Asked) -> np.ndarray:
    return target_aware(asked) - others_aware(asked)


def attention_similarity(asked: Asked) -> np.ndarray:
    return asked.mean("attention_cosine", asked.domain)


def mlp_similarity(asked: Asked) -> np.ndarray:
    return asked.mean("mlp_cosine", asked.domain)


def important_tokens(asked: Asked) -> np.ndarray:
    return asked.mean("important_cosine", asked.domain, which=SHARES.index(asked.share))


def linear_cka(asked: Asked) -> np.ndarray:
    own, cross, other = (asked.mean("hsic", asked.domain, which=part) for part in range(3))
    return cka(own, cross, other)


def skip_geometric(asked: Asked) -> np.ndarray:
    return 1.0 - asked.mean("cosine", asked.domain, "vision")


def skip_proximal(asked: Asked) -> np.ndarray:
    return asked.mean("changed", asked.domain, "vision", which=DELTAS.index(asked.delta))


def cross_modal(asked: Asked) -> np.ndarray:
    return asked.mean("cross_modal", asked.domain)


def cross_modal_pooled(asked: Asked) -> np.ndarray:
    """Return the pooled distance; NaN for draws, as only sums over all prompts are kept."""
    pooled = asked.recording.cross_modal_distance(asked.domain)
    return np.full((asked.sample.n_draws, len(pooled)), np.nan) if asked.sample.n_draws else pooled
