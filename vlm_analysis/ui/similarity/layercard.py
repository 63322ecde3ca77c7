"""One layer closely: its measures by domain and token group, the prompts it changes most and least, and "cut in the editor"."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.tables import measure_table
from vlm_analysis.recording.towertable import ENCODER
from vlm_analysis.ui.common.editor import begin_editing, locked_by_user, set_mask
from vlm_analysis.ui.common.inputs import unprotected
from vlm_analysis.ui.common.promptcard import draw_prompt
from vlm_analysis.ui.common.session import opened, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.similarity.titles import MEASURE_TITLES
from vlm_analysis.words import counted

LAYER = "similarity_layer"  # the layer whose card is open
SHOWN = 3  # prompts on each side


def take_layer(chart: str) -> None:
    """Open the card of the layer whose column was clicked in a chart; close it where the click took the choice back."""
    points = dict(st.session_state.get(chart) or {}).get("selection", {}).get("points", [])
    st.session_state[LAYER] = int(points[0]["x"]) if points else None


def layer_card(recording: Recording, group: str) -> None:
    """Draw the choice of a layer, and the card of the one that is chosen."""
    if (st.session_state.get(LAYER) or 0) >= recording.n_layers:
        st.session_state[LAYER] = None
    layer = st.selectbox(
        "Look at a layer",
        range(recording.n_layers),
        index=None,
        format_func=lambda number: f"layer {number}",
        key=LAYER,
        placeholder="Click a column above, or choose one here",
    )
    if layer is None:
        return
    with st.container(border=True, key="layer_card"):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown(f"**Layer {layer}** of {recording.n_layers}")
        _cut_button(recording, layer, right)
        _measures(recording, layer, group)
        _prompts(recording, layer, group)


def _cut_button(recording: Recording, layer: int, container: st.delta_generator.DeltaGenerator) -> None:
    """Draw the button that cuts the layer in the mask editor and goes there."""
    begin_editing(recording.model)
    locks = recording.model.locks.keeping(locked_by_user(), unprotect=unprotected())
    reason = locks.reasons.get(layer, "")
    is_cut = layer in st.session_state.mask
    clicked = container.button(
        "It is cut in the editor" if is_cut else "Cut in the editor",
        key="cut_layer",
        icon=":material/content_cut:",
        disabled=bool(reason) or is_cut,
        help=f"It stays: {reason}." if reason else "Adds the layer to the mask on the Masks page, and goes there.",
        width="stretch",
    )
    if clicked:
        set_mask([*st.session_state.mask, layer], locked_by_user())
        st.switch_page("pages/4_masks.py")


def _measures(recording: Recording, layer: int, group: str) -> None:
    """Draw the similarity by domain and token group, and every measure of the chosen group by domain."""
    table = _table(recording.prompts + recording.model.fingerprint + str(recording.settings), recording)
    here = table[(table["layer"] == layer) & (table["token_group"] != ENCODER)]
    similarity = here.pivot_table(index="token_group", columns="domain", values="cosine", sort=False, observed=True)
    names = [name for name in MEASURE_TITLES if name in here]
    chosen = here[here["token_group"] == group].set_index("domain")[names]
    overall = here[here["token_group"] == "all"].set_index("domain")[names]
    measures = chosen.fillna(overall).T.rename(index=MEASURE_TITLES)
    left, right = st.columns(2)
    left.caption("Cosine similarity by token group")
    left.dataframe(_as_text(similarity, ".4f"), width="stretch", alt="The layer's similarity by token group and domain")
    right.caption(f"Measures over {escaped(group)} tokens" + "; those without token groups over all" * (group != "all"))
    right.dataframe(_as_text(measures.dropna(how="all"), ".4g"), width="stretch", alt="The layer's measures by domain")


def _as_text(frame: pd.DataFrame, form: str) -> pd.DataFrame:
    frame = frame.rename_axis(index=None, columns=None)
    return frame.map(lambda value: "not measured" if pd.isna(value) else format(value, form))


@st.cache_resource(show_spinner=False, max_entries=4)
def _table(key: str, _recording: Recording) -> pd.DataFrame:
    return measure_table(_recording)


def _prompts(recording: Recording, layer: int, group: str) -> None:
    """Draw the prompts whose tokens the layer turns most and least, with their pictures."""
    values = recording.prompt_similarity(None, group)[:, layer].astype(np.float64)
    order = [int(index) for index in np.argsort(values, kind="stable") if np.isfinite(values[index])]
    if not order:
        st.caption(f"No prompt has tokens of the group “{group}” here.")
        return
    there = prompts_of_recording(recording)
    count = min(SHOWN, max(1, len(order) // 2))
    sides = [("Changes most", order[:count])]
    if len(order) > 1:
        sides.append(("Changes least", order[::-1][:count]))
    for title, indices in sides:
        st.markdown(f"**{title}**, of {counted(len(order), 'prompt')}")
        for column, index in zip(st.columns(SHOWN), indices, strict=False):
            with column, st.container(border=True, height="stretch"):
                name = recording.prompt_ids[index]
                st.caption(f"cosine {values[index]:.4f}")
                if name in there:
                    draw_prompt(there[name])
                else:
                    st.text(f"{name}\n{recording.domains[index]}")
    if not there:
        st.caption(
            "The prompt set of this recording is not in the workspace, so questions and pictures cannot be shown."
        )


def prompts_of_recording(recording: Recording) -> dict[str, Prompt]:
    """Return the prompts that were recorded by their ids; {} where their set is not saved, or damaged."""
    for item in workspace().items("prompts"):
        if item.prompts == recording.prompts:
            try:
                return {str(prompt.id): prompt for prompt in opened(item)}
            except StrataError:
                return {}
    return {}
