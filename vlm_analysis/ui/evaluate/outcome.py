"""What pages show of one evaluation beside the dense one: worked out once for both, as a page runs again at every click."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from vlm_analysis.evaluation.answers import answer_changes, pooled
from vlm_analysis.evaluation.evaluation import Evaluation, on_both, retention, retention_interval, score_intervals
from vlm_analysis.evaluation.telling import telling_score_of
from vlm_analysis.export.story import outcome_frame
from vlm_analysis.words import total_of_domains

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class Kept:
    """The retention of a domain: its share and the ends of its interval, NaN where there is none, and the domain's groups."""

    share: float
    low: float
    high: float
    n_groups: int


@dataclass(frozen=True, eq=False)
class Outcome:
    """Two evaluations on the prompts that both have, and what is worked out of them when it is first asked for."""

    evaluation: Evaluation
    dense: Evaluation

    @cached_property
    def metric(self) -> str:
        """Return the score that tells something."""
        return telling_score_of(self.dense, self.evaluation)

    @cached_property
    def whole(self) -> Evaluation:
        """Return the evaluation with all its prompts in one domain."""
        return pooled(self.evaluation, total_of_domains(self.evaluation.by_domain.index))

    @cached_property
    def kept(self) -> Kept:
        """Return the retention on all prompts."""
        domain = total_of_domains(self.evaluation.by_domain.index)
        (kept,) = _kept(self.whole, pooled(self.dense, domain), self.metric).values()
        return kept

    @cached_property
    def kept_by_domain(self) -> dict[str, Kept]:
        """Return the retention on each domain, the least first."""
        return _kept(self.evaluation, self.dense, self.metric)

    @cached_property
    def kl_to_dense(self) -> tuple[float, float, float]:
        """Return the mean KL over all prompts, and the ends of its interval."""
        rows = score_intervals(self.whole)
        (found,) = rows.loc[rows["metric"] == "kl_to_dense", ["value", "low", "high"]].to_numpy(float).tolist()
        return found[0], found[1], found[2]

    @cached_property
    def intervals(self) -> pd.DataFrame:
        return score_intervals(self.evaluation)

    @cached_property
    def changes(self) -> pd.DataFrame:
        return answer_changes(self.evaluation, self.dense)

    @cached_property
    def bars(self) -> Figure:
        from vlm_analysis.figures.outcomes import damage_bars

        return damage_bars(outcome_frame(self.evaluation, self.dense), metric=self.metric)


def _kept(evaluation: Evaluation, dense: Evaluation, metric: str) -> dict[str, Kept]:
    groups = evaluation.groups_by_domain
    shares = retention(evaluation, dense, metric).sort_values(kind="stable")
    ends = {name: retention_interval(evaluation, dense, str(name), metric=metric) for name in shares.index}
    return {str(name): Kept(float(share), *ends[name], groups[str(name)]) for name, share in shares.items()}


@st.cache_resource(show_spinner=False, max_entries=8, hash_funcs={Evaluation: id})
def outcome_of(evaluation: Evaluation, dense: Evaluation) -> tuple[Outcome, Evaluation, Evaluation]:
    """Return the outcome, with the two that it is kept by: held here, no others come to have their ids."""
    return Outcome(*on_both(evaluation, dense)), evaluation, dense
