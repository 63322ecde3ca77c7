"""How long a pass of the model takes, for what a form says before its job starts."""

from __future__ import annotations

import numpy as np
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.progress import Cancelled
from vlm_analysis.ui.common.session import bench, opened, runner, workspace
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.workspace import Item

TIMING_S = 10.0  # the page waits no longer for the time of a pass


def seconds_a_pass(model: str | None, prompts: Item) -> float | None:
    """Return the seconds of one pass of the model over a prompt: of the newest cost, else timed now if no job runs; None if neither."""
    if model is None:
        return None
    costs, _ = find_costs(workspace(), model, None, opened=opened)
    if costs:
        return float(np.median(costs[0].prefill_ms[0])) / 1e3
    timed: dict[tuple[str, str], float] = st.session_state.setdefault("seconds a pass", {})
    key = (model, prompts.id)
    if key not in timed and not runner().busy:
        time_it = bench().pass_s
        try:
            with st.spinner("Timing one prompt"):
                timed[key] = runner().ask(lambda: time_it(prompts), timeout_s=TIMING_S)
        except (StrataError, TimeoutError, Cancelled, RuntimeError):
            return None
    return timed.get(key)
