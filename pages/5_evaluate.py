"""Evaluate: prune the live model with a mask and see what broke."""

import streamlit as st

from vlm_analysis.ui.common.session import choose_result
from vlm_analysis.ui.common.shell import begin, go_on
from vlm_analysis.ui.evaluate.askboth import side_by_side
from vlm_analysis.ui.evaluate.compareform import compare_form
from vlm_analysis.ui.evaluate.compareview import compare_view
from vlm_analysis.ui.evaluate.costview import cost_view
from vlm_analysis.ui.evaluate.evaluateview import ask_mask, one_mask

begin(
    "Evaluate",
    ":material/fact_check:",
    "The pruned model shares the dense weights: both answer side by side, nothing has to be undone.",
)

choose_result("evaluations", "evaluate")
choose_result("comparisons", "compare")

TABS = ["One mask", "Many masks", "Ask both", "Cost"]
tabs = dict(zip(TABS, st.tabs(TABS, key="evaluate_tab", on_change="rerun", bind="query-params"), strict=True))
shown = next(name for name, tab in tabs.items() if tab.open)
with tabs[shown]:
    if shown == "Many masks":
        compare_form()
        compare_view()
    else:
        inputs = ask_mask()
        if shown == "One mask":
            one_mask(inputs)
        elif shown == "Ask both":
            side_by_side(inputs)
        else:
            cost_view(inputs)
        if inputs.ready:
            go_on("pages/6_export.py", "Go on to Export")
