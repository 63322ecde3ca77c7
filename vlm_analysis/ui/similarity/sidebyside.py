"""The Similarity page's comparison of several recordings, of the same or of different models, on relative depth."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.address import follow, tell
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.pickers import described
from vlm_analysis.ui.common.session import opened, shown_items, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.similarity.titles import CKA, MEASURE_TITLES
from vlm_analysis.words import total_of_domains


def side_by_side(current_id: str, group: str) -> None:
    """Draw one line a recording for a measure and a domain."""
    from vlm_analysis.figures.recorded import depth_profile

    items = {item.id: item for item in workspace().items("recordings")}
    if len(items) < 2:
        st.caption("There is one recording. Record another model, or other prompts, to see them side by side.")
        return
    own = [item.id for item in shown_items("recordings") if item.id != current_id]
    picked = st.multiselect(
        "Recordings",
        list(items),
        default=[current_id, *own[:1]],
        format_func=lambda item_id: described(items[item_id]),
        max_selections=6,
        key="compare_recordings",
    )
    whole = {item_id: recording for item_id in picked if (recording := _opened(item_id)) is not None}
    left, right = st.columns(2)
    domains = list(dict.fromkeys(name for recording in whole.values() for name in recording.domain_names))
    total = total_of_domains(domains)
    follow("domain", "compare_domain", domains)
    domain = left.selectbox("Domain", ["", *domains], format_func=lambda name: name or total, key="compare_domain")
    known = [name for name in MEASURE_TITLES if name not in ("changed", "important_cosine")]
    follow("metric", "compare_measure", known)
    measure = right.selectbox("Measure", known, format_func=MEASURE_TITLES.__getitem__, key="compare_measure")
    tell("domain", domain)
    tell("metric", measure)
    series = {}
    for number, (item_id, recording) in enumerate(whole.items()):
        name = domain or None
        if name is not None and name not in recording.domain_names:
            st.caption(f"{escaped(items[item_id].name)} has no prompts of {escaped(domain)} and is left out.")
            continue
        values = recording.linear_cka(name, group) if measure == CKA else recording.layer_values(measure, name, group)
        series[f"{number + 1}. {items[item_id].name} ({recording.model.name}, {recording.n_layers} layers)"] = values
    if series:
        st.plotly_chart(
            depth_profile(series, measure),
            key="compare-profile",
            config=PICTURE,
            alt=f"{MEASURE_TITLES[measure]} over depth, by recording",
        )
        st.caption(
            "Layer 0 stands at depth 0 and the last layer at depth 1, so that models of different depth share an axis."
        )


def _opened(item_id: str) -> Recording | None:
    item = workspace().find("recordings", item_id)
    try:
        return opened(item) if item is not None else None
    except StrataError as error:
        st.error(escaped(error))
        return None
