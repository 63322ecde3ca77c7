"""The numbers of one mask, folded: scores by domain in three groups (dense, pruned, difference), their intervals, all prompts as CSV."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.evaluation.evaluation import ANSWERS, Evaluation, on_both, score_intervals
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.export.tables import table_csv
from vlm_analysis.ui.common.text import METRIC_HELP
from vlm_analysis.ui.evaluate.outcome import Outcome
from vlm_analysis.words import METRIC_TITLES, any_of

RELATIVE = ("token_agreement", "kl_to_dense")  # metrics that compare with the dense model already
GROUPS = ("Dense", "Pruned", "Difference")


def draw_numbers(evaluation: Evaluation, outcome: Outcome | None) -> None:
    """Draw the folded numbers; without an outcome, or of the dense model, those of one model."""
    with st.expander("Numbers", icon=":material/table:"):
        dense = None if outcome is None else outcome.dense
        if outcome is not None:
            evaluation = outcome.evaluation
            st.plotly_chart(
                outcome.bars,
                key="damage-bars",
                config={"displayModeBar": False},
                alt="Answers by domain: kept, lost and gained",
            )
        table = grouped_scores(evaluation, dense)
        st.dataframe(table, width="stretch", column_config=_formats(table), alt="Scores of each domain")
        _draw_intervals(score_intervals(evaluation) if outcome is None else outcome.intervals)
        if dense is not None:
            st.download_button(
                "All prompts as CSV",
                lambda: table_csv(all_prompts(evaluation, dense)),
                "evaluation.csv",
                "text/csv",
                icon=":material/download:",
                on_click="ignore",
            )


def grouped_scores(evaluation: Evaluation, dense: Evaluation | None) -> pd.DataFrame:
    """Return the scores of each domain with columns in two levels: a group of `GROUPS`, and the metric's title; `n` first.

    Metrics that compare with the dense model stand under "Difference" as they are, others there as pruned minus dense. Without a
    dense evaluation there is one group of all.
    """
    scores = evaluation.by_domain
    columns: dict[tuple[str, str], Any] = {("", "n"): scores["n"]}
    if dense is None:
        whose = "Dense" if evaluation.is_dense else "Pruned"
        columns |= {(whose, METRIC_TITLES[name]): scores[name] for name in evaluation.metrics}
        return pd.DataFrame(columns)
    own = [name for name in evaluation.metrics if name not in RELATIVE]
    both = [name for name in own if name in dense.metrics]
    base = dense.by_domain
    columns |= {("Dense", METRIC_TITLES[name]): base[name] for name in both}
    columns |= {("Pruned", METRIC_TITLES[name]): scores[name] for name in own}
    columns |= {("Difference", METRIC_TITLES[name]): scores[name] - base[name] for name in both}
    columns |= {("Difference", METRIC_TITLES[name]): scores[name] for name in RELATIVE}
    return pd.DataFrame(columns)


def _formats(table: pd.DataFrame) -> dict[Any, Any]:
    """Return the help and format of each column, by its number after the index."""
    help_of = {title: METRIC_HELP[name] for name, title in METRIC_TITLES.items()}
    return {
        place + 1: st.column_config.NumberColumn(help=help_of[title], format="%.3f")
        for place, (_, title) in enumerate(table.columns)
        if title in help_of
    }


def _draw_intervals(intervals: pd.DataFrame) -> None:
    st.caption(
        "90 % intervals over groups of prompts: exact for right or wrong answers, by Student's t for token agreement, by that of the "
        f"logarithm, widened, for NLL and KL. Below {LEAST_GROUPS} groups, and where all prompts agree, there is none."
    )
    st.dataframe(
        intervals.assign(metric=intervals["metric"].map(METRIC_TITLES)),
        hide_index=True,
        width="stretch",
        column_config={name: st.column_config.NumberColumn(format="%.3f") for name in ("value", "low", "high")},
        alt="Intervals of the scores",
    )


def all_prompts(evaluation: Evaluation, dense: Evaluation) -> pd.DataFrame:
    """Return every prompt's scores beside the dense model's, with a column that says which answers count where some have several."""
    evaluation, dense = on_both(evaluation, dense)
    both = evaluation.by_prompt.assign(
        dense_match=dense.by_prompt["exact_match"], dense_nll=dense.by_prompt["answer_nll"]
    )
    both["extra_nll"] = both["answer_nll"] - both["dense_nll"]
    if ANSWERS not in both:
        return both
    return both.assign(counts=[any_of(len(answers or ())) for answers in both[ANSWERS]])
