"""What a Comparison tells: retention over budgets, a table of all masks, which of them nothing beats, and the regimes of budgets.

The regimes are those that arXiv:2603.20275 reads off its curves. How they are computed is our choice:

    spread   standard deviation over plain rankings (the strategy "first k") of their retention at a budget
    noise    95th percentile of the spread that prompts alone would make: prompts are drawn with replacement, the same for all
             rankings, and each ranking's retention is taken as its distance from the one on all prompts
    gain     mean over criteria of the retention with no two neighbours dropped minus that of the plain ranking, with the interval
             from the 5th to the 95th percentile of the same draws

A budget is *structure-dominated* where the gain's interval lies above 0, *ranking-sensitive* where the spread is above the noise, the
larger of gain and spread deciding where both hold, and *converging* where neither does: there these prompts cannot tell rankings apart.
Where no mask without neighbours is left, only spread and noise decide; where all rankings choose one mask, both are 0 and the gain decides.
There is no regime with fewer than two plain rankings, nor in a domain where the dense model answers fewer than `LEAST` prompts: that
four prompts all favour the same one of two equal masks is chance in one case of 16, that five do in one of 32, which is below 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import as_kept, drawn_ratios, retention_bands
from vlm_analysis.evaluation.telling import telling_score
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.strategies.many import PLAIN, RANDOM, SPACED

SENSITIVE, CONVERGING, STRUCTURE = "ranking-sensitive", "converging", "structure-dominated"
CURVE = ("method", "domain", "budget", "value", "low", "high")
REGIMES = ("domain", "n_prompts", "n_answered", "budget", "spread", "noise", "gain", "gain_low", "gain_high", "regime")
SHARE = 0.9
LEAST = 5
ROUNDING = 1e-12


def telling(comparison: Comparison) -> str:
    """Return the score to report of a comparison (see `evaluation.telling`)."""
    return telling_score(comparison.dense.by_prompt, comparison.scores)


def kept_scores(comparison: Comparison, domain: str | None, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (n_masks, n_rows) of a domain's prompts and the dense model's (n_rows,), of which more is better."""
    rows = comparison.rows(domain, metric)
    return as_kept(metric, comparison.scores[metric][:, rows], comparison.base(metric)[rows])


def retentions(comparison: Comparison, domain: str | None, metric: str = "exact_match") -> np.ndarray:
    """Return the (n_masks,) retention of each mask: mean score over the dense model's; NaN where that is 0.

    Of KL and NLL it is that of `as_kept`: 1 for the dense model, less for one that differs.
    """
    scores, dense = kept_scores(comparison, domain, metric)
    count = max(1, len(dense))  # of means, as `evaluation.retention` takes it: the same to the last bit
    base, kept = dense.sum(), scores.sum(axis=1)
    return (kept / count) / (base / count) if base > 0 else np.full(len(kept), np.nan)


def drawn_retentions(
    comparison: Comparison, domain: str | None, metric: str = "exact_match", seed: int = 0
) -> np.ndarray:
    """Return the (n_masks, n_draws) retentions under a paired bootstrap over the prompts, the draws of `retention_bands`.

    Draws in which the dense score is 0 are left out.
    """
    kept, base = kept_scores(comparison, domain, metric)
    return drawn_ratios(kept, base, seed) if base.size else np.empty((len(comparison.masks), 0))


def retention_curves(comparison: Comparison, metric: str | None = None) -> pd.DataFrame:
    """Return columns `CURVE`: retention of every method on every domain over the budget, in the order of the ways, then domains.

    By default it is that of the `telling` score, as in `mask_table` and `regimes`.
    `low` and `high` are the 90 % interval of `retention_bands`; of random masks `value` is the mean, `low` and `high` the range of the
    draws.
    """
    parts, metric = [], metric or telling(comparison)
    for domain in comparison.domains:
        value = retentions(comparison, domain, metric)
        kept, base = kept_scores(comparison, domain, metric)
        low, high = retention_bands(kept, base, metric, share=SHARE)
        frame = comparison.ways[["method", "budget"]].copy()
        indices = comparison.ways["place"].to_numpy()
        is_random = (frame["method"] == RANDOM).to_numpy()
        frame["value"] = value[indices]
        frame["low"] = np.where(is_random, value[indices], low[indices])
        frame["high"] = np.where(is_random, value[indices], high[indices])
        parts.append(frame.assign(domain=domain))
    groups = pd.concat(parts).sort_index(kind="stable").groupby(["method", "domain", "budget"], sort=False)
    curves = groups.agg(value=("value", "mean"), low=("low", "min"), high=("high", "max"))
    broken = groups["value"].count() < groups["value"].size()  # one draw without a number leaves none for the whole
    curves = curves.mask(broken).reset_index()
    return curves[list(CURVE)]


def cost_curve(comparison: Comparison) -> pd.DataFrame:
    """Return columns budget, value, title: the mean share of parameters left by the masks of each budget."""
    budgets = [mask.budget for mask in comparison.masks]
    frame = pd.DataFrame({"budget": budgets, "value": comparison.parameters_left()})
    return frame.groupby("budget", as_index=False)["value"].mean().assign(title="parameters left")


def on_front(values: np.ndarray) -> np.ndarray:
    """Return which rows of (n, k) values nothing beats: no other row is as low everywhere and lower somewhere (n,) bool.

    Equal rows stand or fall together; a row with NaN is never on the front.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values).all(axis=1)
    front = np.zeros(len(values), bool)
    different, back = np.unique(values[known], axis=0, return_inverse=True)
    beaten = [bool(((different <= row).all(axis=1) & (different < row).any(axis=1)).any()) for row in different]
    front[known] = ~np.array(beaten, bool)[back.reshape(-1)] if len(different) else False
    return front


def mask_table(comparison: Comparison, metric: str | None = None) -> pd.DataFrame:
    """Return one row a mask, in the order of `comparison.masks`.

    Columns: methods (all that lead to it), budget, one `retention, <domain>` a domain (of `metric`, by default the `telling` one), worst
    (the least of them that is defined), nll_above_dense, kl_to_dense, token_agreement (means over prompts), parameters_left, on_front,
    dropped. `on_front` is the Pareto front over the retention of every domain and the parameters left, without the dense model.
    """
    metric = metric or telling(comparison)
    kept = {domain: retentions(comparison, domain, metric) for domain in comparison.domains}
    parameters_left = comparison.parameters_left()
    names = comparison.ways.groupby("place")["method"].agg(lambda methods: "; ".join(dict.fromkeys(methods)))
    table = pd.DataFrame({"methods": [names.get(index, "") for index in range(len(comparison.masks))]})
    table["budget"] = [mask.budget for mask in comparison.masks]
    for domain, values in kept.items():
        table[f"retention, {domain}"] = values
    measured = np.stack(list(kept.values()))
    lowest = np.where(np.isnan(measured), np.inf, measured).min(axis=0)
    table["worst"] = np.where(np.isinf(lowest), np.nan, lowest)
    table["nll_above_dense"] = (comparison.scores["answer_nll"] - comparison.base("answer_nll")).mean(
        axis=1
    ) + 0.0  # no −0
    for name in ("kl_to_dense", "token_agreement"):
        table[name] = comparison.scores[name].mean(axis=1)
    table["parameters_left"] = parameters_left
    defined = measured[np.isfinite(measured).all(axis=1)]
    table["on_front"] = on_front(np.column_stack([*(-values for values in defined), parameters_left]))
    table["dropped"] = [
        ", ".join(map(str, mask.dropped)) if mask.is_mask else mask.words() for mask in comparison.masks
    ]
    return table


def regimes(comparison: Comparison, metric: str | None = None, seed: int = 0) -> pd.DataFrame:
    """Return columns `REGIMES`, one row a domain and budget; NaN where something cannot be computed, "" where there is no regime.

    `n_prompts` are those of the domain that the metric was asked of, `n_answered` those of them with a dense score above 0.
    """
    rows, metric = [], metric or telling(comparison)
    plain = comparison.ways[comparison.ways["strategy"] == PLAIN]
    for domain in comparison.domains:
        value = retentions(comparison, domain, metric)
        draws = drawn_retentions(comparison, domain, metric, seed)
        base = comparison.base(metric)[comparison.rows(domain, metric)]
        counts = len(base), int((base > 0).sum())
        for budget in sorted(comparison.ways["budget"].unique()):
            indices = plain[plain["budget"] == budget]["place"].to_numpy()
            spread, noise = _spread(value, draws, indices)
            gain = _gain(value, draws, *_pairs(comparison.ways, int(budget)))
            regime = _regime(spread, noise, gain) if counts[1] >= LEAST else ""
            rows.append((domain, *counts, int(budget), spread, noise, *gain, regime))
    return pd.DataFrame(rows, columns=list(REGIMES))


def _pairs(ways: pd.DataFrame, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the masks of each criterion and target, plain and with no two neighbours, where both are there."""
    here = ways[(ways["budget"] == budget) & ways["strategy"].isin((PLAIN, SPACED))]
    table: dict[tuple[str, str | None], dict[str, int]] = {}
    for criterion, target, strategy, index in here[["criterion", "target", "strategy", "place"]].itertuples(
        index=False
    ):
        whose = target if isinstance(target, str) else None  # pandas makes None a NaN
        table.setdefault((str(criterion), whose), {})[strategy] = int(index)
    both = [pair for pair in table.values() if len(pair) == 2]
    return np.array([pair[PLAIN] for pair in both], int), np.array([pair[SPACED] for pair in both], int)


def _spread(value: np.ndarray, draws: np.ndarray, indices: np.ndarray) -> tuple[float, float]:
    if len(indices) < 2 or not draws.shape[1]:
        return np.nan, np.nan
    by_chance = (draws[indices] - value[indices, None]).std(axis=0)
    return float(value[indices].std()), float(np.quantile(by_chance, 0.95))


def _gain(value: np.ndarray, draws: np.ndarray, plain: np.ndarray, spaced: np.ndarray) -> tuple[float, float, float]:
    if not len(plain) or not draws.shape[1]:
        return np.nan, np.nan, np.nan
    low, high = np.quantile((draws[spaced] - draws[plain]).mean(axis=0), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return float((value[spaced] - value[plain]).mean()), float(low), float(high)


def _regime(spread: float, noise: float, gain: tuple[float, float, float]) -> str:
    if not np.isfinite([spread, noise]).all():
        return ""
    sensitive, structured = spread > noise + ROUNDING, gain[1] > ROUNDING
    if sensitive and structured:
        return STRUCTURE if gain[0] > spread else SENSITIVE
    return STRUCTURE if structured else SENSITIVE if sensitive else CONVERGING


def regime_words(frame: pd.DataFrame) -> list[str]:
    """Return one sentence a domain: the regime of each stretch of budgets, or that too few prompts are answered for one."""
    sentences = []
    for domain, rows in frame.groupby("domain", sort=False):
        n_prompts, n_answered = int(rows["n_prompts"].iloc[0]), int(rows["n_answered"].iloc[0])
        parts = _stretches(rows[rows["regime"] != ""])
        if n_answered < LEAST:
            parts = f"too few prompts that the dense model answers ({n_answered}); no regime"
        if parts:
            sentences.append(f"{domain} (n = {n_prompts}): {parts}.")
    return sentences


def _stretches(rows: pd.DataFrame) -> str:
    stretches: list[tuple[str, list[int]]] = []
    for budget, regime in zip(rows["budget"], rows["regime"], strict=True):
        if stretches and stretches[-1][0] == regime:
            stretches[-1][1].append(int(budget))
        else:
            stretches.append((regime, [int(budget)]))
    return ", ".join(f"{_stretch(budgets)} {regime}" for regime, budgets in stretches)


def _stretch(budgets: Sequence[int]) -> str:
    word = "layer" if list(budgets) == [1] else "layers"
    return f"{budgets[0]} {word}" if len(budgets) == 1 else f"{budgets[0]} to {budgets[-1]} layers"
