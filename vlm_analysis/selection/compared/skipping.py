"""Ways of a Comparison in which vision tokens skip layers, beside dropped layers or alone."""

from __future__ import annotations

import pandas as pd

from vlm_analysis.selection.strategies.many import SKIPS


def is_skipping(ways: pd.DataFrame) -> pd.Series:
    """Return which of a comparison's ways are those of `with_vision`, (n_ways,) bool."""
    return ways["strategy"].str.contains(SKIPS, regex=False)
