"""Similarity: record what each decoder layer does to its input, and look at it from all sides."""

import streamlit as st

from vlm_analysis.ui.common.address import check_tab, write_address
from vlm_analysis.ui.common.jobs import job_panel
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.session import choose_result, chosen, model_slot
from vlm_analysis.ui.common.shell import begin, go_on, next_step, say_set_aside
from vlm_analysis.ui.similarity.explain import explain
from vlm_analysis.ui.similarity.promptmaps import prompts_view
from vlm_analysis.ui.similarity.recordform import open_file, record_form, recording_file
from vlm_analysis.ui.similarity.sidebyside import side_by_side
from vlm_analysis.ui.similarity.similarityview import (
    contrast,
    heatmap,
    measures,
    missing_tokens,
    numbers,
    spans,
    token_group,
)
from vlm_analysis.ui.similarity.towerview import tower_heatmap

begin(
    "Similarity",
    ":material/grid_on:",
    "The [[similarity|cosine]] of what enters a [[layer]] and what leaves it. Near 1: the layer changes little.",
)

info, prompts = model_slot().info, chosen("prompts")
choose_result("recordings", "record")
if prompts is None:
    next_step("There are no prompts to record on.", "pages/2_prompts.py", "Choose prompts")
elif info is None:
    next_step(
        "No model is loaded. A saved recording opens without one; a new one needs it.",
        "pages/1_model.py",
        "Load a model",
    )
else:
    record_form(info, prompts)
job_panel("record", "What was recorded so far is kept: press Go on recording.")

item = pick_item("recordings", "Recording", "Recordings open without the model.")
if item is None:
    st.caption("Nothing recorded yet.")
    open_file()
    write_address()
    st.stop()
recording = open_or_stop(item)
say_set_aside(recording.set_aside, recording.n_prompts)
group = token_group("similarity_group")
TABS = ["Layers", "Measures", "Spans", "Prompts", "Side by side", "Explain", "Numbers", "Files"]
check_tab("similarity_tab", TABS)
layers, all_measures, span, prompt, compare, why, table, file = st.tabs(
    TABS,
    key="similarity_tab",
    on_change="rerun",
    bind="query-params",
)
if layers.open:
    with layers:
        heatmap(recording, group)
        missing_tokens(recording, group)
        tower_heatmap(recording)
        contrast(recording, group)
if all_measures.open:
    with all_measures:
        measures(recording, group)
if span.open:
    with span:
        spans(recording, group)
if prompt.open:
    with prompt:
        prompts_view(recording, group)
if compare.open:
    with compare:
        side_by_side(item.id, group)
if why.open:
    with why:
        explain(recording, group)
if table.open:
    with table:
        numbers(recording, group)
if file.open:
    with file:
        recording_file(item)
        open_file()
go_on("pages/4_masks.py", "Go on to Masks")
write_address()
