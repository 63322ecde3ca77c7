"""Export: the mask as a file, prompts as a benchmark, and the pruned model as a checkpoint, proved equal to the evaluated one."""

from pathlib import Path

import streamlit as st

from vlm_analysis.export.narrow import masked_weights
from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.maskfiles import mask_files
from vlm_analysis.ui.common.pickers import agree_on_model, pick_mask
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.common.shell import begin, next_step
from vlm_analysis.ui.common.text import edit_line
from vlm_analysis.ui.export.benchmark import benchmark
from vlm_analysis.ui.export.exportview import (
    ask_masked,
    default_folder,
    export_work,
    manifest_view,
    serving_view,
    shortened,
)

begin(
    "Export",
    ":material/ios_share:",
    "The exported [[checkpoint]] is loaded in a fresh process, and compared with the evaluated model: the [[proof]].",
)

info = model_slot().info
mask = pick_mask()
write_address()
if mask is None:
    next_step("There is no mask to export.", "pages/4_masks.py", "Make a mask")
    st.stop()
st.text(edit_line(mask))
if mask.notes:
    st.text(mask.notes)

st.subheader("Mask file")
mask_files(mask, info)

st.subheader("Benchmark of your prompts")
benchmark(mask)

st.subheader("Checkpoint")
if info is None:
    next_step("A checkpoint is written from the loaded model, and none is loaded.", "pages/1_model.py", "Load a model")
    st.stop()
ready = agree_on_model(mask.model, info, "This mask", "export")
folder = st.text_input(
    "New folder",
    shortened(default_folder(info.name, mask)),
    help="On the machine Strata runs on. It must not hold anything.",
)
with_probe = st.checkbox(
    "With a probe for servers",
    value=True,
    help="Up to 8 bundled prompts with the exported model's answers, which `strata probe` asks a server. It takes some time.",
)
masked, is_written = ask_masked(mask)
st.button(
    "Export and verify",
    type="primary",
    icon=":material/save:",
    on_click=start,
    args=(
        "export",
        f"Exporting to {folder}",
        export_work(mask, Path(folder.strip()), with_probe, masked),
        mask,
        masked,
        folder.strip(),
    ),
    disabled=not ready
    or not is_written
    or not folder.strip()
    or ((view := current("export")) is not None and view.active),
)
if ready and folder.strip():
    same_line(line_of("export", mask, folder.strip(), no_probe=not with_probe, masked=masked))
done = job_panel("export")
exported = done.result if done is not None and done.status == "done" else None
if exported is not None and exported[0].source_fingerprint != info.fingerprint:
    exported = None  # of the model that was loaded before
if exported is not None:
    manifest_view(*exported)
if ready and folder.strip():
    serving_view(masked_weights(mask) if masked else mask, Path(folder.strip()), exported)
