"""The Overview's way in for data of one's own: bring, take, record, and the heatmap of it."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.incoming import draw_incoming, draw_uploader, is_waiting
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.session import choose_result, model_slot, opened, workspace
from vlm_analysis.ui.common.shell import go_on, say_set_aside
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import BUNDLED, record_work
from vlm_analysis.workbench.workspace import Item

RECORD = "record"
_PROMPTS = "own-data:prompts"


def own_data_card() -> None:
    """Draw the uploader, then what was brought, then the recording of what was taken, and its heatmap."""
    with st.container(border=True):
        st.markdown(
            "**Use your own data.** A table of images with questions in any of the usual formats, alone or with its pictures in a zip or "
            "tar. You see how it is read before it is taken."
        )
        if not is_waiting():
            draw_uploader("Drag a file here, or browse")
        item = draw_incoming()
        if item is not None:
            st.session_state[_PROMPTS] = item.id
            st.rerun()
        prompts = workspace().find("prompts", st.session_state.get(_PROMPTS, ""))
        if prompts is not None and not is_waiting():
            _record(prompts)
        go_on("pages/2_prompts.py", "More ways to bring data, on the Prompts page")


def _record(prompts: Item) -> None:
    """Draw the button that records, its progress, and at the end the heatmap."""
    choose_result("recordings", RECORD)
    info, busy = model_slot().info, (view := current(RECORD)) is not None and view.active
    saved = (one for one in workspace().items("recordings") if one.prompts == prompts.prompts)
    recording = next((one for one in saved if info is None or one.model == info.fingerprint), None)
    if recording is not None:
        _heatmap(recording)
        return
    model = BUNDLED if info is None else info.name
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.markdown(
        f"Next: record how much each layer of **{escaped(model)}** does on **{escaped(prompts.name)}**."
        + (
            " No model is loaded, so the bundled one is; findings on it say nothing about large models."
            * (info is None)
        )
    )
    name = f"{model} on {prompts.name}"
    right.button(
        f"Record with {escaped(model)}",
        type="primary",
        icon=":material/sensors:",
        on_click=start,
        args=(RECORD, f"Recording {name}", record_work(prompts), prompts.id, model),
        disabled=busy,
        width="stretch",
        key="own-record",
        help="One forward pass a prompt. Another model: load it on the Model page first.",
    )
    job_panel(RECORD, "What was recorded so far is kept: record again to go on.")


def _heatmap(item: Item) -> None:
    from vlm_analysis.export.story import domain_rows
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    try:
        recording: Recording = opened(item)
    except StrataError as error:
        st.error(escaped(error))
        return
    say_set_aside(recording.set_aside, recording.n_prompts)
    figure = similarity_heatmap(domain_rows(recording, "all"), recording.domain_names, locks=recording.model.locks)
    st.plotly_chart(
        figure, key="own-heatmap", config=PICTURE, alt="Similarity of each layer's input and output, by domain"
    )
    go_on("pages/3_similarity.py", "Go on to Similarity")
