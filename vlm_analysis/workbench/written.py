"""What models wrote, wherever it was kept: with evaluations, and with comparisons, which tell stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.stale import is_stale
from vlm_analysis.workbench.workspace import Item, Workspace


def written_responses(
    shelf: Workspace, model: str, prompts: str, edit: Edit, opened: Callable[[Item], Any] = open_item
) -> dict[str, str]:
    """Return by prompt what the model wrote with an edit, of all that is saved on these prompts; the newest counts.

    Args:
        model, prompts: fingerprints.
        opened: returns the value of an item.
    """
    items = [one for one in shelf.items("evaluations") if edit_key(one.details) == edit.key]
    items = [one for one in (*items, *shelf.items("comparisons")) if (one.model, one.prompts) == (model, prompts)]
    written: dict[str, str] = {}
    for item in sorted(items, key=lambda one: one.id):
        if is_stale(shelf, item):
            continue
        try:
            value = opened(item)
        except StrataError:
            continue
        frame = _of_comparison(value, edit) if isinstance(value, Comparison) else _of_evaluation(value)
        written |= dict(zip(frame["id"], frame["response"], strict=True))
    return written


def _of_evaluation(evaluation: Evaluation) -> pd.DataFrame:
    return evaluation.by_prompt.reindex(columns=["id", "response"]).dropna()


def _of_comparison(comparison: Comparison, edit: Edit) -> pd.DataFrame:
    rows = comparison.responses
    if edit.is_dense:
        return rows.rename(columns={"dense": "response"})
    places = [place for place, mask in enumerate(comparison.masks) if mask.key == edit.key]
    return rows[rows["place"].isin(places)].rename(columns={"edited": "response"})
