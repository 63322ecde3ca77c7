"""Two edits on the same prompts: how much more of the dense model's answers one keeps, and which answers part them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import Evaluation, as_kept, check_same_work, on_both
from vlm_analysis.evaluation.intervals import count_groups, group_numbers, ratio_bands
from vlm_analysis.evaluation.telling import ROUNDING, telling_score_of

PAIRED = ("domain", "n", "groups", "one", "other", "difference", "low", "high")
PARTED = ("id", "domain", "keeps", "gap")
EVERY = ""  # the domain of the row over all prompts


def paired_differences(
    one: Evaluation, other: Evaluation, dense: Evaluation, metric: str | None = None
) -> pd.DataFrame:
    """Return columns `PAIRED`: the retention of two edits and their difference, a row a domain, then one over all prompts (`EVERY`).

    Prompt by prompt the first edit's score minus the other's, summed and over the dense model's sum. `low` and `high` are its 90 % interval
    by Student's t over groups (`ratio_bands`): paired, so it is narrower than two intervals laid side by side. Each holds for itself.
    NaN where the dense score is 0; NaN ends below five groups, and where no group tells the two apart.

    Args:
        metric: the score of which retention is taken (see `as_kept`); by default the one that tells something of both.

    Raises:
        EvaluationError: they are not of one model and one prompt set, or have no prompt in common.
    """
    metric = metric or telling_score_of(dense, one, other)
    whole, kept, base = _side_by_side(one, other, dense, metric)
    names, known = whole.by_prompt["domain"].to_numpy(), np.isfinite(kept).all(axis=0) & np.isfinite(base)
    numbers = group_numbers(whole.shared_groups, len(names))
    domains = list(dict.fromkeys(names))
    rows = [_row(str(name), known & (names == name), kept, base, numbers) for name in domains]
    if len(domains) > 1:
        rows.append(_row(EVERY, known, kept, base, numbers))
    return pd.DataFrame(rows, columns=list(PAIRED))


def parted(one: Evaluation, other: Evaluation, dense: Evaluation, metric: str | None = None) -> pd.DataFrame:
    """Return columns `PARTED`: the answers that one of two edits keeps and the other breaks, the widest gap first.

    `keeps` is "one" or "other". Of exact match these are prompts that the dense model answers exactly, of other scores all on which the two
    edits differ; `gap` is the difference of what they keep, above 0.

    Args:
        metric: as in `paired_differences`.
    """
    metric = metric or telling_score_of(dense, one, other)
    whole, kept, base = _side_by_side(one, other, dense, metric)
    gap = kept[0] - kept[1]
    counts = np.abs(gap) > ROUNDING
    if metric == "exact_match":
        counts &= base > 0
    table = whole.by_prompt[["id", "domain"]].assign(keeps=np.where(gap > 0, "one", "other"), gap=np.abs(gap))[counts]
    return table.sort_values("gap", ascending=False, kind="stable").reset_index(drop=True)


def _side_by_side(
    one: Evaluation, other: Evaluation, dense: Evaluation, metric: str
) -> tuple[Evaluation, np.ndarray, np.ndarray]:
    """Return the dense evaluation on the prompts that all three have, and the scores (2, n_prompts) and (n_prompts,), more being better."""
    for edited in (one, other):
        check_same_work(edited, dense)
        dense, _ = on_both(dense, edited)
    base = dense.by_prompt[metric]
    edited = [on_both(dense, each)[1].by_prompt[metric] for each in (one, other)]
    pairs = [as_kept(metric, scores, base) for scores in edited]
    return dense, np.stack([kept for kept, _ in pairs]), pairs[0][1]


def _row(name: str, chosen: np.ndarray, kept: np.ndarray, base: np.ndarray, numbers: np.ndarray) -> tuple[object, ...]:
    of, below, groups = kept[:, chosen], base[chosen], numbers[chosen]
    total = below.sum()
    shares = of.sum(axis=1) / total if total > 0 else np.full(2, np.nan)
    low, high = ratio_bands((of[0] - of[1])[None], below, groups)[:, 0]
    counts = int(chosen.sum()), count_groups(groups)
    return (name, *counts, float(shares[0]), float(shares[1]), float(shares[0] - shares[1]), float(low), float(high))
