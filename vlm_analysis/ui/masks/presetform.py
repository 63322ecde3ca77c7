"""The preset of the candidates: every choice of arXiv:2603.20275 at once, and what of it is ours."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.recording.tasks import lacks_pooled
from vlm_analysis.selection.strategies.domain_aware import (
    DOMAIN_AWARE,
    READINGS,
    SHARES,
    TITLE,
    WEIGHT,
    count_dropped,
    deepstack_layers,
    domain_aware_mask,
)
from vlm_analysis.ui.common.editor import locked_by_user
from vlm_analysis.ui.common.inputs import ScoreInputs, forget_unknown
from vlm_analysis.ui.common.sameline import line_of, recording_id, same_line
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, layers

WHOSE = (
    "**The paper's:** all prompt tokens; z over all layers but the first and the last, so DeepStack layers may go; a share of "
    "them, rounded down, goes; mixed gives 0.7 to the other domains; CKA and Interlace on one mean state a task. **Ours:** several"
    " other domains are their mean; ties go to the lower layer; where Interlace runs out of triplets, pairs and then single layers"
    " follow. The paper trains every pruned model afterwards, and tells deltas against the dense model as it was; nothing is "
    "trained here."
)


def asks_preset() -> bool:
    """Draw the switch between the preset and a strategy of one's own; return whether the preset is asked for."""
    return bool(
        st.toggle(
            TITLE,
            key="candidate_preset",
            persist_state="session",
            help="Sets tokens, z-scores, number of layers, weight and baselines at once as the paper has them.",
        )
    )


def preset_candidates(inputs: ScoreInputs) -> tuple[dict[str, Edit], list[tuple[str, str]]]:
    """Draw what the preset still asks; return a mask for each reading by its name on screen, and why others are missing."""
    recording, n_layers = inputs.recording, inputs.recording.n_layers
    st.markdown(WHOSE)
    if n_layers < 3:
        return {}, [
            (TITLE, "No layer is pruneable: the first and the last stay. Load a model of three layers at least.")
        ]
    forget_unknown("candidate_target", recording.domain_names)
    left, right = st.columns(2)
    target = left.selectbox(
        "Target domain",
        recording.domain_names,
        key="candidate_target",
        persist_state="session",
        help="“Math” in the paper: the domain whose answers should survive.",
    )
    share = right.segmented_control(
        "Share of the pruneable layers",
        SHARES,
        default=0.25,
        required=True,
        format_func=lambda one: f"{one:.0%}: {counted(count_dropped(n_layers, one), 'layer')}",
        key=f"candidate_share_of:{n_layers}",
        help=f"Of {n_layers - 2}, all but the first and the last; rounded down.",
    )
    keep_deepstack = _ask_deepstack(inputs)
    options: dict[str, Any] = {"target": target, "keep_deepstack": keep_deepstack}
    masks: dict[str, Edit] = {}
    refused: list[tuple[str, str]] = []
    lines: list[str] = []
    for key, row in READINGS.items():
        title = f"{row.title} ({target})" if row.of_target else row.title
        try:
            masks[title] = domain_aware_mask(recording, key, share, **options, keep=locked_by_user())
            lines.append(_line(key, share, options))
        except StrataError as error:
            refused.append((title, str(error)))
    if not locked_by_user():
        same_line(*lines)
    if lacks_pooled(recording):
        st.caption(
            "CKA and Interlace over tasks need the mean state of each task: record these prompts again for them."
        )
    return masks, refused


def _line(reading: str, share: float, options: dict[str, Any]) -> str:
    name = reading.removeprefix(f"{DOMAIN_AWARE}-")
    arguments = {"preset": DOMAIN_AWARE, "ranking": name, "budget": share, "weight": WEIGHT, **options}
    return line_of("mask", recording_id(), model=False, **arguments)


def _ask_deepstack(inputs: ScoreInputs) -> bool:
    """Draw the switch that keeps DeepStack layers, where there are any, and say what the paper does."""
    added = deepstack_layers(inputs.recording.model)
    if not added:
        return False
    return bool(
        st.checkbox(
            "Keep DeepStack layers (ours)",
            key="candidate_keep_deepstack",
            persist_state="session",
            help=escaped(
                f"After {layers(added)} vision features are added. The paper protects the first and the last layer only, so these may go; "
                "kept, as many others go in their place."
            ),
        )
    )
