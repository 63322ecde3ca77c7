"""The part "Width" of the Masks page: scores of neurons and attention groups, and the edit that leaves out those of least worth."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.width.choosing import make_narrow
from vlm_analysis.selection.width.scores import PIVOT, TAYLOR, UNITS, WidthScores
from vlm_analysis.selection.width.worth import Worth, worth_of
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.editor import CANDIDATES, take_mask
from vlm_analysis.ui.common.held import why_not_narrow
from vlm_analysis.ui.common.inputs import missing_to_measure, prompts_of, say_missing
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import open_or_stop
from vlm_analysis.ui.common.sameline import is_saved, line_of, same_line
from vlm_analysis.ui.common.session import bench, choose, workspace
from vlm_analysis.ui.common.shell import next_step, say_set_aside
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import job
from vlm_analysis.ui.masks.pivotview import draw_pivots
from vlm_analysis.ui.masks.widthform import ask_prompts, ask_scoring, ask_share, ask_weighing
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.widths import find_width
from vlm_analysis.workbench.workspace import Item

JOB = "width"
PROBLEM = "width_problem"


def width_part(recording: Recording) -> dict[str, Edit]:
    """Draw the scores of width and the edit made of them; returns it by its name on screen, beside the other candidates."""
    explained(
        "Layers can become narrower instead of fewer: the [[neuron|neurons]] and [[kv_group|attention groups]] that do least to "
        "the answers go, and those that act near steps of reasoning ([[pivot|pivots]]) count more (µCRASP, arXiv:2605.25842)."
    )
    prompts = ask_prompts(prompts_of(recording))
    if prompts is None:
        next_step("Width is scored on prompts, and there are none.", "pages/2_prompts.py", "Add prompts")
        return {}
    with st.expander("How it is scored"):
        how = ask_scoring()
    item = find_width(workspace(), recording.model.fingerprint, prompts.prompts, **how)
    if item is None:
        _measure(recording, prompts, how)
    job_panel(JOB, "What was scored is kept: score again to go on.")
    if item is None:
        return {}
    scores: WidthScores = open_or_stop(item)
    say_set_aside(scores.set_aside, scores.n_answers)
    st.markdown(escaped(scores.finding()))
    made = _choose(item, scores, prompts, how)
    with st.expander("Where answers have pivots", key="width_answers", on_change="rerun") as answers:
        if answers.open:
            draw_pivots(prompts)
    with st.expander("Numbers of the scores", key="width_numbers", on_change="rerun") as numbers:
        if numbers.open:
            offer_table(_frame(scores), "width", alt="What the units of each layer come to, and what protects it")
    return made


def _measure(recording: Recording, prompts: Item, how: dict[str, Any]) -> None:
    """Draw the button that scores, or what is missing for it."""
    if missing := missing_to_measure(recording, own_prompts=True):
        say_missing(missing)
        return
    passes = "two backward passes a batch" if how["fast"] else "one backward pass for each answer token"
    st.caption(
        f"{sentence(passes)} of {counted(int(prompts.details.get('n', 0)), 'prompt')}. A job that is cancelled goes on where it stopped."
    )
    st.button(
        "Score the width",
        icon=":material/straighten:",
        on_click=start,
        args=(JOB, f"Scoring width on {prompts.name}", job(bench().measure_width, prompts, **how), prompts.id, how),
        disabled=(view := current(JOB)) is not None and view.active,
    )
    same_line(line_of("width", prompts, **how))


def _choose(item: Item, scores: WidthScores, prompts: Item, how: dict[str, Any]) -> dict[str, Edit]:
    """Draw what share goes and how units are weighed, what that leaves, and the buttons that take it."""
    share, mode = ask_share()
    with st.expander("Options"):
        weighing = ask_weighing(scores.seed is not None)
    key = repr((item.id, share, mode, sorted(weighing.items())))
    try:
        edit, worth = _made(key, scores, share, mode, weighing)
    except StrataError as error:
        st.warning(escaped(error))
        return {}
    _draw(worth, scores)
    st.markdown(escaped(f"{sentence(edit.words())}: {_saved(edit, scores)} {_served(edit)}"))
    _take(edit)
    same_line(line_of("width", prompts, share=share, mode=mode, **how, **weighing))
    st.session_state[CANDIDATES] = {**st.session_state.get(CANDIDATES, {}), f"Width: {edit.name}": edit}
    return {f"Width: {edit.name}": edit}


@st.cache_resource(show_spinner=False, max_entries=16)
def _made(key: str, _scores: WidthScores, share: float, mode: str, weighing: dict[str, Any]) -> tuple[Edit, Worth]:
    """Return the edit and what its units are worth; kept between script runs by the key."""
    edit = make_narrow(_scores, share, mode, **weighing)
    return edit, worth_of(_scores, edit, share, **weighing)


def _draw(worth: Worth, scores: WidthScores) -> None:
    from vlm_analysis.figures.widths import width_heatmap

    st.plotly_chart(
        width_heatmap(worth.values, worth.gone, worth.rows, locks=scores.model.locks),
        key="width-heatmap",
        config=PICTURE,
        alt="What neurons and attention groups of each layer are worth, and which go",
    )
    st.caption(
        "The units of a layer by rank, in equal parts: what one of their parameters is worth, over the mean of all. The scale is the same "
        "for every model. × all of a part go, / some of it. Hatched: cannot be cut."
    )
    for unit in UNITS:
        for reason in dict.fromkeys(scores.reasons(unit).values()):
            layers = [layer for layer, why in scores.reasons(unit).items() if why == reason]
            what = "MLP neurons" if unit == UNITS[0] else "attention groups"
            st.caption(escaped(f"{what} of {counted(len(layers), 'layer')} cannot be cut: {reason}."))


def _saved(edit: Edit, scores: WidthScores) -> str:
    """Return how many parameters it saves, of the decoder layers and of the model."""
    saved, model = edit.saved_parameters(scores.model), scores.model
    of_model = f", {saved / model.n_parameters:.1%} of the whole model's" if model.n_parameters else ""
    return f"{saved / sum(model.layer_parameters):.1%} fewer parameters in the decoder layers{of_model}."


def _served(edit: Edit) -> str:
    if reason := why_not_narrow(edit):
        return f"It cannot be exported as a smaller checkpoint: {reason}."
    return "All layers are equally wide, as a smaller checkpoint needs it; Export tries whether the model's class builds it."


def _take(edit: Edit) -> None:
    """Draw the buttons that take the edit into the editor, and save it as a mask."""
    if problem := st.session_state.pop(PROBLEM, ""):
        st.error(escaped(problem))
    left, middle, _ = st.columns([1, 1, 2])
    left.button(
        "Take it into the editor",
        key="width_take",
        icon=":material/edit:",
        on_click=take_mask,
        args=(edit,),
        width="stretch",
        help="In place of what is there now; undo brings that back. Layers can then be dropped beside it.",
    )
    is_kept = is_saved(edit)
    middle.button(
        "Saved as a mask" if is_kept else "Save as a mask",
        key="width_save",
        icon=":material/check:" if is_kept else ":material/save:",
        on_click=_save,
        args=(edit,),
        disabled=is_kept,
        width="stretch",
        help="It stands in the table below, and in the lists of Evaluate and Export.",
    )
    st.caption("It was fitted to these prompts: evaluate it on others.")


def _save(edit: Edit) -> None:
    try:
        choose("masks", keep_mask(workspace(), edit))
    except StrataError as error:
        st.session_state[PROBLEM] = str(error)


def _frame(scores: WidthScores) -> pd.DataFrame:
    """Return a row for each layer: its units, what they come to, and what protects it."""
    columns: dict[str, Any] = {"layer": range(scores.model.n_layers)}
    for unit in UNITS:
        columns[unit] = [part.shape[1] for part in getattr(scores, unit)]
        for value in (TAYLOR, PIVOT):
            columns[f"{unit}, {value}"] = [float(one.sum()) for one in scores.values(value, unit)]
    return pd.DataFrame({**columns, "sens": scores.sens, "cmds": scores.cmds})
