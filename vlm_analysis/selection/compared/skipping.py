"""Ways of a Comparison in which vision tokens skip layers, beside dropped layers or alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from vlm_analysis.selection.strategies.many import SKIPS
from vlm_analysis.words import counted

if TYPE_CHECKING:
    from vlm_analysis.selection.compared.comparison import Comparison


def is_skipping(ways: pd.DataFrame) -> pd.Series:
    """Return which of a comparison's ways are those of `with_vision`, (n_ways,) bool."""
    return ways["strategy"].str.contains(SKIPS, regex=False)


def taken_line(comparison: Comparison) -> str:
    """Return which edits of a scan a comparison holds, alone and beside its masks; "" without any."""
    ways = comparison.ways
    alone = ways[is_skipping(ways) & (ways["budget"] == 0)]
    edits = list(dict.fromkeys(comparison.masks[place].words() for place in alone["place"]))
    if not edits:
        return ""
    return (
        f"Vision tokens skip layers in {counted(len(edits), 'edit')} of a scan, alone and beside every mask: {'; '.join(edits)}. They are "
        "of the scan's front of KL over FLOPs, and keep most answers there."
    )
