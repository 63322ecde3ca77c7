"""Cosine similarity of hidden states, token by token, and its means over token groups.

Products are float32 whatever the model's precision (in bfloat16 a cosine near 1 has six distinct values); sums are float64.
"""

from __future__ import annotations

import numpy as np
import torch


def unit_vectors(hidden_states: torch.Tensor) -> torch.Tensor:
    """Return `hidden_states` (..., hidden) in float32, scaled to length 1; a zero vector stays zero, NaN stays NaN.

    Scaled by the largest entry first, so that a token of huge norm does not overflow.
    """
    values = hidden_states.detach().float()
    values = values / values.abs().amax(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return values / torch.linalg.vector_norm(values, dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def token_cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the float32 cosine of two (..., hidden) tensors of unit vectors over their last axis."""
    return (one * other).sum(dim=-1)


def stream_cosine(units: torch.Tensor) -> torch.Tensor:
    """Return the (tokens, n, n) cosines between all n streams of (tokens, n, hidden) unit vectors."""
    return units @ units.transpose(1, 2)


def group_means(values: torch.Tensor, groups: np.ndarray) -> np.ndarray:
    """Return the float64 mean of `values` (tokens, ...) over each of `groups` (n_groups, tokens); NaN for an empty group."""
    means = []
    for members in groups:
        chosen = values[torch.from_numpy(np.flatnonzero(members)).to(values.device)]
        shape = tuple(values.shape[1:])
        means.append(chosen.double().mean(dim=0).cpu().numpy() if len(chosen) else np.full(shape, np.nan))
    return np.stack(means)
