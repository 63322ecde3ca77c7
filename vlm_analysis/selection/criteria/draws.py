"""Means over all prompts and over resampled prompts; every criterion and every spread is computed from them.

The bootstrap draws groups of prompts with replacement within their domain: every draw has as many groups of each domain as the recording,
and where no prompts share a group, as many prompts. Domains that share a group are drawn as one, so that its prompts stay together.
A prompt's weight depends on the keys and numbers of its group, never on its position: results do not depend on the order of prompts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from vlm_analysis.recording.measures import mean_of_prompts
from vlm_analysis.recording.recording import Recording

N_RESAMPLES = 200
_UNITS: WeakKeyDictionary[Recording, Units] = WeakKeyDictionary()  # a criterion over 90 domains asks for them 180 times


@dataclass(frozen=True)
class Units:
    """What the bootstrap draws: groups of prompts, within strata that share none.

    Attributes:
        strata: of each prompt the domain it is drawn within, or the domains that share groups with it.
        names: of each prompt a sortable name of its group; the order decides which group gets which weight.
        whole: the groups of the strata of several domains: all are drawn, whichever domain is asked for, so that the domains' draws agree.
    """

    strata: tuple[str, ...]
    names: tuple[Any, ...]
    whole: Mapping[str, list[Any]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, domains: Sequence[str], groups: Sequence[str], labels: Sequence[Any]) -> Units:
        """Return the units of prompts with these domains, groups (none: each prompt is one) and labels, by which they are sorted."""
        if not groups:
            names = tuple((label, "", place) for place, label in enumerate(labels))
            return cls(tuple(domains), names)
        least: dict[str, Any] = {}
        joined: dict[str, set[str]] = {name: {name} for name in domains}
        first: dict[str, str] = {}
        for domain, group, label in zip(domains, groups, labels, strict=True):
            least[group] = min(least.get(group, label), label)
            both = joined[domain] | joined[first.setdefault(group, domain)]
            joined |= dict.fromkeys(both, both)
        strata = tuple("\0".join(sorted(joined[domain])) for domain in domains)
        names = tuple((least[group], group, 0) for group in groups)
        several = {stratum for domain, stratum in zip(domains, strata, strict=True) if len(joined[domain]) > 1}
        whole = {one: sorted({name for name, its in zip(names, strata, strict=True) if its == one}) for one in several}
        return cls(strata, names, whole)

    def only(self, rows: Sequence[int]) -> Units:
        """Return the units of some of the prompts."""
        return replace(
            self, strata=tuple(self.strata[row] for row in rows), names=tuple(self.names[row] for row in rows)
        )

    def count(self, rows: Sequence[int]) -> int:
        """Return how many groups these prompts are in."""
        return len({self.names[row] for row in rows})


UNDRAWN = Units((), ())


@dataclass(frozen=True)
class Sample:
    """Which prompts a mean is over.

    Attributes:
        n_draws: number of resamples; 0 for all prompts as they are.
        seed: of the draws.
    """

    n_draws: int = 0
    seed: int = 0

    def mean(self, values: np.ndarray, counts: np.ndarray, units: Units) -> np.ndarray:
        """Return the mean of `values` (n_prompts, n) over the prompts that count, (n,), or over draws of them, (n_draws, n).

        Args:
            values: float64; a counted number that is not finite makes the means of its column NaN.
            counts: bool, broadcast to `values`: the numbers that count; columns without any give NaN.
            units: what is drawn; not looked at where nothing is.
        """
        values = np.where(np.isfinite(values), values, np.nan)
        counts = np.broadcast_to(counts, values.shape)
        if not self.n_draws:
            return mean_of_prompts(values, counts)
        total, weight = np.zeros((2, self.n_draws, values.shape[1]))
        summands = np.where(counts, values, 0.0)
        for rows, weights in self._weights(np.flatnonzero(counts.any(axis=1)).tolist(), units):
            with np.errstate(invalid="ignore"):
                total += weights @ summands[rows]
            weight += weights @ counts[rows].astype(np.float64)
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan)

    def _weights(self, present: list[int], units: Units) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield each stratum's rows, sorted by name, and their (n_draws, n_rows) weights: those of their groups."""
        for stratum in sorted(set(units.strata)):
            rows = sorted((row for row in present if units.strata[row] == stratum), key=units.names.__getitem__)
            if not rows:
                continue
            drawn = units.whole.get(stratum) or list(dict.fromkeys(units.names[row] for row in rows))
            column = {name: number for number, name in enumerate(drawn)}
            rng = np.random.default_rng([self.seed, zlib.crc32(stratum.encode("utf-8", "surrogatepass"))])
            weights = rng.multinomial(len(drawn), np.full(len(drawn), 1 / len(drawn)), size=self.n_draws)
            yield rows, weights[:, [column[units.names[row]] for row in rows]].astype(np.float64)


@dataclass(frozen=True, eq=False)
class Sampled:
    """The means of a recording's measures under one sample of its prompts."""

    recording: Recording
    sample: Sample = field(default_factory=Sample)

    @property
    def units(self) -> Units:
        """What is drawn of the recording's prompts."""
        if self.recording not in _UNITS:
            keys, cosines = self.recording.rows["key"], self.recording.rows["cosine"]
            labels = [(bytes(key), cosine.tobytes()) for key, cosine in zip(keys, cosines, strict=True)]
            _UNITS[self.recording] = Units.of(self.recording.domains, self.recording.groups, labels)
        return _UNITS[self.recording]

    def measure(
        self, name: str, domain: str | None = None, token_group: str = "all", *, which: int | None = None
    ) -> np.ndarray:
        """Return the (..., n_layers) mean of a measure; arguments as in `Recording.layer_values`."""
        values = self.recording.prompt_values(name, domain, token_group, which=which).astype(np.float64)
        return self.of(values, self.recording.counts_in(name, domain, token_group, which=which), domain)

    def of(self, values: np.ndarray, counts: np.ndarray, domain: str | None) -> np.ndarray:
        """Return the (..., n) mean of `values` (n_prompts of the domain, n) over the prompts that count (bool)."""
        drawn = self.units.only(self.recording.rows_of(domain).tolist()) if self.sample.n_draws else UNDRAWN
        return self.sample.mean(values, counts, drawn)


def spread_over(draws: np.ndarray) -> np.ndarray:
    """Return the standard deviation (ddof 0) of (n_draws, n) values over the draws with a finite value; NaN without any."""
    there = np.isfinite(draws)
    number = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, draws - np.where(there, draws, 0.0).sum(axis=0) / number, 0.0)
    return np.where(there.any(axis=0), np.sqrt((centred**2).sum(axis=0) / number), np.nan)
