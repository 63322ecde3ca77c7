"""Score the layers of the vision encoder by a recording, and choose which go."""

from __future__ import annotations

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.errors import MaskError, short
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.towertable import tower_similarity
from vlm_analysis.words import counted


def score_tower(recording: Recording, domain: str | None = None) -> np.ndarray:
    """Return the (n_tower,) float64 block influence of each layer of the vision encoder: 1 − cosine of its input and output.

    The least goes first. A layer whose output nothing reads has 0, as it changes nothing that counts. Of the vision encoder this is our
    choice; the measure is ShortGPT's (arXiv:2403.03853).

    Args:
        recording: what was measured.
        domain: whose prompts count; None for all.

    Raises:
        MaskError: the recording has no similarity of the vision encoder, with the reason.
        RecordingError: an unknown domain.
    """
    tower, similarity = recording.model.tower, tower_similarity(recording, domain)
    if tower is None or np.isnan(similarity).all():
        reason = "" if tower is None or not tower.missing else f" ({tower.missing})"
        raise MaskError(
            f"The vision encoder cannot be scored: expected its similarity in the recording, got none{reason}. Record again, prompts with "
            "images."
        )
    scores = 1 - similarity
    scores[list(tower.unread)] = 0.0
    return scores


def tower_order(recording: Recording, domain: str | None = None, *, unprotect: bool = False) -> list[int]:
    """Return the layers of the vision encoder that may go, the least block influence first; ties to the lower number.

    Args:
        recording, domain: as in `score_tower`.
        unprotect: whether protected layers may go.

    Raises:
        MaskError, RecordingError: as `score_tower`.
    """
    scores, tower = score_tower(recording, domain), recording.model.tower
    assert tower is not None  # else it has no scores
    free = [layer for layer in tower.locks.keeping(unprotect=unprotect).free if not np.isnan(scores[layer])]
    return sorted(free, key=lambda layer: (scores[layer], layer))


def make_tower(recording: Recording, budget: int, *, domain: str | None = None, unprotect: bool = False) -> Edit:
    """Return the Edit that drops the `budget` layers of the vision encoder with the least block influence; ties to the lower number.

    Args:
        recording, domain: as in `score_tower`.
        budget: layers to drop.
        unprotect: whether protected layers may go.

    Raises:
        MaskError: as `score_tower`, or fewer layers than the budget may go.
        RecordingError: an unknown domain.
    """
    order, tower = tower_order(recording, domain, unprotect=unprotect), recording.model.tower
    assert tower is not None  # else it has no order
    if not is_whole(budget) or not 0 <= budget <= min(len(order), tower.n_layers - 1):
        raise MaskError(
            f"The budget does not fit the vision encoder: expected a whole number of its layers, {counted(len(order), 'layer')} of "
            f"{tower.n_layers} may go, got {short(repr(budget), 80)}. Lower it, or let protected layers go."
        )
    provenance = {"criterion": "block-influence", "of": "vision encoder", "budget": int(budget), "domain": domain}
    return Edit(
        recording.n_layers,
        (Tower(tower.n_layers, tuple(order[:budget])),),
        name=f"vision encoder, block-influence, {budget}",
        model=recording.model,
        provenance=provenance | {"recording_prompts": recording.prompts},
    )
