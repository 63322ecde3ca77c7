"""How much a run of consecutive layers changes the stream, for strategies that choose spans.

The stream entering layer i is x_i; x_L is the raw output of the last layer. Where DeepStack adds vision features after a
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
        token_group: which tokens; None for the default of each span measure.
        sample: all prompts, or draws of them.
        draw: the draw that the methods return values of; None for all prompts.
    """

    recording: Recording
    domain: str | None = None
    token_group: str | None = None
    sample: Sample = field(default_factory=Sample)
    draw: int | None = None
    _means: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

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
        """Yield the spans of each draw of the sample; all share one cache of means."""
        for number in range(self.sample.n_draws):
            yield replace(self, draw=number)

    def _mean(self, kind: str, n: int) -> np.ndarray:
        if (kind, n) not in self._means:
            group = self.token_group or (ANGULAR_GROUP if kind == "angular" else SIMILARITY_GROUP)
            length = self.recording.n_layers + 1
            values = self.recording.prompt_spans(self.domain, group)[:, _span_columns(length, n)].astype(np.float64)
            counts = self._broken()[:, None] | ~np.isnan(values)
            counts &= self.recording.has_group(self.domain, group)[:, None]
            if kind == "angular":
                values = np.arccos(np.clip(values, -1.0, 1.0)) / np.pi
            sampled = Sampled(self.recording, self.sample)
            self._means[kind, n] = sampled.of(values, counts, self.domain)
        mean = self._means[kind, n]
        return mean if self.draw is None else mean[self.draw]

    def _broken(self) -> np.ndarray:
        """Return for each prompt whether a layer's output was not finite; its missing spans count and make the mean NaN."""
        rows = [row for row, name in enumerate(self.recording.domains) if self.domain in (None, name)]
        return np.asarray((self.recording.rows["nonfinite"][rows] > 0).any(axis=1))


def _span_columns(length: int, n: int) -> np.ndarray:
    """Return the indices of the pairs (l, l + n) in the flattened upper triangle of a matrix of `length` rows."""
    first = np.arange(length - n)
    return first * (2 * length - first - 1) // 2 + n - 1
