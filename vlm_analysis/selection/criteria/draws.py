"""Means over all prompts and over resampled prompts; every criterion and every spread is computed from them.

The bootstrap draws prompts with replacement within their domain: every draw has as many prompts of each domain as the recording.
A prompt's weight depends on its key and its numbers, never on its position: results do not depend on the order of prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlm_analysis.recording.recording import Recording, mean_of_prompts

N_RESAMPLES = 200


@dataclass(frozen=True)
class Sample:
    """Which prompts a mean is over.

    Attributes:
        n_draws: number of resamples; 0 for all prompts as they are.
        seed: of the draws.
    """

    n_draws: int = 0
    seed: int = 0

    def mean(self, values: np.ndarray, counts: np.ndarray, domains: Sequence[str], labels: Sequence[Any]) -> np.ndarray:
        """Return the mean of `values` (n_prompts, n) over the prompts that count, (n,), or over draws of them, (n_draws, n).

        Args:
            values: float64; a counted number that is not finite makes the means of its column NaN.
            counts: bool, broadcast to `values`: the numbers that count; columns without any give NaN.
            domains: each prompt's domain.
            labels: sortable, one per prompt; they decide which prompt gets which weight.
        """
        values = np.where(np.isfinite(values), values, np.nan)
        counts = np.broadcast_to(counts, values.shape)
        if not self.n_draws:
            return mean_of_prompts(values, counts)
        total, weight = np.zeros((2, self.n_draws, values.shape[1]))
        summands = np.where(counts, values, 0.0)
        for rows, weights in self._weights(np.flatnonzero(counts.any(axis=1)).tolist(), domains, labels):
            with np.errstate(invalid="ignore"):
                total += weights @ summands[rows]
            weight += weights @ counts[rows].astype(np.float64)
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)

    def _weights(
        self, present: list[int], domains: Sequence[str], labels: Sequence[Any]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield each domain's rows, sorted by label, and their (n_draws, n_rows) weights."""
        for domain in sorted(set(domains)):
            rows = sorted((row for row in present if domains[row] == domain), key=lambda row: labels[row])
            if rows:
                rng = np.random.default_rng([self.seed, zlib.crc32(domain.encode("utf-8", "surrogatepass"))])
                weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=self.n_draws)
                yield rows, weights.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Sampled:
    """The means of a recording's measures under one sample of its prompts."""

    recording: Recording
    sample: Sample = field(default_factory=Sample)

    def measure(
        self, name: str, domain: str | None = None, token_group: str = "all", *, which: int | None = None
    ) -> np.ndarray:
        """Return the (..., n_layers) mean of a measure; arguments as in `Recording.layer_values`."""
        values = self.recording.prompt_values(name, domain, token_group, which=which).astype(np.float64)
        return self.of(values, self.recording.counts_in(name, domain, token_group, which=which), domain)

    def of(self, values: np.ndarray, counts: np.ndarray, domain: str | None) -> np.ndarray:
        """Return the (..., n) mean of `values` (n_prompts of the domain, n) over the prompts that count (bool)."""
        rows = [row for row, name in enumerate(self.recording.domains) if domain in (None, name)]
        keys, cosines = (self.recording.rows[column][rows] for column in ("key", "cosine"))
        labels = [(bytes(key), cosine.tobytes()) for key, cosine in zip(keys, cosines, strict=True)]
        return self.sample.mean(values, counts, [self.recording.domains[row] for row in rows], labels)


def spread_over(draws: np.ndarray) -> np.ndarray:
    """Return the standard deviation (ddof 0) of (n_draws, n) values over the draws with a finite value; NaN without any."""
    there = np.isfinite(draws)
    number = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, draws - np.where(there, draws, 0.0).sum(axis=0) / number, 0.0)
    return np.where(there.any(axis=0), np.sqrt((centred**2).sum(axis=0) / number), np.nan)
