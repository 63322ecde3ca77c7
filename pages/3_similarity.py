"""Similarity: record how much each decoder layer changes its input, and look at it."""

import streamlit as st

from vlm_analysis.ui.jobs import current, job_panel, start
from vlm_analysis.ui.pickers import open_or_stop, pick_item
from vlm_analysis.ui.session import choose_result, chosen, model_slot
from vlm_analysis.ui.shell import begin, go_on, next_step
from vlm_analysis.ui.similarityview import contrast, heatmap, missing_tokens, table
from vlm_analysis.ui.text import escaped
from vlm_analysis.ui.work import record_work

begin(
    "Similarity",
    ":material/grid_on:",
    "The cosine of what enters a decoder layer and what leaves it. Near 1: the layer changes little.",
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
    left, right = st.columns([3, 1], vertical_alignment="center")
    left.markdown(
        f"Record **{escaped(info.name)}** on **{escaped(prompts.name)}** ({prompts.details.get('n', '?')} prompts)."
    )
    name = f"{info.name} on {prompts.name}"
    right.button(
        "Record",
        type="primary",
        icon=":material/sensors:",
        on_click=start,
        args=("record", f"Recording {name}", record_work(prompts, name), prompts.id, info.fingerprint),
        disabled=(view := current("record")) is not None and view.active,
        width="stretch",
        help="One forward pass a prompt. Hidden states are not kept.",
    )
job_panel("record")

item = pick_item("recordings", "Recording", "Recordings open without the model.")
if item is None:
    st.caption("Nothing recorded yet.")
else:
    recording = open_or_stop(item)
    group = heatmap(recording)
    missing_tokens(recording, group)
    contrast(recording, group)
    table(recording, group)
    go_on("pages/4_masks.py", "Go on to Masks")
