"""The Similarity page's picture of the layers of the vision encoder, by domain."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vlm_analysis.model_info import TowerInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.tower import tower_similarity
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import by_reason, layers as layer_words, sentence


def tower_heatmap(recording: Recording) -> None:
    """Draw the similarity of layers of the vision encoder by domain, and say which stay and why; else say why there is none."""
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    st.markdown("**Vision encoder**")
    tower = recording.model.tower
    values = np.stack([tower_similarity(recording, domain) for domain in recording.domain_names])
    if tower is None or np.isnan(values).all():
        st.caption(_absent(recording))
        return
    st.plotly_chart(
        similarity_heatmap(values, recording.domain_names, locks=tower.locks, of="vision encoder layer (from 0)"),
        key="tower-heatmap",
        config=PICTURE,
        alt="Similarity of input and output of each layer of the vision encoder, by domain",
    )
    explained(
        "[[similarity|Cosine]] of what enters and what leaves each layer of the vision encoder, which reads pictures; mean "
        "over its tokens of a prompt, then over prompts with equal weight. The colours are those of the decoder's layers, on the fixed "
        "scale. The choice of tokens changes nothing here. L marks [[locked|locked layers]], P those that should stay."
    )
    if reasons := _reasons(tower):
        st.caption(escaped(" ".join(reasons)))


def _absent(recording: Recording) -> str:
    tower = recording.model.tower
    if tower is not None and tower.missing:
        return f"This recording has no numbers of the vision encoder: {escaped(tower.missing)}."
    if tower is None:
        return "This recording is older than the measure of the vision encoder's layers. Record again to see them."
    return (
        "This recording has no numbers of the vision encoder: its prompts have no image, or it is not known which tokens of a batch are "
        "whose. Record prompts with images, with a batch size of 1."
    )


def _reasons(tower: TowerInfo) -> list[str]:
    """Return a sentence for each reason for which layers stay, locked ones first, and one for those that nothing reads."""
    said: list[str] = []
    for kind, reasons in (("locked", tower.locked), ("protected", tower.protected)):
        for reason, layers in by_reason(reasons).items():
            said.append(f"{sentence(layer_words(layers))} {'is' if len(layers) == 1 else 'are'} {kind}: {reason}.")
    if tower.unread:
        verb = "runs" if len(tower.unread) == 1 else "run"
        said.append(f"{sentence(layer_words(tower.unread))} {verb} for nothing: nothing reads the output.")
    return said
