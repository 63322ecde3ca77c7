"""The Similarity page's pictures of one recording."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.measures import TOKEN_GROUPS
from vlm_analysis.recording import Recording
from vlm_analysis.story import domain_rows
from vlm_analysis.ui.text import GROUP_HELP, escaped

PLAIN = {"displayModeBar": False}


def token_group(key: str) -> str:
    """Draw the switch between token groups and say what the chosen one holds."""
    order = ["all", *(group for group in TOKEN_GROUPS if group != "all")]
    group = st.segmented_control(
        "Tokens", order, default="all", required=True, key=key, help="Which tokens the cosine is averaged over."
    )
    st.caption(f"{group}: {GROUP_HELP[group]}")
    return group


def heatmap(recording: Recording) -> str:
    """Draw layers × domains for a token group chosen on the spot; returns the group."""
    from vlm_analysis.figures import similarity_heatmap

    group = token_group("similarity_group")
    figure = similarity_heatmap(
        domain_rows(recording, group),
        recording.domain_names,
        protected=recording.model.protected,
        locked=recording.model.locked,
    )
    st.plotly_chart(figure, key="similarity-heatmap", config=PLAIN)
    st.caption(
        "Cosine of a layer's true input and raw output in float32, mean over a prompt's tokens, then over prompts with equal "
        "weight. The colours are the same for every model and recording, so that two pictures compare. "
        "P marks layers that should stay."
    )
    return group


def missing_tokens(recording: Recording, group: str) -> None:
    """Say which prompts could not be counted, and where numbers were not finite."""
    absent = recording.n_prompts - recording.prompts_with(None, group)
    if absent:
        st.caption(f"{absent} of {recording.n_prompts} prompts have no token of the group “{group}” and are left out.")
    broken = int(recording.rows["nonfinite"].sum())
    if broken:
        layers = np.flatnonzero(recording.rows["nonfinite"].sum(axis=0))
        st.warning(
            f"{broken} token cosines were not finite, in layers {layers.tolist()}. They are shown as missing, not replaced."
        )


def contrast(recording: Recording, group: str) -> None:
    """Draw the difference of two domains, chosen on the spot."""
    from vlm_analysis.figures import difference_heatmap

    names = list(recording.domain_names)
    st.markdown("**Where two domains part**")
    if len(names) < 2:
        st.caption("There is one domain in this recording; record prompts of two to compare them.")
        return
    left, right = st.columns(2)
    one = left.selectbox("Domain", names, index=0, key="contrast_one")
    other = right.selectbox("minus domain", names, index=1, key="contrast_other")
    gap = recording.layer_similarity(one, group) - recording.layer_similarity(other, group)
    st.plotly_chart(difference_heatmap(gap[None], [f"{one} − {other}"]), key="similarity-contrast", config=PLAIN)
    st.caption(f"Blue: the layer works harder on {escaped(one)} prompts. Orange: harder on {escaped(other)} prompts.")


def table(recording: Recording, group: str) -> None:
    """Draw the numbers, sortable, with a download."""
    frame = pd.DataFrame({name: recording.layer_similarity(name, group) for name in recording.domain_names})
    frame.index.name = "layer"
    with st.expander("The numbers"):
        st.dataframe(frame, width="stretch")
        st.download_button(
            "Download as CSV", frame.to_csv(), f"layer-similarity-{group}.csv", "text/csv", on_click="ignore"
        )
