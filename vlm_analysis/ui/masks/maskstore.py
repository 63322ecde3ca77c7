"""The Masks page's lower half: start from a mask, name and save the edited one, compare two, open a file."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.errors import StrataError
from vlm_analysis.export.dialects import SUFFIXES, open_dialect
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.editor import CANDIDATES, note_saved, remember, take_mask
from vlm_analysis.ui.common.pickers import agree_on_model, described, edited_mask, open_or_stop
from vlm_analysis.ui.common.sameline import layers_text, line_of, recording_id, same_line
from vlm_analysis.ui.common.session import choose, workspace
from vlm_analysis.ui.common.text import edit_line, escaped, layer_list
from vlm_analysis.workbench.details import is_mask
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Item


def start_from(masks: dict[str, Edit], recording: Recording) -> None:
    """Draw the choice of a candidate or saved mask to go on from."""
    saved = {item.id: item for item in _fitting(recording.n_layers)}
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    picked = left.selectbox(
        "Start from",
        [*masks, *saved],
        format_func=lambda key: described(saved[key]) if key in saved else key,
        key="start_from",
        help="A candidate of above, or a saved mask.",
    )
    if picked is None:
        return
    mask = masks[picked] if picked in masks else open_or_stop(saved[picked])
    allowed = picked in masks or agree_on_model(mask.model, recording.model, "This mask", "start")
    right.button("Load into the editor", on_click=take_mask, args=(mask,), disabled=not allowed, width="stretch")


def save_form() -> None:
    """Draw name, notes and the buttons that keep the edited mask or hand out its file."""
    left, right = st.columns(2)
    left.text_input("Name", key="mask_name", persist_state="session", max_chars=120, placeholder="mask to try first")
    right.text_input("Notes", key="mask_notes", persist_state="session", max_chars=2000, placeholder="why these layers")
    remember()
    mask = edited_mask()
    left, right, _ = st.columns([1, 1, 3])
    clicked = left.button(
        "Save mask", type="primary", icon=":material/save:", disabled=mask is None or not mask.budget, width="stretch"
    )
    if mask is not None and mask.budget:
        details = {"name": mask.name, "notes": mask.notes}
        same_line(line_of("mask", recording_id(), model=False, drop=layers_text(mask), **details))
    if clicked and mask is not None:
        mask_with_name = replace(mask, name=mask.name or f"drops {layer_list(mask.dropped)}")
        try:
            choose("masks", keep_mask(workspace(), mask_with_name))
            note_saved(mask)
            st.toast("Mask saved.", icon=":material/check:")
        except StrataError as error:
            st.error(escaped(error))


def compare_two(n_layers: int) -> None:
    """Draw the difference of two masks: the edited one, the candidates as last drawn, the saved ones."""
    from vlm_analysis.figures.heatmaps import edit_strips

    edited, saved = edited_mask(), {item.id: item for item in _fitting(n_layers)}
    options: dict[str, Edit] = {} if edited is None else {"in the editor": edited}
    options |= st.session_state.get(CANDIDATES, {})
    options |= {key: PruneMask(n_layers, item.details.get("dropped", ())) for key, item in saved.items()}
    if not options:
        st.caption("There is nothing to compare yet.")
        return
    keys = list(options)

    def words(key: str) -> str:
        return described(saved[key]) if key in saved else key

    left, right = st.columns(2)
    one = left.selectbox("One mask", keys, index=0, format_func=words, key="diff_one")
    other = right.selectbox("The other", keys, index=min(1, len(keys) - 1), format_func=words, key="diff_other")
    a, b = set(options[one].dropped), set(options[other].dropped)
    strips = edit_strips([(words(key), options[key]) for key in (one, other)], n_layers)
    st.plotly_chart(strips, key="mask-diff", config={"displayModeBar": False})
    st.text(
        f"Both drop: {layer_list(sorted(a & b))}\nOnly the first drops: {layer_list(sorted(a - b))}\n"
        f"Only the second drops: {layer_list(sorted(b - a))}"
    )


def _fitting(n_layers: int) -> list[Item]:
    items = workspace().items("masks")
    return [item for item in items if item.details.get("n_layers") == n_layers and is_mask(item.details)]


def open_file(recording: Recording) -> None:
    """Draw an uploader for a mask file of any dialect and take what it holds into the editor on a click."""
    file = st.file_uploader(
        "Open a mask file",
        type=[suffix.removeprefix(".") for suffix in SUFFIXES],
        max_upload_size=1,
        help="JSON as Strata writes it, a mergekit or Puzzletron configuration that leaves layers out, a list of layers (optipfair, "
        "llama.cpp's --prune-layers), or a CSV with the columns layer, kept and, if known, drop_order.",
    )
    if file is None:
        return
    from_one = file.name.lower().endswith(".csv") and st.checkbox(
        "The file counts layers from 1",
        key="file_from_one",
        help="They are converted once, here. Strata counts from 0.",
    )
    try:
        mask = open_dialect(file.getvalue(), file.name, n_layers=recording.n_layers, from_one=from_one)
    except StrataError as error:
        st.error(escaped(error))
        return
    if mask.n_layers != recording.n_layers:
        st.error(f"The mask is for {mask.n_layers} layers; this recording's model has {recording.n_layers}.")
        return
    allowed = agree_on_model(mask.model, recording.model, "This mask", "file")
    if (tool := mask.provenance.get("opened_from")) is not None:
        st.caption(f"Read as a file of {escaped(tool)}.")
    if (source := mask.provenance.get("source")) is not None:
        st.caption(f"The file names the model {escaped(source)}; the recording is of {escaped(recording.model.name)}.")
    st.text(edit_line(mask))
    st.button(f"Take its {mask.budget} layers into the editor", on_click=take_mask, args=(mask,), disabled=not allowed)
