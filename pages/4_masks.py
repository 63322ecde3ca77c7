"""Masks: candidates from rankings, an editor, and the saved masks. Needs a recording, not the model."""

import streamlit as st

from vlm_analysis.ui.editor import begin_editing, candidates, editor, score_picture, strips
from vlm_analysis.ui.maskstore import compare_two, open_file, save_form, start_from
from vlm_analysis.ui.pickers import open_or_stop, pick_item
from vlm_analysis.ui.shell import begin, go_on, next_step
from vlm_analysis.ui.similarityview import token_group

begin(
    "Masks",
    ":material/layers:",
    "Which decoder layers are dropped, counted from 0. Start from a ranking, then decide by hand.",
)

item = pick_item("recordings", "Recording", "Rankings come from a recording; the model need not be loaded.")
if item is None:
    next_step("Masks start from a recording, and there is none yet.", "pages/3_similarity.py", "Record")
    st.stop()
recording = open_or_stop(item)
begin_editing(recording)
group = token_group("mask_group")

st.subheader("Edit")
editor(recording, group)
save_form()
go_on("pages/5_evaluate.py", "Go on to Evaluate")

candidate_tab, score_tab, compare_tab, file_tab = st.tabs(
    ["Candidates", "Scores", "Compare two", "Open a file"], key="mask_tab", on_change="rerun"
)
if candidate_tab.open:
    with candidate_tab:
        made = candidates(recording, group)
        strips(made, recording)
        start_from(made, recording)
if score_tab.open:
    with score_tab:
        score_picture(recording, group)
if compare_tab.open:
    with compare_tab:
        compare_two(recording.n_layers)
if file_tab.open:
    with file_tab:
        open_file(recording)
