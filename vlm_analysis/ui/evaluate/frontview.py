"""The front of a comparison: what its masks keep over what they save, of the parameters or of measured time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.evaluation.telling import title_of
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import front_words, on_front
from vlm_analysis.selection.compared.timed import time_left
from vlm_analysis.ui.common.address import follow, tell
from vlm_analysis.ui.common.downloads import PICTURE
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.sameline import layers_text, line_of, same_line
from vlm_analysis.ui.common.session import bench, model_slot, opened, workspace
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import job
from vlm_analysis.words import counted
from vlm_analysis.workbench.costs import find_costs

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Y_MAX = 1.15  # of both charts of retention
PARAMETERS = "parameters"
TIMES = {"prefill time": "prefill", "decode time": "decode"}  # what time is saved, and its phase
JOB = "time-front"
LEAST_TIMED = 2  # masks, below which there is no front over time


def draw_front(
    comparison: Comparison,
    item_id: str,
    metric: str,
    table: pd.DataFrame,
    picked: tuple[str, ...],
    domains: Sequence[str],
) -> None:
    """Draw the front, its message as a title; `table` is of `mask_table`, and the methods `picked` have the first colours."""
    of, head = title_of(metric), st.container()
    columns = ["worst", *(f"retention, {domain}" for domain in domains)]
    follow("domain", "compare_front", {domain: f"retention, {domain}" for domain in domains})
    with st.container(horizontal=True):
        by = st.segmented_control(
            f"Retention of {of} on",
            columns,
            default="worst",
            required=True,
            format_func=lambda one: "the worst domain" if one == "worst" else escaped(one.removeprefix("retention, ")),
            key="compare_front",
        )
        saved, left, is_timed = _pick_saved(comparison, table)
    tell("domain", by.removeprefix("retention, ") if by != "worst" else None)
    on = "the worst domain" if by == "worst" else by.removeprefix("retention, ")
    title = front_words(table.assign(left=left), by, f"{of} on {on}", left="left", of=saved)
    head.subheader(escaped(title))
    chart = _front_chart(item_id, metric, by, picked, saved, left.tobytes(), comparison, table, left)
    st.plotly_chart(chart, key="compare-front", config=PICTURE, alt=title)
    drawn, beyond = int(np.isfinite(left).sum()), ""
    if (table[by] > Y_MAX).any():
        beyond = f" A triangle at the top is a mask above {Y_MAX}."
    few = f"as few {PARAMETERS}" if saved == PARAMETERS else f"as little {saved}"
    explained(
        f"Each point is one of {counted(drawn, 'mask')}; methods with bands above have the same colours here. No other mask beats the "
        f"[[front|joined ones]], labelled with the layers they drop: none keeps as much with {few}. They are picked by the "
        f"answers to these very prompts, and the best of many looks better than it is: evaluate the one you take on others.{beyond}"
    )
    if drawn < len(table):
        st.caption(f"{counted(len(table) - drawn, 'other mask')}: not timed like these, so not drawn.")
    if not is_timed:
        _offer_timing(comparison, item_id, table)
    job_panel(JOB, "The rounds that were finished are kept.")


def _pick_saved(comparison: Comparison, table: pd.DataFrame) -> tuple[str, np.ndarray, bool]:
    """Draw the choice of what is saved, where masks were timed; returns it, the share that each mask leaves of it, and if they were."""
    lefts = {PARAMETERS: table["parameters_left"].to_numpy(np.float64)}
    costs, _ = find_costs(workspace(), comparison.dense.model.fingerprint, None, opened=opened)
    lefts |= {saved: time_left(comparison, costs, phase) for saved, phase in TIMES.items()}
    there = [saved for saved, left in lefts.items() if np.isfinite(left).sum() >= LEAST_TIMED or saved == PARAMETERS]
    if len(there) < 2:
        return PARAMETERS, lefts[PARAMETERS], False
    saved = st.segmented_control(
        "Over what is saved",
        there,
        default=PARAMETERS,
        required=True,
        format_func=str.capitalize,
        key="compare_saved",
        help="Times are measured ones: the median over rounds of pruned over dense, of the masks that were timed alike.",
    )
    return saved, lefts[saved], True


def _offer_timing(comparison: Comparison, item_id: str, table: pd.DataFrame) -> None:
    """Draw the button that times the masks of the front, and the line that times those that drop layers alone."""
    item = workspace().find("comparisons", item_id)
    prompts = next((one for one in workspace().items("prompts") if one.prompts == comparison.dense.prompts), None)
    is_here = comparison.dense.model.fingerprint == model_slot().fingerprint
    lacks = "" if is_here and prompts is not None else " It needs the model and the prompts of this comparison."
    st.caption(f"For a front over measured time, time two of these masks or more: here, or under Cost.{lacks}")
    if lacks or item is None or prompts is None:
        return
    st.button(
        "Time the front",
        icon=":material/timer:",
        on_click=start,
        args=(JOB, f"Timing the front of {item.name}", job(bench().time_front, item), item.id),
        disabled=(view := current(JOB)) is not None and view.active,
        help="Up to 8 masks of it, in turn with the dense model, on these prompts: at even steps over what they save.",
    )
    masks = [
        mask
        for mask, is_there in zip(comparison.masks, table["on_front"], strict=True)
        if is_there and mask.is_mask and mask.budget
    ]
    if masks:
        same_line(line_of("cost", prompts, *map(layers_text, masks)), label="Time the front on the command line")


@st.cache_resource(show_spinner=False, max_entries=4)
def _front_chart(
    item_id: str,
    metric: str,
    by: str,
    picked: tuple[str, ...],
    saved: str,
    key: bytes,
    _comparison: Comparison,
    _table: pd.DataFrame,
    _left: np.ndarray,
) -> Figure:
    from vlm_analysis.figures.front import front_chart

    kept, methods = _table[by].to_numpy(np.float64), _comparison.ways.groupby("place")["method"].agg(list)
    frame = pd.DataFrame(
        {
            "x": _left,
            "y": kept,
            "method": [_named_by(methods.get(index, [""]), picked) for index in _table.index],
            "name": _table["methods"] + ": " + _table["dropped"],
            "label": _table["dropped"],
            "on_front": on_front(np.stack([-kept, _left], axis=1)),
        }
    )
    return front_chart(frame, first=picked, of=saved)


def _named_by(methods: Sequence[str], picked: Sequence[str]) -> str:
    """Return the method that a mask is drawn under: one that is brought out, else the first that chooses it."""
    return next((method for method in picked if method in methods), methods[0])
