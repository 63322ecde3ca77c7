"""The Similarity page's picture of the layers of the vision encoder, by domain."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.towertable import tower_similarity
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.towers import absent, reasons


def tower_heatmap(recording: Recording) -> None:
    """Draw the similarity of layers of the vision encoder by domain, and say which stay and why; else say why there is none."""
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    st.markdown("**Vision encoder**")
    tower = recording.model.tower
    values = np.stack([tower_similarity(recording, domain) for domain in recording.domain_names])
    if tower is None or np.isnan(values).all():
        st.caption(escaped(absent(recording)))
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
    if said := reasons(tower):
        st.caption(escaped(" ".join(said)))
