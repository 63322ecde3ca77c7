"""Evaluate: prune the live model with a mask and see what broke."""

import streamlit as st

from vlm_analysis.ui.evaluateview import broken_prompts, outcome, side_by_side
from vlm_analysis.ui.jobs import current, job_panel, start
from vlm_analysis.ui.pickers import agree_on_model, open_or_stop, pick_item, pick_mask
from vlm_analysis.ui.session import choose_result, chosen, model_slot
from vlm_analysis.ui.shell import begin, go_on, next_step
from vlm_analysis.ui.text import escaped
from vlm_analysis.ui.work import evaluate_work

begin(
    "Evaluate",
    ":material/fact_check:",
    "The pruned model shares the dense weights: both answer side by side, nothing has to be undone.",
)

info, prompts = model_slot().info, chosen("prompts")
choose_result("evaluations", "evaluate")
mask = pick_mask(info.n_layers if info else None)
ready = False
if mask is None:
    next_step(
        f"There is no mask to evaluate{f' for a model of {info.n_layers} layers' if info else ''}.",
        "pages/4_masks.py",
        "Make a mask",
    )
elif prompts is None:
    next_step("There are no prompts to evaluate on.", "pages/2_prompts.py", "Choose prompts")
elif info is None:
    next_step("No model is loaded. Saved evaluations open without one.", "pages/1_model.py", "Load a model")
else:
    ready = agree_on_model(mask.model, info, "This mask", "evaluate")
    st.markdown(
        f"Prune **{escaped(info.name)}** and answer **{escaped(prompts.name)}** ({prompts.details.get('n', '?')} prompts)."
    )
if mask is not None and prompts is not None:
    st.button(
        "Prune and evaluate",
        type="primary",
        icon=":material/content_cut:",
        on_click=start,
        args=(
            "evaluate",
            f"Evaluating {mask.name or 'the edited mask'}",
            evaluate_work(mask, prompts),
            mask,
            prompts.id,
        ),
        disabled=not ready or ((view := current("evaluate")) is not None and view.active),
    )
job_panel("evaluate")

item = pick_item("evaluations", "Evaluation", "Saved evaluations open without the model.")
if item is None:
    st.caption("Nothing evaluated yet.")
else:
    evaluation = open_or_stop(item)
    dense = outcome(evaluation)
    if dense is not None and not evaluation.is_dense:
        broken_prompts(evaluation, dense, None if prompts is None else open_or_stop(prompts))
if ready and mask is not None and prompts is not None:
    side_by_side(open_or_stop(prompts), prompts.id, mask)
    go_on("pages/6_export.py", "Go on to Export")
