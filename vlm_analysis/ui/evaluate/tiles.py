"""One mask in four tiles: retention, answers lost and gained, KL to the dense model, parameters saved with the speed that this brings."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.cost import Cost, flops_without, speedup, weights_without
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.evaluation.telling import above_line, title_of
from vlm_analysis.ui.common.held import untimed
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.common.text import METRIC_HELP, escaped
from vlm_analysis.ui.evaluate.outcome import Kept, Outcome
from vlm_analysis.words import counted, in_groups, some_of
from vlm_analysis.workbench.costs import find_costs

MOST_DOMAINS = 6  # named below the tiles, the worst first; the table has all
INTERVAL_HELP = (
    " The interval is over groups of prompts: of right or wrong answers from those lost and won, else by Student's t."
)


def draw_tiles(outcome: Outcome) -> None:
    """Draw the four tiles of a mask on all prompts that both evaluations have, and its retention on each domain."""
    with st.grid(4, min_column_width=170):
        _retention_tile(outcome)
        _answers_tile(outcome)
        _kl_tile(outcome)
        _parameters_tile(outcome.evaluation)
    if len(outcome.kept_by_domain) > 1:
        words = (f"{domain} {' ('.join(retention_words(kept))})" for domain, kept in outcome.kept_by_domain.items())
        st.caption(f"By domain: {escaped(some_of(words, MOST_DOMAINS, between=', '))}")
    if line := above_line(kept.high for kept in (outcome.kept, *outcome.kept_by_domain.values())):
        st.caption(line)


def retention_words(kept: Kept) -> tuple[str, str]:
    """Return a domain's retention in words, and its interval or why there is none."""
    if pd.isna(kept.share):
        return "not defined", "the dense model's score is 0"
    if pd.isna(kept.low):
        return f"{kept.share:.0%}", no_interval(kept.n_groups) or "no interval"
    return f"{kept.share:.0%}", f"90 % interval {kept.low:.0%} to {kept.high:.0%}"


def no_interval(n_groups: int) -> str | None:
    """Return why a number has no interval, if that is for want of groups."""
    if n_groups >= LEAST_GROUPS:
        return None
    return f"no interval: {counted(n_groups, 'group')}, it takes {LEAST_GROUPS}"


def _tile(label: str, value: str, below: str, about: str) -> None:
    with st.container(border=True, height="stretch", gap="xsmall"):
        st.metric(label, value, help=about)
        st.caption(escaped(below))


def _retention_tile(outcome: Outcome) -> None:
    metric, evaluation = outcome.metric, outcome.evaluation
    share, interval = retention_words(outcome.kept)
    told = METRIC_HELP["retention"] if metric == "exact_match" else f"Of {title_of(metric)}: {METRIC_HELP[metric]}"
    _tile(
        "Retention" if metric == "exact_match" else f"Retention of {title_of(metric)}",
        share,
        f"{interval}; {in_groups(len(evaluation.by_prompt), evaluation.n_groups)}",
        told + INTERVAL_HELP,
    )


def _answers_tile(outcome: Outcome) -> None:
    changes = outcome.changes
    counts = changes["outcome"].value_counts()
    if "differs" in counts or "same" in counts:
        _tile(
            "Answers that differ",
            f"{counts.get('differs', 0)}",
            f"of {counted(len(changes), 'answer')}",
            "Answers in which the pruned model chooses another token than the dense one somewhere.",
        )
        return
    lost, gained, right = counts.get("lost", 0), counts.get("gained", 0), int(changes["dense_exact"].sum())
    missed = len(changes) - right
    _tile(
        "Answers lost",
        f"{lost} of {right}",
        f"{gained} gained of {missed} that the dense model misses" if missed else "the dense model misses none",
        "Prompts that only the dense model answers exactly, and those that only the pruned one does.",
    )


def _kl_tile(outcome: Outcome) -> None:
    value, low, high = outcome.kl_to_dense
    interval = f"90 % interval {low:.2g} to {high:.2g}"
    if pd.isna(low):
        interval = no_interval(outcome.evaluation.n_groups) or "no interval: all prompts agree"
    _tile("KL to dense", f"{value:.3g} nats", interval, METRIC_HELP["kl_to_dense"])


def _parameters_tile(evaluation: Evaluation) -> None:
    edit, model = evaluation.edit, evaluation.model
    try:
        (before, after), _ = weights_without(model, edit)
    except EvaluationError as error:
        _tile("Parameters saved", "not known", f"{counted(len(edit.gone), 'layer')} of {edit.n_layers}", escaped(error))
        return
    _tile(
        "Parameters saved",
        f"{(before - after) / before:.1%}",
        speed_words(evaluation),
        f"{before:,} → {after:,} of the whole model, vision tower and head included. The tab Cost has bytes and measured times.",
    )


def speed_words(evaluation: Evaluation) -> str:
    """Return what the mask brings in speed: measured, else expected from measured layers, else from the layers' FLOPs."""
    edit, model = evaluation.edit, evaluation.model
    costs: list[Cost] = find_costs(workspace(), model.fingerprint, evaluation.prompts, opened=opened)[0]
    if cost := next((one for one in costs if one.edit == edit), None):
        value, low, high = speedup(cost, "prefill")
        return f"prefill {value:.2f} × as fast, measured ({low:.2f} to {high:.2f})"
    if words := untimed(edit, costs[0] if costs else None):
        return f"speed not known: {words} is not in the layers' own times"
    if costs:
        return f"prefill {1 / costs[0].expected_share('prefill', edit):.2f} × as fast, expected from its layers' measured times"
    before, after = flops_without(model, edit)
    return f"{(before - after) / before:.0%} fewer FLOPs in the decoder layers; no time was measured"
