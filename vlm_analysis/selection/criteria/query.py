"""ScoreQuery: the arguments of a criterion."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.criteria.draws import Sample, Sampled


@dataclass(frozen=True, eq=False)
class ScoreQuery:
    """Everything that the values of a criterion depend on; the fields are the arguments of `score_layers`.

    Attributes:
        sample: all prompts, or draws of them, which add a leading axis of draws to all means.
        target, other: the domains that the criterion compares (`other` None: all but the target).
        domain: whose prompts count, for criteria that compare no domains; None for all.
        damage: the measured damage of each layer; None where it was not measured.
    """

    recording: Recording
    target: str | None = None
    other: str | None = None
    domain: str | None = None
    weight: float = 0.7
    token_group: str = "all"
    share: float = 0.5
    delta: float = 0.05
    damage: Damage | None = None
    sample: Sample = field(default_factory=Sample)

    def redrawn(self, n_draws: int, seed: int) -> ScoreQuery:
        """Return the same query over `n_draws` draws of the prompts."""
        return replace(self, sample=Sample(n_draws, seed))

    def mean(
        self, measure: str, domain: str | None = None, token_group: str | None = None, *, which: int | None = None
    ) -> np.ndarray:
        """Return the (..., n_layers) mean of a measure over a domain's prompts (None: all) and the query's token group."""
        sampled = Sampled(self.recording, self.sample)
        return sampled.measure(measure, domain, token_group or self.token_group, which=which)

    def others(self) -> list[str]:
        """Return the domains to compare the target with, sorted: the other one, or all but the target."""
        names = sorted(set(self.recording.domain_names) - {self.target})
        return names if self.other is None else [self.other]
