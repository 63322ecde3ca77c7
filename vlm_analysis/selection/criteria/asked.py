"""Asked: one question put to a criterion, with everything the answer may depend on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.criteria.draws import Sample, Sampled


@dataclass(frozen=True, eq=False)
class Asked:
    """What a criterion is asked; the fields are the arguments of `score_layers`.

    Attributes:
        sample: all prompts, or draws of them; means have a leading axis of draws then.
        target, other: domains, where the criterion compares them (`other` None: all but the target).
        domain: whose prompts count, where the criterion compares none; None for all.
        damage: what leaving out each layer did, where it was measured.
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

    def drawn(self, n_draws: int, seed: int) -> Asked:
        """Return the same question about prompts drawn again."""
        return replace(self, sample=Sample(n_draws, seed))

    def mean(
        self, measure: str, domain: str | None = None, token_group: str | None = None, *, which: int | None = None
    ) -> np.ndarray:
        """Return the (..., n_layers) mean of a measure over a domain's prompts (None: all), in the asked token group."""
        sampled = Sampled(self.recording, self.sample)
        return sampled.measure(measure, domain, token_group or self.token_group, which=which)

    def others(self) -> list[str]:
        """Return the domains the target is compared with, sorted: the other one, or all but the target."""
        names = sorted(set(self.recording.domain_names) - {self.target})
        return names if self.other is None else [self.other]
