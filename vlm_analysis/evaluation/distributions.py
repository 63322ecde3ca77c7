"""Tails and quantiles of Student's t, the binomial and the chi-squared distribution: what intervals are made of.

Plain numpy: Strata does not need SciPy. Continued fractions and series as in Press et al., Numerical Recipes, 6.2 and 6.4.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

TINY, STEPS = 1e-300, 500
HALVINGS = 60  # at most, of an interval of length 1: to the last bit of a float64
SURE = 1e-9  # a step of Newton's method that moves less, relative to the distance from 0 and 1, leaves an error of its square
EPSILON = float(np.finfo(np.float64).eps)
MOST_KNOWN = 100_000  # exact ends, some 30 MB
_known: dict[tuple[float, float, float], list[float]] = {}  # what a comparison of many masks asks again and again


def beta_share(a: np.ndarray | float, b: np.ndarray | float, x: np.ndarray | float) -> np.ndarray:
    """Return the regularised incomplete beta function I_x(a, b), elementwise, for a, b > 0 and x in [0, 1]."""
    a, b, x = (np.asarray(one, np.float64) for one in np.broadcast_arrays(a, b, x))
    return _beta_share(a, b, x, _log_beta(a, b))


def _beta_share(a: np.ndarray, b: np.ndarray, x: np.ndarray, log_beta: np.ndarray) -> np.ndarray:
    swap = x > (a + 1) / (a + b + 2)  # the fraction converges quickly on the other side
    one, other, at = np.where(swap, b, a), np.where(swap, a, b), np.where(swap, 1 - x, x)
    with np.errstate(divide="ignore"):
        front = np.exp(log_beta + one * np.log(at) + other * np.log1p(-at)) / one
    value = np.where(at > 0, front * _beta_fraction(one, other, at), 0.0)
    return np.where(swap, 1 - value, value)


def _log_beta(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return −log B(a, b)."""
    return _log_gamma(a + b) - _log_gamma(a) - _log_gamma(b)


def _log_gamma(x: np.ndarray) -> np.ndarray:
    """Return log Γ(x) for x > 0: Stirling's series at x + 8, and the recurrence down from there."""
    shift = np.log(np.multiply.accumulate(np.stack([x + step for step in range(8)]))[-1])
    y = x + 8
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7)
    return (y - 0.5) * np.log(y) - y + math.log(2 * math.pi) / 2 + series - shift


def _beta_fraction(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the continued fraction of I_x(a, b) by Lentz's method; each element ends by itself, so its company changes no bit of it."""
    c, d = np.ones_like(x), _not_zero(1 - (a + b) * x / (a + 1))
    d = 1 / d
    value, going = d.copy(), np.ones(x.shape, bool)
    for m in range(1, STEPS):
        step = np.ones_like(x)
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _not_zero(1 + term * d), _not_zero(1 + term / c)
            step = d * c
            value = np.where(going, value * step, value)
        going &= np.abs(step - 1) >= 1e-14
        if not going.any():
            break
    return value


def _not_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < TINY, TINY, values)


def t_tail(t: np.ndarray | float, df: np.ndarray | float) -> np.ndarray:
    """Return the probability that |T| of Student's t with `df` degrees of freedom is above |t|, elementwise; 0 for infinite t."""
    t, df = np.broadcast_arrays(np.asarray(t, np.float64), np.asarray(df, np.float64))
    with np.errstate(over="ignore"):
        return beta_share(df / 2, 0.5, df / (df + t * t))


def t_quantile(share: np.ndarray | float, df: np.ndarray | float) -> np.ndarray:
    """Return the t that |T| of Student's t with `df` degrees of freedom stays below with probability `share`, elementwise."""
    share, df = np.broadcast_arrays(np.asarray(share, np.float64), np.asarray(df, np.float64))
    at = _beta_quantile(df / 2, np.full(df.shape, 0.5), 1 - share)
    return np.sqrt(df * (1 / at - 1))


@cache
def critical_t(share: float, df: int) -> float:
    """Return `t_quantile` of one number of degrees of freedom, computed once."""
    return float(t_quantile(share, df))


def exact_ends(count: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
    """Return the (2, n) exact ends of the share that `count` (n,) of `total` (n,) estimate; both may be fractions.

    The ends are the shares at which a binomial count as far off as `count`, or farther, has the probability (1 − share) / 2; 0 where
    nothing is counted and 1 where all is.

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    asked = list(zip(*(one.tolist() for one in np.broadcast_arrays(np.float64(count), np.float64(total))), strict=True))
    found = {one: _known.get((*one, share)) for one in asked}
    if new := [one for one, ends in found.items() if ends is None]:
        counts, totals = np.array(new).T
        computed = dict(zip(new, _exact_ends(counts, totals, share).T.tolist(), strict=True))
        found |= computed
        if len(_known) > MOST_KNOWN:
            _known.clear()
        _known.update(((*one, share), ends) for one, ends in computed.items())
    return np.array([found[one] for one in asked], np.float64).reshape(-1, 2).T


def _exact_ends(count: np.ndarray, total: np.ndarray, share: float) -> np.ndarray:
    left, tail = np.maximum(total - count, 0.0), (1 - share) / 2
    low = np.where(count > 0, _beta_quantile(np.where(count > 0, count, 1.0), left + 1, tail), 0.0)
    high = np.where(left > 0, _beta_quantile(count + 1, np.where(left > 0, left, 1.0), 1 - tail), 1.0)
    return np.stack([low, high])


def _beta_quantile(a: np.ndarray, b: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Return the x at which I_x(a, b) is `share`: Newton's steps, halving the bracket where one would leave it; each ends by itself."""
    low, high, going = np.zeros(a.shape), np.ones(a.shape), np.ones(a.shape, bool)
    x, front = a / (a + b), _log_beta(a, b)
    for _ in range(HALVINGS):
        rest = _beta_share(a, b, x, front) - share
        low, high = np.where(rest < 0, x, low), np.where(rest < 0, high, x)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            newton = x - rest / np.exp(front + (a - 1) * np.log(x) + (b - 1) * np.log1p(-x))
        close = np.abs(newton - x) <= SURE * np.minimum(x, 1 - x) + EPSILON
        nearer = np.where((newton > low) & (newton < high), newton, np.where(close, x, (low + high) / 2))
        x = np.where(going, nearer, x)
        going = going & ~close
        if not going.any():
            break
    return np.asarray(x)


def chi_tail(value: float, df: float) -> float:
    """Return the probability that chi-squared with `df` degrees of freedom is above `value`."""
    x, a = value / 2, df / 2
    if x <= 0:
        return 1.0
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for step in range(1, STEPS):
            term *= x / (a + step)
            total += term
        return 1 - front * total
    b = x + 1 - a
    c, d = 1 / TINY, 1 / b
    fraction = d
    for step in range(1, STEPS):
        term = -step * (step - a)
        b += 2
        d = 1 / (term * d + b)
        c = b + term / c
        fraction *= d * c
    return front * fraction


@cache
def chi_quantile(share: float, df: float) -> float:
    """Return the value that chi-squared with `df` degrees of freedom stays below with probability `share`."""
    low, high = 0.0, 1.0
    while chi_tail(high, df) > 1 - share:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_tail(middle, df) > 1 - share else (low, middle)
    return high
