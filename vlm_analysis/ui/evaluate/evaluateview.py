"""The Evaluate page on one mask: the button that evaluates it, and a saved evaluation in tiles, numbers and a gallery of answers."""

from __future__ import annotations

from functools import partial

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import Evaluation, on_both
from vlm_analysis.evaluation.telling import accepted_line, telling_line, unanswered_line
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import open_or_stop, pick_item
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, live, opened, workspace
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.text import done_to, escaped
from vlm_analysis.ui.common.work import watched
from vlm_analysis.ui.evaluate.askboth import ask_about
from vlm_analysis.ui.evaluate.gallery import draw_answers
from vlm_analysis.ui.evaluate.inputs import EvaluateInputs
from vlm_analysis.ui.evaluate.numbers import draw_numbers
from vlm_analysis.ui.evaluate.outcome import Outcome, outcome_of
from vlm_analysis.ui.evaluate.tiles import draw_tiles
from vlm_analysis.words import counted, sentence
from vlm_analysis.workbench.chosenon import n_chosen_on
from vlm_analysis.workbench.evaluations import MAX_WRITTEN
from vlm_analysis.workbench.shelf import find_dense
from vlm_analysis.workbench.workspace import Item


def one_mask(inputs: EvaluateInputs) -> None:
    """Draw the button that evaluates the mask, and a saved evaluation: scores, and what broke."""
    mask, prompts = inputs.mask, inputs.prompts
    if mask is not None and prompts is not None:
        if inputs.ready and inputs.info is not None:
            count = counted(int(prompts.details.get("n", 0)), "prompt")
            st.markdown(f"Prune **{escaped(inputs.info.name)}** and answer **{escaped(prompts.name)}** ({count}).")
        responses = _responses_box(prompts)
        st.button(
            "Prune and evaluate",
            type="primary",
            icon=":material/content_cut:",
            on_click=start,
            args=(
                "evaluate",
                f"Evaluating {mask.name or 'the edited mask'}",
                watched("evaluate", bench().evaluate, prompts, mask, responses=responses),
                mask,
                prompts.id,
                responses,
            ),
            disabled=not inputs.ready or ((view := current("evaluate")) is not None and view.active),
        )
        if inputs.ready:
            same_line(line_of("evaluate", prompts, mask, responses=responses, no_responses=not responses))
    job_panel("evaluate", so_far=_so_far)
    item = pick_item("evaluations", "Evaluation", "Saved evaluations open without the model.")
    if item is None:
        st.caption("Nothing evaluated yet.")
        return
    evaluation = open_or_stop(item)
    outcome = draw_outcome(evaluation)
    if outcome is not None:
        evaluated = _evaluated(evaluation)
        ask = None
        if evaluated is not None and inputs.ready and prompts is not None and mask is not None:
            same = prompts.prompts == evaluation.prompts and mask.key == evaluation.edit.key
            ask = partial(ask_about, evaluated, prompts.id) if same else None
        draw_answers(outcome, item.id, evaluated, ask)


def _evaluated(evaluation: Evaluation) -> PromptSet | None:
    """Return the evaluated prompts, in use or not; None where they are not saved any more, or damaged."""
    item = next((one for one in workspace().items("prompts") if one.prompts == evaluation.prompts), None)
    try:
        return None if item is None else opened(item)
    except StrataError:
        return None


def _so_far() -> None:
    """Draw the scores while the responses are written."""
    now = live().get("evaluate")
    if now is not None:
        st.caption(f"{sentence(done_to(now[0].edit))}; the responses are still being written:")
        draw_tiles(Outcome(*on_both(*now)))


def _responses_box(prompts: Item) -> bool:
    """Draw the choice whether the models write responses; off by default for many prompts."""
    count = prompts.details.get("n")
    return st.checkbox(
        "Write the responses",
        value=isinstance(count, int) and count <= MAX_WRITTEN,
        key=f"responses:{prompts.id}",
        help="Shows what the pruned model says where it is wrong, and scores responses that differ from the answer in form only. "
        "Both models write one response for each prompt they do not answer exactly, which takes far longer than scoring it.",
    )


def draw_outcome(evaluation: Evaluation) -> Outcome | None:
    """Draw whose the evaluation is, its tiles and numbers; returns its outcome where a dense evaluation is saved, None for that one."""
    item = find_dense(workspace(), evaluation.model.fingerprint, evaluation.prompts)
    dense = None if item is None else _open_dense(item)
    outcome = None if dense is None or evaluation.is_dense else outcome_of(evaluation, dense)[0]
    if outcome is not None:
        evaluation = outcome.evaluation
    say_set_aside(evaluation.set_aside, len(evaluation.by_prompt))
    edit = evaluation.edit
    layers = f"{done_to(edit)}: {len(edit.gone)} of {edit.n_layers}" if edit.is_mask else done_to(edit)
    st.text(
        f"{evaluation.model.name} ({evaluation.model.fingerprint[:8]}) {'as it is' if evaluation.is_dense else layers}."
    )
    n_prompts = len(evaluation.by_prompt)
    if known := n_chosen_on(workspace(), edit, evaluation.prompts, n_prompts, opened):
        st.warning(
            f"This mask was chosen on {known} of these {counted(n_prompts, 'prompt')}, or on others "
            f"with their pictures: its numbers "
            "flatter it. Under “Many masks” "
            "prompts are split in halves, one to choose on and one to report on."
        )
    say_answer_source(evaluation)
    if outcome is not None:
        if line := telling_line(outcome.metric):
            st.info(escaped(line))
        draw_tiles(outcome)
    draw_numbers(evaluation, outcome)
    return outcome


def say_answer_source(evaluation: Evaluation) -> None:
    """Say how many prompts are scored on the dense model's response or choice, and on how many any of several answers counts."""
    for line in filter(None, (accepted_line(evaluation), unanswered_line(evaluation))):
        st.info(line)


def _open_dense(item: Item) -> Evaluation | None:
    """Return the saved dense evaluation; a damaged one is named, and the next evaluation replaces it."""
    try:
        dense: Evaluation = opened(item)
    except StrataError as error:
        st.warning(escaped(error))
        return None
    return dense
