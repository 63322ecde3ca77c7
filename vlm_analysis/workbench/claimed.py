"""The claims of papers on saved work: a comparison, and what was recorded and measured of its model and prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_analysis.selection.compared.claims import claims
from vlm_analysis.selection.criteria.damage import Damage, read_damage
from vlm_analysis.workbench.damages import find_damage
from vlm_analysis.workbench.shelf import open_whole
from vlm_analysis.workbench.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from vlm_analysis.recording.recording import Recording
    from vlm_analysis.selection.compared.comparison import Comparison


def claims_of(shelf: Workspace, comparison: Comparison | None, metric: str | None = None) -> pd.DataFrame:
    """Return the table of `claims`, with the recording and the damage of the prompts that masks were chosen on or reported on."""
    return claims(comparison, *_measured(shelf, comparison), metric=metric)


def _measured(shelf: Workspace, comparison: Comparison | None) -> tuple[Recording | None, Damage | None]:
    if comparison is None:
        return None, None
    model = comparison.dense.model
    for prompts in dict.fromkeys((comparison.chosen_on, comparison.dense.prompts)):
        evaluations = find_damage(shelf, model.fingerprint, prompts)
        items = (one for one in shelf.items("recordings") if (one.model, one.prompts) == (model.fingerprint, prompts))
        recording = next((one for one in map(open_whole, items) if one is not None), None)
        if evaluations and recording is not None:
            return recording, read_damage(evaluations, model)
    return None, None
