"""From the streams of one prompt to its row of measures: products in float32, sums over tokens in float64.

float32 whatever the model's precision: in bfloat16 a cosine near 1 has six distinct values. Every token is scaled by its largest
entry before its squares are summed, so that none of huge norm overflows. NaN stays NaN. Formulas: `measures.MEASURES`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlm_analysis.recording.measures import DELTAS, SINK_FACTOR, triangle
from vlm_analysis.recording.recording import Activations
from vlm_analysis.words import TOKEN_GROUPS

TINY = torch.finfo(torch.float32).tiny
HSIC_ELEMENTS = 1 << 22  # states widened to float64 at once, 32 MiB
HSIC_TOKENS = 4  # the unbiased estimator divides by n (n - 3)


@dataclass(frozen=True, eq=False)
class PromptStreams:
    """The streams of one prompt without padding, (n_layers, tokens, hidden) float32 each; rows of layers not run are not set."""

    inputs: torch.Tensor
    middles: torch.Tensor
    outputs: torch.Tensor
    ran: np.ndarray
    has_middle: np.ndarray


def units_and_norms(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 `states` (..., hidden) scaled to length 1, and their lengths (...) in float64; zero stays zero."""
    largest = states.abs().amax(dim=-1, keepdim=True).clamp_min(TINY)
    scaled = states / largest
    length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
    norms = (length.double() * largest).squeeze(-1)
    return scaled.div_(length.clamp_min(TINY)), norms


def token_cosine(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the float32 cosine of two (..., hidden) tensors of unit vectors over their last axis."""
    return torch.linalg.vecdot(one, other)


def group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the float64 means of `values` (..., tokens) over each of `groups` (n_groups, tokens) as (..., n_groups).

    An empty group is NaN. A value that is not finite spoils the means of its own groups only.
    """
    counts = groups.sum(axis=1)
    if np.isfinite(values).all():
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts > 0, values @ groups.T.astype(np.float64) / counts, np.nan)
    means = [
        values[..., members].mean(axis=-1) if members.any() else np.full(values.shape[:-1], np.nan)
        for members in groups
    ]
    return np.stack(means, axis=-1)


def _group_stds(values: np.ndarray, means: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the population standard deviation of (n_layers, tokens) values in each group, about its mean."""
    squares = np.where(groups, (values[:, None] - means[..., None]) ** 2, 0.0).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(groups.any(axis=1), np.sqrt(squares / groups.sum(axis=1)), np.nan)


def fill_row(row: np.void, streams: PromptStreams, groups: np.ndarray, *, full: bool = True) -> torch.Tensor:
    """Write the measures of one prompt into its `row`; returns the (n_layers, tokens) cosines of input and output.

    Args:
        row: of `measures.row_type`, as `empty_rows` makes it.
        streams: the prompt's, on any device.
        groups: (5, tokens) bool, membership in `TOKEN_GROUPS`.
        full: also norms, sub-layers and HSIC.
    """
    x, x_norms = units_and_norms(streams.inputs)
    y, y_norms = units_and_norms(streams.outputs)
    cosines = token_cosine(x, y)
    missing = ~streams.ran
    values = cosines.double().cpu().numpy()
    prompt = groups[TOKEN_GROUPS.index("all")] | groups[TOKEN_GROUPS.index("answer")]
    row["token_counts"] = groups.sum(axis=1)
    row["cosine"] = means = group_means(values, groups)
    row["cosine_std"] = _group_stds(values, means, groups)
    row["nonfinite"] = (~np.isfinite(values[:, prompt])).sum(axis=1)
    for index, delta in enumerate(DELTAS):
        row["changed"][:, :, index] = group_means(np.where(np.isnan(values), np.nan, values <= 1 - delta), groups)
    if full:
        _fill_norms(row, streams, x_norms, y_norms, groups)
        _fill_middles(row, streams, x, y, groups)
        row["hsic"] = _hsic(streams.inputs, streams.outputs, groups)
    for name in ("cosine", "cosine_std", "changed", "update", "norm_ratio", "output_rms", "hsic"):
        row[name][missing] = np.nan
    row["nonfinite"][missing] = row["sinks"][missing] = 0
    row["span"] = _spans(x, y, streams.ran, groups)
    return cosines


def _fill_norms(
    row: np.void, streams: PromptStreams, x_norms: torch.Tensor, y_norms: torch.Tensor, groups: np.ndarray
) -> None:
    before, after = x_norms.cpu().numpy(), y_norms.cpu().numpy()
    moved = torch.linalg.vector_norm(streams.outputs - streams.inputs, dim=-1).double().cpu().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        row["update"] = group_means(moved / before, groups)
        row["norm_ratio"] = group_means(after / before, groups)
    row["output_rms"] = np.sqrt(group_means(after**2, groups))
    row["sinks"] = (after > SINK_FACTOR * np.median(after, axis=1, keepdims=True)).sum(axis=1)


def _fill_middles(row: np.void, streams: PromptStreams, x: torch.Tensor, y: torch.Tensor, groups: np.ndarray) -> None:
    if not streams.has_middle.any():
        return
    m, _ = units_and_norms(streams.middles)
    for name, other in (("attention_cosine", x), ("mlp_cosine", y)):
        row[name] = group_means(token_cosine(other, m).double().cpu().numpy(), groups)
        row[name][~(streams.has_middle & streams.ran)] = np.nan


def _spans(x: torch.Tensor, y: torch.Tensor, ran: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the (n_groups, n_layers (n_layers + 1) / 2) mean cosines of every pair of streams; NaN with a layer not run."""
    ends = torch.cat([x, y[-1:]]).transpose(0, 1)
    products = (ends @ ends.transpose(1, 2)).double().cpu().numpy()
    means = np.moveaxis(group_means(np.moveaxis(products, 0, -1), groups), -1, 0)
    lost = np.flatnonzero(~np.append(ran, ran[-1]))
    means[:, lost, :] = means[:, :, lost] = np.nan
    return triangle(means)


def _hsic(inputs: torch.Tensor, outputs: torch.Tensor, groups: np.ndarray) -> np.ndarray:
    """Return (n_layers, n_groups, 3) unbiased linear HSIC of input with input, input with output, output with output.

    Song et al. 2012, eq. 5: with diagonals set to zero, (tr KL + 1ᵀK1 1ᵀL1 / (n-1)(n-2) - 2/(n-2) 1ᵀKL1) / n(n-3). All in float64: where
    a few tokens are huge, what is left of these terms is a millionth of each.
    """
    step = max(1, HSIC_ELEMENTS // inputs[0].numel())  # layers at once
    parts = [
        _hsic_of(_gram(inputs[first : first + step]), _gram(outputs[first : first + step]), groups)
        for first in range(0, len(inputs), step)
    ]
    return np.concatenate(parts)


def _hsic_of(k: torch.Tensor, l: torch.Tensor, groups: np.ndarray) -> np.ndarray:  # noqa: E741  (the paper's letters)
    members = torch.from_numpy(groups.T.astype(np.float64)).to(k.device)
    n = groups.sum(axis=1).astype(np.float64)
    rows = [(gram @ members) * members for gram in (k, l)]  # K1 of each group, (n_layers, tokens, n_groups)
    totals = [sums.sum(dim=1) for sums in rows]
    estimates = []
    for (first, a), (second, b) in (((k, 0), (k, 0)), ((k, 0), (l, 1)), ((l, 1), (l, 1))):
        trace = (((first * second) @ members) * members).sum(dim=1).cpu().numpy()
        both = (totals[a] * totals[b]).cpu().numpy()
        crossed = (rows[a] * rows[b]).sum(dim=1).cpu().numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            estimates.append((trace + both / ((n - 1) * (n - 2)) - crossed * 2 / (n - 2)) / (n * (n - 3)))
    values = np.stack(estimates, axis=-1)
    values[:, n < HSIC_TOKENS] = np.nan
    return values


def _gram(states: torch.Tensor) -> torch.Tensor:
    """Return each layer's (tokens, tokens) float64 products of states, the diagonal zero.

    The estimate does not change with the mean, which is therefore taken off first: it would only cost digits.
    """
    centred = states.double()
    centred -= centred.mean(dim=1, keepdim=True)
    gram = centred @ centred.transpose(1, 2)
    gram.diagonal(dim1=1, dim2=2).zero_()
    return gram


def pooled(streams: PromptStreams, groups: np.ndarray) -> np.ndarray:
    """Return one prompt's (n_layers + 1, hidden) float64 mean over its prompt tokens of every stream (see `pooled.Pooled`)."""
    members = groups[TOKEN_GROUPS.index("all")]
    weights = torch.from_numpy(members / members.sum()).to(streams.inputs.device)
    means = torch.stack([weights @ layer.double() for layer in (*streams.inputs, streams.outputs[-1])]).cpu().numpy()
    means[~np.append(streams.ran, streams.ran[-1])] = np.nan
    return means


def activations(streams: PromptStreams, groups: np.ndarray) -> tuple[np.ndarray, Activations] | None:
    """Return one prompt's (n_layers,) cross-modal distance and its part of the sums; None without vision or without text tokens."""
    members = groups[[TOKEN_GROUPS.index("vision"), TOKEN_GROUPS.index("text")]]
    counts = members.sum(axis=1)
    if not counts.all():
        return None
    weights = torch.from_numpy(members / counts[:, None]).to(streams.outputs.device)
    means = torch.stack([weights @ layer.double() for layer in streams.outputs], dim=1).cpu().numpy()
    both = torch.from_numpy(np.flatnonzero(members.any(axis=0))).to(streams.outputs.device)
    norms = torch.linalg.vector_norm(streams.outputs[:, both], dim=-1).double().mean(dim=1).cpu().numpy()
    means[:, ~streams.ran] = norms[~streams.ran] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.linalg.norm(means[0] - means[1], axis=-1) / norms
    return distance, Activations(means, norms, 1)
