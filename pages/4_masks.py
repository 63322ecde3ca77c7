"""Masks: the editor, candidates of every criterion and strategy, and how far rankings can be trusted, and narrower layers."""

import streamlit as st

from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.editor import begin_editing
from vlm_analysis.ui.common.inputs import gather
from vlm_analysis.ui.common.maskfiles import mask_files
from vlm_analysis.ui.common.pickers import edited_mask, open_or_stop, pick_item
from vlm_analysis.ui.common.session import choose_result
from vlm_analysis.ui.common.shell import begin, go_on, next_step
from vlm_analysis.ui.masks.candidates import candidates
from vlm_analysis.ui.masks.maskstore import open_file
from vlm_analysis.ui.masks.masktable import draw_masks, take_clicks
from vlm_analysis.ui.masks.strip.strip import editor
from vlm_analysis.ui.masks.widthview import width_part
from vlm_analysis.ui.masks.windows import follow_windows
from vlm_analysis.ui.similarity.similarityview import token_group

begin(
    "Masks",
    ":material/layers:",
    "Which [[layer|decoder layers]] a [[mask]] drops, counted from 0. Start from a [[method]], then decide by hand.",
)

item = pick_item("recordings", "Recording", "Rankings come from a recording; only measuring needs the model.")
if item is None:
    next_step("Masks start from a recording, and there is none yet.", "pages/3_similarity.py", "Record")
    write_address()
    st.stop()
recording = open_or_stop(item)
begin_editing(recording.model)
follow_windows(recording.model)
take_clicks()
choose_result("masks", "search")
group = token_group("mask_group")

st.subheader("Edit")
editor(gather(recording, group))

st.subheader("Propose")
proposed = candidates(gather(recording, group))
st.subheader("Width")
proposed = {**proposed, **width_part(recording)}
st.subheader("Masks")
draw_masks(recording, proposed)
go_on("pages/5_evaluate.py", "Go on to Evaluate")

opening = st.expander("Open a mask file", key="mask_opening", on_change="rerun")
if opening.open:
    with opening:
        open_file(recording)
handing = st.expander("Files for other tools", key="mask_handing", on_change="rerun")
if handing.open and (mask := edited_mask()) is not None:
    with handing:
        mask_files(mask, recording.model)
write_address()
