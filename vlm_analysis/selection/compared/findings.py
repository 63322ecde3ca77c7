"""What a Comparison tells of masks: retention over budgets, a table of all masks, which of them nothing beats."""

from __future__ import annotations

import numpy as np
import pandas as pd

from vlm_analysis.edits.skipping import in_short
from vlm_analysis.evaluation.evaluation import as_kept, retention_bands
from vlm_analysis.evaluation.telling import telling_score
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.recovered import is_drawn
from vlm_analysis.words import counted

CURVE = ("method", "domain", "budget", "value", "low", "high")


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
        low, high = retention_bands(kept, base, metric, comparison.groups[comparison.rows(domain, metric)])
        frame = comparison.ways[["method", "budget"]].copy()
        indices = comparison.ways["place"].to_numpy()
        is_random = is_drawn(comparison.ways).to_numpy()
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
    table["dropped"] = ["" if mask.is_dense else in_short(mask) for mask in comparison.masks]
    return table


def front_places(comparison: Comparison, left: np.ndarray, most: int, metric: str | None = None) -> list[int]:
    """Return the places of up to `most` masks on the front of the retention of every domain over what each leaves, evenly over that.

    Where one mask beats all others, those that only this one beats are taken too: one point makes no front.

    Args:
        left: (n_masks,) what each mask leaves, as a share of its FLOPs; NaN is never on the front.
    """
    values = [retentions(comparison, domain, metric or telling(comparison)) for domain in comparison.domains]
    kept = [-one for one in values if np.isfinite(one).all()]
    rows = np.column_stack([*kept, left])
    front = on_front(rows)
    if front.sum() < 2 <= most:
        others = np.flatnonzero(~front)
        front[others] = on_front(rows[others])
    places = np.flatnonzero(front)
    ordered = places[np.argsort(left[places], kind="stable")]
    picked = np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int))
    return [int(place) for place in ordered[picked]]


ENOUGH = 0.95  # retention that the front's sentence asks for; our choice


def front_words(
    table: pd.DataFrame, by: str, title: str, *, left: str = "parameters_left", of: str = "parameters"
) -> str:
    """Return what the front says in a sentence: the most that goes while enough is kept, else the best that there is.

    Args:
        table: of `mask_table`.
        by: its column of retention that counts.
        title: what is kept, as in "exact match on the worst domain".
        left: its column of what is left; masks without a number there do not count.
        of: what is left of, in words.
    """
    known = table[table[by].notna() & table[left].notna()]
    if known.empty:
        return f"No mask has a number for {title}."
    enough = known[known[by] >= ENOUGH]
    best = known.sort_values(by).iloc[-1] if enough.empty else enough.sort_values([left, by]).iloc[0]
    layers = counted(int(best["budget"]), "layer")
    saved = f"{1 - best[left]:.0%} of the {of}"
    if enough.empty:
        return f"No mask keeps {ENOUGH:.0%} of {title}: the best keeps {best[by]:.0%} with {layers} ({saved}) less."
    return f"{layers}, {saved}, can go while {best[by]:.0%} of {title} is kept."
