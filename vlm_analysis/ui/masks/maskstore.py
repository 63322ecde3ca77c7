"""Name and save the mask in the editor, and open the file of one."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.errors import MaskError, StrataError
from vlm_analysis.export.dialects import SUFFIXES, open_dialect
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.editor import note_saved, remember, take_mask
from vlm_analysis.ui.common.held import fits_editor, tower_of
from vlm_analysis.ui.common.pickers import agree_on_model, edited_mask
from vlm_analysis.ui.common.sameline import layers_text, line_of, recording_id, same_line
from vlm_analysis.ui.common.session import choose, workspace
from vlm_analysis.ui.common.text import does, edit_line, escaped
from vlm_analysis.words import counted
from vlm_analysis.workbench.shelf import keep_mask

SAVED = "mask_saved"  # whether that is still to be said


def save_form() -> None:
    """Draw name, notes and the button that keeps the edited mask; then the whole page runs again, with the mask among the saved ones."""
    if st.session_state.pop(SAVED, False):
        st.toast("Mask saved.", icon=":material/check:")
    left, right = st.columns(2)
    left.text_input("Name", key="mask_name", persist_state="session", max_chars=120, placeholder="mask to try first")
    right.text_input("Notes", key="mask_notes", persist_state="session", max_chars=2000, placeholder="why these layers")
    remember()
    mask = edited_mask()
    left, right, _ = st.columns([1, 1, 3])
    clicked = left.button(
        "Save mask", type="primary", icon=":material/save:", disabled=mask is None or mask.is_dense, width="stretch"
    )
    if mask is not None and not mask.is_dense:
        same_line(_line(mask))
    if clicked and mask is not None:
        mask_with_name = replace(mask, name=mask.name or does(mask)[:120])
        try:
            choose("masks", keep_mask(workspace(), mask_with_name))
            note_saved(mask)
        except StrataError as error:
            st.error(escaped(error))
        else:
            st.session_state[SAVED] = True
            st.rerun()


def _line(mask: Edit) -> str:
    """Return the line that makes the mask; "" where one alone does not."""
    if not all(isinstance(change, Drop | Tower) for change in mask.changes):
        return ""
    drop, there = layers_text(mask) if mask.budget else "", ",".join(map(str, tower_of(mask).dropped))
    return line_of("mask", recording_id(), model=False, drop=drop, drop_tower=there, name=mask.name, notes=mask.notes)


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
        mask = open_dialect(file.getvalue(), file.name, model=recording.model, from_one=from_one)
        if not fits_editor(mask):
            raise MaskError(
                f"{file.name} cannot be taken into the editor: expected one that drops layers, also of the vision encoder, makes them "
                f"narrow, or lets vision tokens skip them, got one that {mask.words()}. Use it as an edit."
            )
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
    st.button(
        f"Take its {counted(mask.budget, 'layer')} into the editor" if mask.is_mask else "Take it into the editor",
        on_click=take_mask,
        args=(mask,),
        disabled=not allowed,
    )
