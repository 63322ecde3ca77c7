"""Masks: the editor, candidates of every criterion and strategy, and how far their rankings can be trusted."""

import streamlit as st

from vlm_analysis.ui.common.editor import begin_editing
from vlm_analysis.ui.common.maskfiles import mask_files
from vlm_analysis.ui.common.pickers import edited_mask, open_or_stop, pick_item
from vlm_analysis.ui.common.session import choose_result
from vlm_analysis.ui.common.shell import begin, go_on, next_step
from vlm_analysis.ui.masks.candidates import candidates, explain_criteria
from vlm_analysis.ui.masks.damageview import damage_view
from vlm_analysis.ui.masks.inputs import gather
from vlm_analysis.ui.masks.maskstore import compare_two, open_file, save_form, start_from
from vlm_analysis.ui.masks.rankview import agreement_view, score_picture
from vlm_analysis.ui.masks.skipview import skip_view
from vlm_analysis.ui.masks.strip.strip import editor
from vlm_analysis.ui.similarity.similarityview import token_group

begin(
    "Masks",
    ":material/layers:",
    "Which decoder layers are dropped, counted from 0. Start from a ranking, then decide by hand.",
)

item = pick_item("recordings", "Recording", "Rankings come from a recording; only measuring needs the model.")
if item is None:
    next_step("Masks start from a recording, and there is none yet.", "pages/3_similarity.py", "Record")
    st.stop()
recording = open_or_stop(item)
begin_editing(recording.model)
choose_result("masks", "search")
group = token_group("mask_group")

st.subheader("Edit")
editor(gather(recording, group))
save_form()
go_on("pages/5_evaluate.py", "Go on to Evaluate")

TABS = [
    "Candidates",
    "Scores",
    "Agreement",
    "Against damage",
    "Skip-It",
    "Compare two",
    "Open a file",
    "Files for other tools",
]
tabs = dict(zip(TABS, st.tabs(TABS, key="mask_tab", on_change="rerun", bind="query-params"), strict=True))
shown = next(name for name, tab in tabs.items() if tab.open)
with tabs[shown]:
    if shown == "Candidates":
        start_from(candidates(gather(recording, group)), recording)
        explain_criteria()
    elif shown == "Scores":
        score_picture(gather(recording, group))
    elif shown == "Agreement":
        agreement_view(gather(recording, group))
    elif shown == "Against damage":
        damage_view(gather(recording, group))
    elif shown == "Skip-It":
        skip_view(gather(recording, group))
    elif shown == "Compare two":
        compare_two(recording.n_layers)
    elif shown == "Open a file":
        open_file(recording)
    elif (mask := edited_mask()) is not None:
        mask_files(mask, recording.model)
