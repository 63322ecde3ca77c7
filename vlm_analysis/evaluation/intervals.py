"""Intervals of what is measured on prompts. The unit is the group: prompts that share a picture are one draw, not several.

Each kind of number has the interval that a simulation found to hold (docs/statistics.md):

    means           Student's t over groups
    right or wrong  the exact one of a binomial share; where groups have several prompts, at the effective number of prompts
    KL and NLL      Student's t over groups for the logarithm of the mean, widened for their long tail

Below `LEAST_GROUPS` groups there is no interval. Nor is there one where a mean has no spread: five prompts that agree do not tell how
far a sixth would be off.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from vlm_analysis.evaluation.distributions import critical_t, exact_ends, t_quantile

LEAST_GROUPS = 5
SHARE = 0.9


def group_numbers(groups: Sequence[str], n_prompts: int) -> np.ndarray:
    """Return the (n_prompts,) number of each prompt's group, from 0; without groups each prompt is its own."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1] if len(groups) else np.arange(n_prompts)


def count_groups(numbers: np.ndarray) -> int:
    """Return how many groups there are."""
    return len(np.unique(numbers))


def group_sums(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the (n, n_groups) sums of (n, n_prompts) values over the prompts of each group."""
    found, places = np.unique(numbers, return_inverse=True)
    if len(found) == len(numbers):
        return np.asarray(values[:, np.argsort(places)], np.float64)
    return np.stack([np.bincount(places, row, len(found)) for row in np.asarray(values, np.float64)])


def ratio_errors(above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n,) ratios of sums over groups and their standard errors, by the usual linear approximation.

    Args:
        above, below: (n, n_groups) and (n_groups,) or (n, n_groups) sums of each group, two groups at least. A mean over prompts is the
            ratio of a group's sum and its number of prompts.
    """
    n_groups, total = above.shape[1], np.sum(below, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = above.sum(axis=1) / total
        rest = above - ratio[:, None] * below
        error = np.sqrt(n_groups / (n_groups - 1) * (rest**2).sum(axis=1)) / total
    return ratio, error


def ratio_bands(above: np.ndarray, below: np.ndarray, numbers: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the (2, n) ends of the ratio of two sums over prompts, by Student's t over groups.

    NaN below `LEAST_GROUPS` groups, where the sum below is not above 0, and where the groups agree.

    Args:
        above, below: (n, n_prompts) and (n_prompts,); `below` of ones gives the mean.
        numbers: (n_prompts,) the group of each prompt.
    """
    n_groups = count_groups(numbers)
    if n_groups < LEAST_GROUPS or not np.sum(below) > 0:
        return np.full((2, len(above)), np.nan)
    ratio, error = ratio_errors(group_sums(above, numbers), group_sums(below[None], numbers)[0])
    error = np.where(error > 1e-12 * np.abs(ratio), error, np.nan)
    return ratio + np.array([[-1], [1]]) * critical_t(share, n_groups - 1) * error


def tailed_bands(values: np.ndarray, numbers: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the (2, n) ends of the mean of (n, n_prompts) values that are never negative and have a long tail, as KL and NLL.

    The wider of two, by Student's t over groups: for the logarithm of the mean, and for the mean corrected for skewness (Hall, JRSS B 54,
    1992). A variance that few large values make is known badly, so the degrees of freedom fall with the kurtosis. NaN below `LEAST_GROUPS`
    groups, where all are 0, and where the groups agree.
    """
    n_groups = count_groups(numbers)
    if n_groups < LEAST_GROUPS:
        return np.full((2, len(values)), np.nan)
    sizes = group_sums(np.ones((1, len(numbers))), numbers)[0]
    sums = group_sums(values, numbers)
    mean, error = ratio_errors(sums, sizes)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        rest = sums - mean[:, None] * sizes
        rest = rest / np.sqrt((rest**2).mean(axis=1, keepdims=True))
        skewness, kurtosis = (rest**3).mean(axis=1), (rest**4).mean(axis=1)
        error = np.where((mean > 0) & (error > 1e-12 * mean), error, np.nan)
        df = np.fmax(1.0, np.fmin(n_groups - 1, 2 * n_groups / (kurtosis - 1)))
        t = t_quantile(share, df)
        lean = skewness / (3 * np.sqrt(n_groups))
        lean = np.where(np.abs(lean) < 1e-6, 1e-6, lean)
        ends = np.stack([-t, t])
        skewed = mean - error * (np.cbrt(1 - 3 * lean * (ends + lean / 2)) - 1) / lean
        logged = mean * np.exp(ends * error / mean)
    return np.stack([np.maximum(np.minimum(logged[0], skewed[0]), 0.0), np.maximum(logged[1], skewed[1])])


def share_bands(hits: np.ndarray, among: np.ndarray, numbers: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the (2, n) ends of the share that hits have among some prompts: exact, at the effective number of prompts.

    Args:
        hits, among: (n, n_prompts) bool; hits are among.
        numbers: (n_prompts,) the group of each prompt.
    """
    total, count = among.sum(axis=1).astype(np.float64), hits.sum(axis=1).astype(np.float64)
    effective = effective_numbers(hits, among, numbers, share)
    ends = np.full((2, len(hits)), [[0.0], [1.0]])
    some = total > 0
    if some.any():
        pairs, back = np.unique(
            np.stack([(count * effective)[some] / total[some], effective[some]]), axis=1, return_inverse=True
        )
        ends[:, some] = exact_ends(pairs[0], pairs[1], share)[:, back.reshape(-1)]
    return ends


def effective_numbers(hits: np.ndarray, among: np.ndarray, numbers: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the (n,) number of independent prompts that tell a share as well as these do: their number over the design effect.

    The design effect is the variance over groups relative to that of independent prompts, 1 at least. Where hits, or misses, are in fewer
    than `LEAST_GROUPS` groups it cannot be told, and groups count as if their prompts always agreed (our choice). The number is lowered for
    the few groups that it is estimated from, as by Korn and Graubard, Survey Methodology 24 (1998).
    """
    total, count = among.sum(axis=1).astype(np.float64), hits.sum(axis=1).astype(np.float64)
    if count_groups(numbers) == len(numbers):
        return total
    hit_sums, sizes = group_sums(hits, numbers), group_sums(among, numbers)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = count / total
        n_groups = (sizes > 0).sum(axis=1)
        rest = ((hit_sums - p[:, None] * sizes) ** 2).sum(axis=1) * n_groups / (n_groups - 1)
        design, alike = rest / (total * p * (1 - p)), (sizes**2).sum(axis=1) / total
        fewest = np.minimum((hit_sums > 0).sum(axis=1), (sizes > hit_sums).sum(axis=1))
        design = np.where(fewest < LEAST_GROUPS, np.fmax(design, alike), design)
    effective = total / np.fmax(design, 1.0)
    found, places = np.unique(np.maximum(n_groups, 2), return_inverse=True)
    widen = (NormalDist().inv_cdf((1 + share) / 2) / t_quantile(share, found - 1)) ** 2
    return np.where(total > 0, effective * widen[places], 0.0)


def kept_bands(kept: np.ndarray, base: np.ndarray, numbers: np.ndarray, share: float = SHARE) -> np.ndarray:
    """Return the (2, n) ends of the ratio of right answers, those of each row of `kept` over those of `base`.

    It is the share of the dense model's right answers that stay, plus the odds of one won against one of these. Each has its interval
    (`share_bands`); the distances of their ends add up as squares (Zou and Donner, Statistics in Medicine 27, 2008). NaN below
    `LEAST_GROUPS` groups, and without a right answer.

    Args:
        kept, base: (n, n_prompts) and (n_prompts,) or (n, n_prompts), 0 or 1.
        numbers: (n_prompts,) the group of each prompt.
    """
    if count_groups(numbers) < LEAST_GROUPS:
        return np.full((2, len(kept)), np.nan)
    kept_right, right = kept > 0, np.broadcast_to(base > 0, kept.shape)
    stays, won, answered = kept_right & right, kept_right & ~right, right.sum(axis=1)
    of_right, of_both = (share_bands(*one, numbers, share) for one in ((stays, right), (won, kept_right | right)))
    with np.errstate(invalid="ignore", divide="ignore"):
        stay, more = stays.sum(axis=1) / answered, won.sum(axis=1) / answered
        reach = np.hypot(of_right - stay, of_both / (1 - of_both) - more)
        return np.maximum(stay + more + np.array([[-1], [1]]) * reach, 0)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p-values corrected for their number by Holm's step-down procedure; NaN stays and does not count.

    The chance that any of the claims below a level is false is at most that level, however the tests depend on each other.
    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    corrected = np.full(np.shape(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
