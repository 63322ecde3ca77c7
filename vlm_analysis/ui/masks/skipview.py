"""Skip-It?: layers that change vision tokens little and attend to them little, with thresholds set by the user."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.recording.measures import DELTAS
from vlm_analysis.selection.criteria.bands import RULES, SkipBands, skip_bands
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.text import escaped, layer_list
from vlm_analysis.ui.masks.inputs import ScoreInputs, pick_domain

RULE_WORDS = {
    "both": "geometric and proximal",
    "either": "geometric or proximal",
    "geometric": "geometric alone",
    "proximal": "proximal alone",
}


def skip_view(inputs: ScoreInputs) -> None:
    """Draw the thresholds, the curves with the layers they select, and both bands in words."""
    from vlm_analysis.figures.rankings import skip_curves

    st.caption(
        "Skip-It?, arXiv:2509.25584: where vision tokens are redundant and little looked at, they could skip a layer. "
        "Its thresholds are not known to us: all of them are yours, and how the redundancies are joined is our choice."
    )
    limits = _thresholds()
    left, right = st.columns(2)
    rule = left.selectbox(
        "A layer is redundant by",
        list(RULES),
        format_func=RULE_WORDS.__getitem__,
        key="skip_rule",
        persist_state="session",
        help="Geometric: mean 1 − cosine at or below ε. Proximal: share of changed tokens at or below η.",
    )
    domain = pick_domain(
        inputs.recording, "Prompts that count", "candidate_domain", "Whose vision tokens count.", right
    )
    try:
        bands = skip_bands(inputs.recording, **limits, domain=domain, rule=rule)
    except StrataError as error:
        st.caption(escaped(error))
        return
    if not np.isfinite(bands.geometric).any():
        st.info("No prompt of this recording has vision tokens here. Record prompts with an image.")
        return
    shown = {name: limits[name] for name in ("epsilon", "eta", "tau")}
    model = inputs.recording.model
    figure = skip_curves(bands, **shown, locks=model.locks)
    for sentence in _words(bands):
        st.markdown(sentence)
    st.plotly_chart(figure, key="skip-curves", config=PICTURE)
    st.caption(
        "Over vision tokens, x enters the layer and y leaves it. Top: mean 1 − cos(x, y). Then: share of tokens with "
        "1 − cos(x, y) ≥ δ. Below: share of the attention of other tokens that lands on vision tokens. Filled marks lie at or "
        "below the dashed threshold. Shaded: redundant and little looked at; framed: the two bands."
    )
    with st.expander("Numbers"):
        offer_table(_frame(bands), "skip-it")


def _thresholds() -> dict[str, float]:
    containers = [*st.columns(2), *st.columns(2)]
    epsilon = containers[0].slider(
        "ε: mean 1 − cosine at most",
        0.0,
        1.0,
        0.1,
        0.01,
        key="skip_epsilon",
        help="No unit. Layers at or below are geometrically redundant.",
        persist_state="session",
    )
    delta = containers[1].select_slider(
        "δ: a token counts as changed from 1 − cosine",
        DELTAS,
        0.05,
        format_func=lambda value: f"{value:g}",
        key="skip_delta",
        help="No unit. These thresholds are recorded.",
        persist_state="session",
    )
    eta = containers[2].slider(
        "η: share of changed vision tokens at most",
        0.0,
        1.0,
        0.5,
        0.01,
        key="skip_eta",
        help="Of all vision tokens. Layers at or below are proximally redundant.",
        persist_state="session",
    )
    tau = containers[3].slider(
        "τ: visual attention ratio at most",
        0.0,
        1.0,
        0.5,
        0.01,
        key="skip_tau",
        help="Share of attention on vision tokens. Layers above are looked at and stay.",
        persist_state="session",
    )
    return {"epsilon": epsilon, "delta": delta, "eta": eta, "tau": tau}


def _words(bands: SkipBands) -> list[str]:
    """Return what the thresholds select, in sentences."""
    selected = np.flatnonzero(bands.selected).tolist()
    if not selected:
        sentences = ["No layer is selected: raise a threshold."]
    else:
        sentences = [f"Selected: {len(selected)} of {len(bands.selected)} layers: {layer_list(selected)}."]
        late, early = list(bands.late_entry), list(bands.early_exit)
        sentences.append(
            f"**Late entry**: vision tokens could enter behind layer {late[-1]}, and skip layers {layer_list(late)}."
            if late
            else "**Late entry**: none, as the first layer is not selected."
        )
        sentences.append(
            f"**Early exit**: vision tokens could leave before layer {early[0]}, and skip layers {layer_list(early)}."
            if early
            else "**Early exit**: none, as the last layer is not selected or late entry takes all."
        )
    if bands.attention is None:
        sentences.append(
            "The visual attention ratio was not recorded, so that τ decides nothing: record with attention maps on the Similarity "
            "page (Options)."
        )
    return sentences


def _frame(bands: SkipBands) -> pd.DataFrame:
    layers = np.arange(len(bands.geometric))
    frame = pd.DataFrame({"layer": layers, "geometric": bands.geometric, "proximal": bands.proximal})
    frame["visual_attention"] = np.nan if bands.attention is None else bands.attention
    frame["selected"] = bands.selected
    frame["late_entry"], frame["early_exit"] = np.isin(layers, bands.late_entry), np.isin(layers, bands.early_exit)
    return frame
