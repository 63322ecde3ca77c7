"""Model: load the bundled model, a folder or a hub id, and see its decoder layers."""

import streamlit as st

from vlm_analysis.ui.common.address import write_address
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.session import model_slot, runner
from vlm_analysis.ui.common.shell import begin, go_on
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import load_work, unload_work
from vlm_analysis.ui.model.fitview import fit_button, fit_view
from vlm_analysis.ui.model.modelview import details, load_form

begin(
    "Model",
    ":material/deployed_code:",
    "One [[dense|model]] is loaded at a time, for everybody who has this page open.",
)

arguments = load_form()
held = model_slot().held
agreed = held is None or st.checkbox(f"Unload {escaped(held.info.name)} to make room", key="unload_agreed")
view = current("load")
left, middle, right, _ = st.columns([1, 1, 1, 2])
left.button(
    "Load",
    type="primary",
    icon=":material/download:",
    on_click=start,
    args=("load", f"Loading {arguments[0]}", load_work(*arguments), *arguments),
    disabled=not agreed or not arguments[0] or (view is not None and view.active),
    width="stretch",
)
with middle:
    fit_button(*arguments)
right.button(
    "Unload",
    on_click=start,
    args=("unload", "Unloading", unload_work()),
    disabled=held is None or runner().busy,
    width="stretch",
    help="Gives the memory back. Saved work stays.",
)
fit_view(*arguments)
if view is not None and (view.active or view.label == f"Loading {arguments[0]}"):  # not what another source said
    job_panel("load")
if held is not None and not agreed:
    st.caption("Tick the box above to load another model in its place.")
if held is None:
    st.info(
        "No model is loaded. The bundled one loads in seconds; choose it and press Load.",
        icon=":material/arrow_forward:",
    )
else:
    details(held)
    go_on("pages/2_prompts.py", "Go on to Prompts")
write_address()
