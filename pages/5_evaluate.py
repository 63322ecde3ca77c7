"""Evaluate: prune the live model with a mask and see what broke."""

import streamlit as st

from vlm_analysis.ui.common.address import check_tab, write_address
from vlm_analysis.ui.common.session import choose_result
from vlm_analysis.ui.common.shell import begin, go_on
from vlm_analysis.ui.evaluate.askboth import side_by_side
from vlm_analysis.ui.evaluate.claimsview import claims_view
from vlm_analysis.ui.evaluate.compareform import compare_form
from vlm_analysis.ui.evaluate.compareview import compare_view
from vlm_analysis.ui.evaluate.costview import cost_view
from vlm_analysis.ui.evaluate.evaluateview import one_mask
from vlm_analysis.ui.evaluate.inputs import pick_inputs, say_missing
from vlm_analysis.ui.evaluate.recoverform import recover_form
from vlm_analysis.ui.evaluate.recoverview import recover_view

begin(
    "Evaluate",
    ":material/fact_check:",
    "The [[edited|pruned model]] shares the weights of the [[dense|dense one]]: see what it keeps ([[retention]]), side by side.",
)

choose_result("evaluations", "evaluate")
choose_result("comparisons", "compare")
choose_result("ledgers", "recover")
inputs = pick_inputs()

RECOVER = "Get back what was lost"
TABS = ["One mask", "Many masks", RECOVER, "Ask both", "Cost", "Claims"]
check_tab("evaluate_tab", TABS)
tabs = dict(zip(TABS, st.tabs(TABS, key="evaluate_tab", on_change="rerun", bind="query-params"), strict=True))
shown = next(name for name, tab in tabs.items() if tab.open)
with tabs[shown]:
    if shown == "Many masks":
        compare_form()
        compare_view()
    elif shown == "Claims":
        claims_view()
    elif shown == RECOVER:
        recover_form(say_missing(inputs, own_prompts=True))
        recover_view()
    else:
        inputs = say_missing(inputs)
        if shown == "One mask":
            one_mask(inputs)
        elif shown == "Ask both":
            side_by_side(inputs)
        else:
            cost_view(inputs)
        if inputs.ready:
            go_on("pages/7_export.py", "Go on to Export")
write_address()
