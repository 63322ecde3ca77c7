"""The Evaluate page on one mask: its inputs, scores per domain, and the prompts that broke."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import (
    ANSWERS,
    Evaluation,
    on_both,
    retention,
    retention_interval,
    score_intervals,
)
from vlm_analysis.evaluation.intervals import LEAST_GROUPS
from vlm_analysis.evaluation.telling import accepted_line, telling_line, telling_score_of, title_of, unanswered_line
from vlm_analysis.export.story import outcome_frame
from vlm_analysis.export.tables import table_csv
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common.editor import begin_editing
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.pickers import agree_on_model, open_or_stop, pick_item, pick_mask
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, chosen, live, model_slot, opened, workspace
from vlm_analysis.ui.common.shell import next_step, say_set_aside
from vlm_analysis.ui.common.text import METRIC_HELP, done_to, escaped
from vlm_analysis.ui.common.work import watched
from vlm_analysis.words import METRIC_TITLES, any_of, counted, in_groups, sentence
from vlm_analysis.workbench.evaluations import MAX_WRITTEN
from vlm_analysis.workbench.shelf import find_dense
from vlm_analysis.workbench.workspace import Item

RELATIVE = ("token_agreement", "kl_to_dense")  # metrics that compare with the dense model already
RESPONSE_HELP = "What the pruned model writes, decoded greedily: 16 tokens more than the answer at most."
SOURCE_HELP = "“given” is the prompt's own answer; others have the dense model's own response, or the choice it finds most likely."

ANSWERS_HELP = "Exact match and token agreement are the best over any of these; NLL and KL are those of the first."


@dataclass(frozen=True)
class EvaluateInputs:
    """The inputs of the Evaluate page; `ready` if there are a model, a mask and prompts that belong together."""

    info: ModelInfo | None
    mask: Edit | None
    prompts: Item | None
    ready: bool


def ask_mask() -> EvaluateInputs:
    """Draw the choice of a mask, and the one next step where something is missing."""
    info, prompts = model_slot().info, chosen("prompts")
    if info is not None and "mask" not in st.session_state:
        begin_editing(info)  # after a refresh, the mask last edited for this model
    mask = pick_mask(info.n_layers if info else None)
    ready = False
    if mask is None:
        where = f" for a model of {info.n_layers} layers" if info else ""
        next_step(f"There is no mask to evaluate{where}.", "pages/4_masks.py", "Make a mask")
    elif prompts is None:
        next_step("There are no prompts to evaluate on.", "pages/2_prompts.py", "Choose prompts")
    elif info is None:
        next_step("No model is loaded. Saved evaluations open without one.", "pages/1_model.py", "Load a model")
    else:
        ready = agree_on_model(mask.model, info, "This mask", "evaluate")
    return EvaluateInputs(info, mask, prompts, ready)


def one_mask(inputs: EvaluateInputs) -> None:
    """Draw the button that evaluates the mask, and a saved evaluation: scores, and what broke."""
    mask, prompts = inputs.mask, inputs.prompts
    if mask is not None and prompts is not None:
        if inputs.ready and inputs.info is not None:
            count = prompts.details.get("n", "?")
            st.markdown(
                f"Prune **{escaped(inputs.info.name)}** and answer **{escaped(prompts.name)}** ({count} prompts)."
            )
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
    dense = outcome(evaluation)
    if dense is not None and not evaluation.is_dense:
        broken_prompts(evaluation, dense, None if prompts is None else open_or_stop(prompts))


def _so_far() -> None:
    """Draw the scores while the responses are written."""
    partial = live().get("evaluate")
    if partial is not None:
        st.caption(f"{sentence(done_to(partial[0].edit))}; the responses are still being written:")
        _retention_cards(*partial)


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


def outcome(evaluation: Evaluation) -> Evaluation | None:
    """Draw the scores per domain beside the dense model's; returns the dense evaluation where it is saved."""
    item = find_dense(workspace(), evaluation.model.fingerprint, evaluation.prompts)
    dense = None if item is None else _open_dense(item)
    if dense is not None:
        evaluation, dense = on_both(evaluation, dense)
    say_set_aside(evaluation.set_aside, len(evaluation.by_prompt))
    edit = evaluation.edit
    layers = f"{done_to(edit)}: {len(edit.gone)} of {edit.n_layers}"
    st.text(
        f"{evaluation.model.name} ({evaluation.model.fingerprint[:8]}) {'as it is' if evaluation.is_dense else layers}."
    )
    if known := _n_chosen_on(evaluation):
        st.warning(
            f"This mask was chosen on {known} of these {len(evaluation.by_prompt)} prompts, or on others with their pictures: its numbers "
            "flatter it. Under “Many masks” "
            "prompts are split in halves, one to choose on and one to report on."
        )
    say_answer_source(evaluation)
    if dense is not None and not evaluation.is_dense:
        metric = telling_score_of(dense, evaluation)
        if line := telling_line(metric):
            st.info(escaped(line))
        _retention_cards(evaluation, dense)
        from vlm_analysis.figures.outcomes import damage_bars

        bars = damage_bars(outcome_frame(evaluation, dense), metric=metric)
        st.plotly_chart(bars, key="damage-bars", config={"displayModeBar": False})
    _score_table(evaluation, dense)
    return dense


def say_answer_source(evaluation: Evaluation) -> None:
    """Say how many prompts are scored on the dense model's response or choice, and on how many any of several answers counts."""
    for line in filter(None, (accepted_line(evaluation), unanswered_line(evaluation))):
        st.info(line)


def _n_chosen_on(evaluation: Evaluation) -> int:
    """Return how many of the evaluated prompts the mask was chosen on, as far as the prompt sets are still saved."""
    names = evaluation.edit.chosen_on
    if evaluation.prompts in names:
        return len(evaluation.by_prompt)
    saved = {item.prompts: item for item in workspace().items("prompts")}
    if not names & set(saved) or evaluation.prompts not in saved:
        return 0
    try:
        known = frozenset[str]().union(*(opened(saved[name]).groups.known for name in names & set(saved)))
        return n_shared(opened(saved[evaluation.prompts]), known)
    except StrataError:
        return 0


def _open_dense(item: Item) -> Evaluation | None:
    """Return the saved dense evaluation; a damaged one is named, and the next evaluation replaces it."""
    try:
        dense: Evaluation = opened(item)
    except StrataError as error:
        st.warning(escaped(error))
        return None
    return dense


def _retention_cards(evaluation: Evaluation, dense: Evaluation) -> None:
    metric = telling_score_of(dense, evaluation)
    kept, counts, groups = (
        retention(evaluation, dense, metric),
        dense.by_domain["n"].to_dict(),
        evaluation.groups_by_domain,
    )
    columns = st.columns(min(4, len(kept)))
    for index, (domain, share) in enumerate(kept.items()):
        low, high = retention_interval(evaluation, dense, str(domain), metric=metric)
        columns[index % len(columns)].metric(
            f"Retention, {escaped(domain)} ({in_groups(counts[domain], groups[str(domain)])})",
            "not defined" if pd.isna(share) else f"{share:.0%}",
            no_interval(groups[str(domain)]) if pd.isna(low) else f"90 % interval {low:.0%} to {high:.0%}",
            delta_color="off",
            delta_arrow="off",
            border=True,
            help=(
                METRIC_HELP["retention"] if metric == "exact_match" else f"Of {title_of(metric)}: {METRIC_HELP[metric]}"
            )
            + " The interval is over groups of prompts: of right or wrong answers from those lost and won, else by Student's t.",
        )


def no_interval(n_groups: int) -> str | None:
    """Return why a number has no interval, if that is for want of groups."""
    if n_groups >= LEAST_GROUPS:
        return None
    return f"no interval: {counted(n_groups, 'group')}, it takes {LEAST_GROUPS}"


def _score_table(evaluation: Evaluation, dense: Evaluation | None) -> None:
    table = evaluation.by_domain.reset_index()
    compared = []
    if dense is not None and not evaluation.is_dense:
        compared = [metric for metric in evaluation.metrics if metric in dense.metrics and metric not in RELATIVE]
        for metric in compared:
            table.insert(list(table.columns).index(metric), f"{metric}_dense", dense.by_domain[metric].to_numpy())
    config = {metric: _metric_column(metric) for metric in evaluation.metrics}
    config |= {f"{metric}_dense": _metric_column(metric, f"{METRIC_TITLES[metric]}, dense") for metric in compared}
    st.dataframe(table, hide_index=True, width="stretch", column_config=config)
    with st.expander("Intervals"):
        intervals = score_intervals(evaluation)
        st.caption(
            "90 % intervals over groups of prompts: exact for right or wrong answers, by Student's t for token agreement, by that of the "
            f"logarithm, widened, for NLL and KL. Below {LEAST_GROUPS} groups, and where all prompts agree, there is none."
        )
        st.dataframe(
            intervals.assign(metric=intervals["metric"].map(METRIC_TITLES)),
            hide_index=True,
            width="stretch",
            column_config={name: st.column_config.NumberColumn(format="%.3f") for name in ("value", "low", "high")},
        )


def _metric_column(metric: str, title: str = "") -> Any:
    return st.column_config.NumberColumn(title or METRIC_TITLES[metric], help=METRIC_HELP[metric], format="%.3f")


def broken_prompts(evaluation: Evaluation, dense: Evaluation, prompts: PromptSet | None) -> None:
    """Draw the prompts that only the dense model answers exactly, most damaged first, and those that only the pruned one does."""
    evaluation, dense = on_both(evaluation, dense)
    both = evaluation.by_prompt.assign(
        dense_match=dense.by_prompt["exact_match"], dense_nll=dense.by_prompt["answer_nll"]
    )
    both["extra_nll"] = both["answer_nll"] - both["dense_nll"]
    lost = both[both["dense_match"] & ~both["exact_match"]].sort_values("extra_nll", ascending=False)
    won = both[~both["dense_match"] & both["exact_match"]]
    st.subheader("What broke")
    if telling_score_of(dense, evaluation) == "exact_match":
        st.text(
            f"{len(lost)} of {int(both['dense_match'].sum())} prompts the dense model answers exactly are lost; "
            f"{len(won)} it misses are now answered.{_of_given(both, lost)}"
        )
    else:
        lost = both[both["token_agreement"] < 1].sort_values("token_agreement", kind="stable")
        st.text(
            f"In {len(lost)} of {len(both)} answers the pruned model chooses another token than the dense one somewhere."
        )
    if len(lost):
        source = ["answer_source"] * bool((lost["answer_source"] != "given").any())
        columns = source + [
            column for column in (ANSWERS, "response", "choice") if column in lost and lost[column].notna().any()
        ]
        shown = lost[["id", "domain", "answer", *columns, "extra_nll", "token_agreement", "kl_to_dense"]].copy()
        if prompts is not None and prompts.fingerprint == evaluation.prompts:
            questions = {prompt.id: prompt.question for prompt in prompts}
            shown.insert(2, "question", shown["id"].map(questions))
        config = {metric: _metric_column(metric) for metric in RELATIVE}
        config["extra_nll"] = _metric_column("answer_nll", "NLL above dense")
        config["response"] = st.column_config.TextColumn("Pruned response", help=RESPONSE_HELP)
        config["answer_source"] = st.column_config.TextColumn("Answer from", help=SOURCE_HELP)
        config[ANSWERS] = st.column_config.ListColumn("Accepted answers", help=ANSWERS_HELP)
        config["choice"] = st.column_config.TextColumn("Pruned choice", help=METRIC_HELP["choice_match"])
        st.dataframe(shown, hide_index=True, width="stretch", column_config=config)
    st.download_button(
        "All prompts as CSV",
        table_csv(_with_counts(both)),
        "evaluation.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _with_counts(both: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column that says which answers count, where some prompts have several."""
    if ANSWERS not in both:
        return both
    return both.assign(counts=[any_of(len(answers or ())) for answers in both[ANSWERS]])


def _of_given(both: pd.DataFrame, lost: pd.DataFrame) -> str:
    """Return how many prompts with an answer of their own are lost, where others are scored on what the dense model said itself."""
    has_answer = both["answer_source"] == "given"
    if has_answer.all():
        return ""
    return (
        f" With an answer of their own: {int(has_answer[lost.index].sum())} of {int((has_answer & both['dense_match']).sum())} are lost; "
        "the others are scored on what the dense model says itself."
    )
