"""The objective of a search over masks: the effect of a mask on the answers, as one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vlm_analysis.errors import MaskError
from vlm_analysis.evaluation.evaluation import Evaluation, on_both

Rank = tuple[float, float, tuple[int, ...]]
"""Harm, KL and dropped layers of a mask: the lowest is the best."""


def _loss(pruned: float, dense: float) -> float:
    return 1 - pruned / dense


_HARMS: dict[str, Callable[[float, float], float]] = {  # of the mean scores, pruned and dense
    "kl_to_dense": lambda pruned, dense: pruned,
    "answer_nll": lambda pruned, dense: pruned - dense,
    "exact_match": _loss,
    "token_agreement": _loss,
}
SCORES = tuple(_HARMS)


@dataclass(frozen=True)
class Objective:
    """What a search minimises: the harm of a mask. Definitions and ties are our choice.

    Attributes:
        score: harm is, with equal weight on each prompt, for `kl_to_dense` the mean KL(dense ‖ pruned) in nats; for `answer_nll`
            the mean above the dense model's, in nats; for `exact_match` and `token_agreement` 1 − retention (pruned over dense
            score), without the prompts of domains on which the dense score is 0.
        target: the domain whose prompts count; None for all.
        worst: whether harm is the largest harm over the domains.

    Raises:
        MaskError: an unknown score, or a target beside the worst domain.
    """

    score: str = "kl_to_dense"
    target: str | None = None
    worst: bool = False

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise MaskError(f"Unknown damage: expected one of {list(SCORES)}, got {self.score!r}. Choose one of them.")
        if self.worst and self.target is not None:
            raise MaskError(
                f"The worst domain is taken over all domains: expected no target beside it, got {self.target!r}. Leave one of them out."
            )

    def harm(self, pruned: Evaluation, dense: Evaluation) -> float | None:
        """Return the harm, lower is better; None where a number is not finite, or the dense score is 0 on every domain.

        Raises:
            MaskError: the target is no domain of the prompts, or the two are of different prompts or models.
        """
        rows = self._rows(pruned, dense)
        if SCORES.index(self.score) >= SCORES.index("exact_match"):
            rows = rows[rows.groupby("domain")["dense"].transform("sum") > 0]
        parts = [part for _, part in rows.groupby("domain")] if self.worst else [rows] if len(rows) else []
        harms = [
            _HARMS[self.score](float(part["pruned"].mean(skipna=False)), float(part["dense"].mean(skipna=False)))
            for part in parts
        ]
        return max(harms) if harms and np.isfinite(harms).all() else None

    def rank(self, pruned: Evaluation, dense: Evaluation) -> Rank | None:
        """Return the sort key of a mask: its harm, then its KL, then its layers. Harms are often equal with exact match on few prompts."""
        harm = self.harm(pruned, dense)
        if harm is None:
            return None
        kl = harm if self.score == "kl_to_dense" else replace(self, score="kl_to_dense").harm(pruned, dense)
        return harm, float("inf") if kl is None else kl, pruned.edit.dropped

    def _rows(self, pruned: Evaluation, dense: Evaluation) -> pd.DataFrame:
        """Return one row per prompt that counts, which both have: its domain and both scores, float64."""
        if pruned.prompts != dense.prompts or pruned.model.fingerprint != dense.model.fingerprint:
            raise MaskError(
                "The damage cannot be told: expected the pruned and the dense model on the same prompts, got others. "
                "Measure both on one prompt set."
            )
        pruned, dense = on_both(pruned, dense)
        scores = {
            name: one.by_prompt[self.score].to_numpy(np.float64) for name, one in (("pruned", pruned), ("dense", dense))
        }
        rows = pd.DataFrame({"domain": dense.by_prompt["domain"].to_numpy(), **scores})
        if self.target is None:
            return rows
        if self.target not in set(rows["domain"]):
            raise MaskError(
                f"The damage was not measured on domain {self.target!r}: expected one of {list(rows['domain'].unique())}. "
                "Measure it there."
            )
        return rows[rows["domain"] == self.target]


BY_KL = Objective()
