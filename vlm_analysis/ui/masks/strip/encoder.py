"""The vision encoder's layers below the strip, as JSON values: their similarity, which stay and why, and in which order others go."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlm_analysis.model_info import TowerInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.towertable import tower_similarity
from vlm_analysis.selection.tower import tower_order
from vlm_analysis.ui.common.towers import absent, reasons
from vlm_analysis.ui.masks.strip.content import strip_rows


def encoder_rows(recording: Recording, tower: TowerInfo, *, unprotect: bool = False) -> dict[str, Any]:
    """Return what is drawn of the vision encoder's layers; `order` is that in which `make_tower` drops them.

    Args:
        recording: whose similarity is drawn, of all prompts.
        tower: of the model; an older recording may not tell it.
        unprotect: whether protected layers may go.
    """
    similarity = tower_similarity(recording)
    known = similarity.size == tower.n_layers and not np.isnan(similarity).all()
    order = tower_order(recording, unprotect=unprotect) if known else []
    values = similarity if known else np.full(tower.n_layers, np.nan)
    why = "" if order else "No layer may go." if known else absent(recording)
    said = [*reasons(tower), *([] if known else [absent(recording)])]
    return {
        **strip_rows(values[None], ["similarity"]),
        "locked": {str(layer): reason for layer, reason in tower.locked.items()},
        "protected": {str(layer): reason for layer, reason in tower.protected.items()},
        "unread": list(tower.unread),
        "order": order,
        "why": why,
        "guarded": " ".join(said),
    }
