"""How much a run of layers changes the stream: what strategies that look at spans are made of.

The stream entering layer i is x_i; x_L is the raw output of the last layer. Where DeepStack adds vision features behind a
layer, the addition is part of the stream that enters the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.draws import Sample, Sampled

ANGULAR_GROUP = "last"  # in arXiv:2403.17887
SIMILARITY_GROUP = "all"  # our choice; arXiv:2511.19676 names none


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of one recording.

    Attributes:
        domain: whose prompts count; None for all.
        token_group: which tokens; None for each span measure's own.
        sample: all prompts, or draws of them.
        draw: which of the draws to answer with; None for all prompts.
    """

    recording: Recording
    domain: str | None = None
    token_group: str | None = None
    sample: Sample = field(default_factory=Sample)
    draw: int | None = None
    _known: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def angular(self, n: int) -> np.ndarray:
        """Return the (n_layers − n + 1,) angular distance of x_l and x_{l+n}, in [0, 1]; NaN where it was not measured.

        arccos of a prompt's cosine, over π, then the mean over prompts. On the last token, as in arXiv:2403.17887, a prompt's
        cosine is that of one token; over a larger group it is the mean over its tokens (our choice).
        """
        return self._mean("angular", n)

    def similarity(self, n: int) -> np.ndarray:
        """Return the (n_layers − n + 1,) mean cosine of x_l and x_{l+n}: S_n of arXiv:2511.19676; NaN where not measured."""
        return self._mean("similarity", n)

    def draws(self) -> Iterator[Spans]:
        """Yield the spans of each draw of the sample; what is computed for one serves all."""
        for number in range(self.sample.n_draws):
            yield replace(self, draw=number)

    def _mean(self, kind: str, n: int) -> np.ndarray:
        if (kind, n) not in self._known:
            group = self.token_group or (ANGULAR_GROUP if kind == "angular" else SIMILARITY_GROUP)
            length = self.recording.n_layers + 1
            values = self.recording.prompt_spans(self.domain, group)[:, _places(length, n)].astype(np.float64)
            counts = self._broken()[:, None] | ~np.isnan(values)
            counts &= self.recording.has_group(self.domain, group)[:, None]
            if kind == "angular":
                values = np.arccos(np.clip(values, -1.0, 1.0)) / np.pi
            sampled = Sampled(self.recording, self.sample)
            self._known[kind, n] = sampled.of(values, counts, self.domain)
        found = self._known[kind, n]
        return found if self.draw is None else found[self.draw]

    def _broken(self) -> np.ndarray:
        """Return for each prompt whether a layer gave what is no number: its missing spans count, and make the mean NaN."""
        rows = [row for row, name in enumerate(self.recording.domains) if self.domain in (None, name)]
        return np.asarray((self.recording.rows["nonfinite"][rows] > 0).any(axis=1))


def _places(length: int, n: int) -> np.ndarray:
    """Return where the pairs (l, l + n) stand in the triangle above the diagonal of a matrix of `length`."""
    first = np.arange(length - n)
    return first * (2 * length - first - 1) // 2 + n - 1
