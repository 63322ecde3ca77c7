"""Which pairs of criterion and strategy can be used with a recording."""

from __future__ import annotations

from typing import Any

from vlm_analysis.errors import StrataError
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.scoring import usable_criteria
from vlm_analysis.selection.strategies.make import make_mask
from vlm_analysis.selection.strategies.strategies import STRATEGIES


def valid_pairs(recording: Recording, **options: Any) -> dict[tuple[str | None, str], str]:
    """Return every pair (criterion, strategy) with "" where it can be used, else with the reason why not.

    The criterion is None for strategies that need no scores. Budgets are not tried: a pair may still refuse a large one.

    Args:
        recording: what was measured.
        options: arguments of `score_layers`: `damage`, `token_group` and so on.
    """
    pairs: dict[tuple[str | None, str], str] = {}
    criteria = usable_criteria(recording, **options)
    for strategy, row in STRATEGIES.items():
        if row.needs == "scores":
            pairs |= {(criterion, strategy): reason for criterion, reason in criteria.items()}
        else:
            pairs[None, strategy] = _why_not(strategy, recording)
    return pairs


def _why_not(strategy: str, recording: Recording) -> str:
    """Return why the strategy cannot drop one layer of this recording's model with nothing protected, or ""."""
    try:
        make_mask(None, strategy, min(1, recording.n_layers - 1), recording=recording, protected=())
    except StrataError as error:
        return str(error)
    return ""
