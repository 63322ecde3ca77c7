"""Recovered masks in a Comparison: each is a way of its own beside that of the mask as it is, under a name that says how."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError, short
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.strategies.many import RANDOM, Way

_WITH = " | recovered: "  # between a way's strategy and how its mask was recovered


def recovered_method(method: str, how: str) -> str:
    """Return what a method's masks are listed as when they are recovered."""
    return f"{method}, recovered ({how})"


def recovered_way(way: Way, how: str, mask: Edit) -> Way:
    """Return the way to the recovered mask of a way."""
    return replace(way, method=recovered_method(way.method, how), strategy=f"{way.strategy}{_WITH}{how}", mask=mask)


def is_recovered(ways: pd.DataFrame) -> pd.Series:
    """Return which of a comparison's ways lead to a recovered mask, (n_ways,) bool."""
    return ways["strategy"].str.contains(_WITH, regex=False)


def is_drawn(ways: pd.DataFrame) -> pd.Series:
    """Return which of a comparison's ways are random draws, recovered or not, (n_ways,) bool."""
    drawn = [RANDOM, *(recovered_method(RANDOM, how) for how in _hows(ways))]
    return ways["method"].isin(drawn)


def hows_of(comparison: Comparison) -> tuple[str, ...]:
    """Return how masks of a comparison were recovered, in the order of its ways; () where none was."""
    return tuple(dict.fromkeys(_hows(comparison.ways)))


def _hows(ways: pd.DataFrame) -> list[str]:
    return [strategy.partition(_WITH)[2] for strategy in ways["strategy"] if _WITH in strategy]


def as_recovered(comparison: Comparison, how: str = "") -> Comparison:
    """Return the comparison of the masks that were recovered in one way, under the methods of the masks as they are.

    What is read off a comparison, as `regimes`, is read off it alike.

    Args:
        comparison: made with `recover`.
        how: one of `hows_of(comparison)`; "" for the masks as they are.

    Raises:
        EvaluationError: no mask was recovered so.
    """
    ways, known = comparison.ways, hows_of(comparison)
    if how and how not in known:
        raise EvaluationError(
            f"The comparison has no such masks: expected one of {', '.join(known) or 'none'} as how, got {short(repr(how))}. Compare "
            "again with it."
        )
    ending, method_ending = (f"{_WITH}{how}", recovered_method("", how)) if how else ("", "")
    chosen = ways["strategy"].str.endswith(ending) if how else ~is_recovered(ways)
    own = ways[chosen].reset_index(drop=True)
    own["strategy"] = own["strategy"].str.removesuffix(ending)
    own["method"] = own["method"].str.removesuffix(method_ending)
    return replace(comparison, ways=own, choosing=comparison.choosing and as_recovered(comparison.choosing, how))
