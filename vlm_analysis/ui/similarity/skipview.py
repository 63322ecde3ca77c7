"""Skip-It?: layers that change vision tokens little and attend to them little, with thresholds set by the user."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.scan import VisionScan
from vlm_analysis.recording.answerprobe import AnswerProbe
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.certainty.conditions import conditions_against_damage
from vlm_analysis.selection.criteria.bands import RULES, SkipBands, skip_bands
from vlm_analysis.selection.criteria.redundancy import redundancies
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.inputs import ScoreInputs, pick_delta, pick_domain
from vlm_analysis.ui.common.text import escaped, layer_list
from vlm_analysis.ui.similarity.probeview import draw_probe, key_of, probe_of
from vlm_analysis.ui.similarity.scanview import damage_of, draw_scan, scan_of
from vlm_analysis.words import counted

RULE_WORDS = {
    "both": "geometric and proximal",
    "either": "geometric or proximal",
    "geometric": "geometric alone",
    "proximal": "proximal alone",
}


def skip_view(inputs: ScoreInputs) -> None:
    """Draw the thresholds, the curves with the layers they select and measured damage, both bands in words, scan and probe."""
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
    _draw_bands(inputs, bands, limits, rule, domain)


def _draw_bands(inputs: ScoreInputs, bands: SkipBands, limits: dict[str, float], rule: str, domain: str | None) -> None:
    """Draw what the thresholds select, in words and as curves, beside what a scan has measured."""
    from vlm_analysis.figures.skipping import skip_curves

    shown = {name: limits[name] for name in ("epsilon", "eta", "tau")}
    recording = inputs.recording
    scan = scan_of(recording)
    try:
        damage = {} if scan is None else damage_of(scan, domain)
    except StrataError as error:  # the model refused all prompts of this domain
        st.caption(escaped(error))
        scan, damage = None, {}
    probe = probe_of(recording)
    of_text = redundancies(recording, domain=domain, delta=limits["delta"]).loc["text"]
    text = {name: of_text[name].to_numpy(np.float64) for name in ("geometric", "proximal")}
    figure = skip_curves(bands, **shown, text=text, damage=damage, locks=recording.model.locks)
    for sentence in _words(bands):
        st.markdown(sentence)
    if scan is not None:
        of_domain = probe if probe is not None and domain in (None, *probe.domains) else None
        key = repr((inputs.numbers_key, limits, rule, scan.form, scan.prompts, key_of(of_domain)))
        for sentence in _do_they_predict(key, recording, scan, of_domain, bands, domain, limits["delta"]):
            st.markdown(escaped(sentence))
    st.plotly_chart(
        figure,
        key="skip-curves",
        config=PICTURE,
        alt="Change, share of changed tokens and attention to vision tokens, by layer",
    )
    st.caption(
        "Over vision tokens, x enters the layer and y leaves it; dotted: the same over text tokens. Top: mean 1 − cos(x, y). Then: "
        "share of tokens with "
        "1 − cos(x, y) ≥ δ. Below: share of the attention of other tokens that lands on vision tokens. Filled marks lie at or "
        "below the dashed threshold. Shaded: redundant and little looked at; framed: the two bands."
        + (" At the bottom: what skipping does to the answers, KL(dense ‖ edited), measured." if damage else "")
    )
    with st.expander("Numbers"):
        offer_table(_frame(bands), "skip-it", alt="What the bands are made of, by layer")
    draw_scan(recording, scan, bands, domain)
    draw_probe(recording, probe, domain)


@st.cache_resource(show_spinner=False, max_entries=64)
def _do_they_predict(
    key: str,
    _recording: Recording,
    _scan: VisionScan,
    _probe: AnswerProbe | None,
    _bands: SkipBands,
    domain: str | None,
    delta: float,
) -> tuple[str, ...]:
    """Return in sentences whether the conditions tell where skipping does harm; kept between script runs by the key."""
    return conditions_against_damage(_recording, _scan, _probe, bands=_bands, domain=domain, delta=delta).sentences


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
    delta = pick_delta(containers[1], "skip_delta", "No unit. These thresholds are recorded.")
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
        sentences = [f"Selected: {len(selected)} of {counted(len(bands.selected), 'layer')}: {layer_list(selected)}."]
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
