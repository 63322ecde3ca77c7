"""The Evaluate page's parts: scores per domain, the prompts that broke, and both models' answers to one prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.errors import PromptError, StrataError
from vlm_analysis.evaluation import METRICS, Evaluation, retention, retention_interval
from vlm_analysis.masks import PruneMask
from vlm_analysis.progress import Cancelled
from vlm_analysis.prompts import Prompt, PromptSet
from vlm_analysis.story import outcome_frame
from vlm_analysis.ui.drafts import preview
from vlm_analysis.ui.session import opened, workspace
from vlm_analysis.ui.text import METRIC_HELP, METRIC_TITLES, escaped, layer_list
from vlm_analysis.ui.work import ask_both, find_dense, see_prompt
from vlm_analysis.workspace import Item

T = TypeVar("T")


def outcome(evaluation: Evaluation) -> Evaluation | None:
    """Draw the scores per domain beside the dense model's; returns the dense evaluation where it is saved."""
    item = find_dense(workspace(), evaluation.model.fingerprint, evaluation.prompts)
    dense = None if item is None else _open_dense(item)
    responses = int((evaluation.by_prompt["answer_source"] != "given").sum())
    st.text(
        f"{evaluation.model.name} ({evaluation.model.fingerprint[:8]}) without layers {layer_list(evaluation.mask.dropped)}: "
        f"{evaluation.mask.budget} of {evaluation.mask.n_layers}."
    )
    if responses:
        st.info(
            f"{responses} prompts have no answer of their own: they are scored on the dense model's response (at most 64 tokens)."
        )
    if dense is not None and not evaluation.is_dense:
        _retention_cards(evaluation, dense)
        from vlm_analysis.figures import damage_bars

        st.plotly_chart(
            damage_bars(outcome_frame(evaluation, dense)), key="damage-bars", config={"displayModeBar": False}
        )
    _score_table(evaluation, dense)
    return dense


def _open_dense(item: Item) -> Evaluation | None:
    """Return the saved dense evaluation; a damaged one is named, and the next evaluation replaces it."""
    try:
        dense: Evaluation = opened(item)
    except StrataError as error:
        st.warning(escaped(error))
        return None
    return dense


def _retention_cards(evaluation: Evaluation, dense: Evaluation) -> None:
    kept, counts = retention(evaluation, dense), dense.by_domain["n"].to_dict()
    columns = st.columns(min(4, len(kept)))
    for index, (domain, share) in enumerate(kept.items()):
        low, high = retention_interval(evaluation, dense, str(domain))
        columns[index % len(columns)].metric(
            f"Retention, {escaped(domain)} (n = {counts[domain]})",
            "not defined" if pd.isna(share) else f"{share:.0%}",
            None if pd.isna(low) else f"90 % interval {low:.0%} to {high:.0%}",
            delta_color="off",
            delta_arrow="off",
            border=True,
            help=METRIC_HELP["retention"] + " The interval is a paired bootstrap over these prompts.",
        )


def _score_table(evaluation: Evaluation, dense: Evaluation | None) -> None:
    table = evaluation.by_domain.reset_index()
    if dense is not None and not evaluation.is_dense:
        for metric in ("exact_match", "answer_nll"):
            table.insert(list(table.columns).index(metric), f"{metric}_dense", dense.by_domain[metric].to_numpy())
    config = {
        metric: st.column_config.NumberColumn(METRIC_TITLES[metric], help=METRIC_HELP[metric], format="%.3f")
        for metric in METRICS
    }
    config |= {
        f"{metric}_dense": st.column_config.NumberColumn(
            f"{METRIC_TITLES[metric]}, dense", help=METRIC_HELP[metric], format="%.3f"
        )
        for metric in ("exact_match", "answer_nll")
    }
    st.dataframe(table, hide_index=True, width="stretch", column_config=config)


def broken_prompts(evaluation: Evaluation, dense: Evaluation, prompts: PromptSet | None) -> None:
    """Draw the prompts that only the dense model answers exactly, most damaged first, and those that only the pruned one does."""
    both = evaluation.by_prompt.assign(
        dense_match=dense.by_prompt["exact_match"], dense_nll=dense.by_prompt["answer_nll"]
    )
    both["extra_nll"] = both["answer_nll"] - both["dense_nll"]
    lost = both[both["dense_match"] & ~both["exact_match"]].sort_values("extra_nll", ascending=False)
    won = both[~both["dense_match"] & both["exact_match"]]
    st.subheader("What broke")
    st.text(
        f"{len(lost)} of {int(both['dense_match'].sum())} prompts the dense model answers exactly are lost; "
        f"{len(won)} it misses are now answered."
    )
    if len(lost):
        shown = lost[["id", "domain", "answer", "extra_nll", "token_agreement", "kl_to_dense"]].copy()
        if prompts is not None and prompts.fingerprint == evaluation.prompts:
            questions = {prompt.id: prompt.question for prompt in prompts}
            shown.insert(2, "question", shown["id"].map(questions))
        config = {
            "extra_nll": st.column_config.NumberColumn("NLL above dense", format="%.3f", help=METRIC_HELP["answer_nll"])
        }
        config |= {
            metric: st.column_config.NumberColumn(METRIC_TITLES[metric], help=METRIC_HELP[metric], format="%.3f")
            for metric in ("token_agreement", "kl_to_dense")
        }
        st.dataframe(shown, hide_index=True, width="stretch", column_config=config)
    st.download_button(
        "All prompts as CSV",
        both.to_csv(index=False),
        "evaluation.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def side_by_side(prompts: PromptSet, prompts_id: str, mask: PruneMask) -> None:
    """Draw one prompt with the answers of the dense and the pruned model, asked on a click."""
    st.subheader("Ask both")
    left, right = st.columns([1, 2])
    index = left.selectbox(
        "Prompt",
        range(len(prompts)),
        format_func=lambda at: f"{prompts[at].id} · {prompts[at].question[:60]}",
        key=f"ask_prompt:{prompts_id}",
    )
    prompt = prompts[index]
    for number, name in enumerate(prompt.image_hashes):
        try:
            left.image(preview(name, prompt, number), width=192 if number == 0 else 96)
        except PromptError as error:
            left.error(escaped(error))
    with right.form("ask", border=False):
        question = st.text_area(
            "Question",
            prompt.question,
            key=f"ask_question:{prompts_id}:{prompt.id}",
            max_chars=2000,
            help="Change it as you like.",
        )
        with st.container(horizontal=True):
            asked = st.form_submit_button("Ask both", icon=":material/compare_arrows:")
            seen = st.form_submit_button("Show what the model is given", icon=":material/visibility:")
    if asked:
        _ask(prompt, question, mask, right)
    if seen:
        _show_given(replace(prompt, question=question), right)
    if prompt.answer:
        right.caption("Reference answer")
        right.text(prompt.answer)


def _answered(call: Callable[[], T], doing: str, place: DeltaGenerator) -> T | None:
    """Return what a short question to the model gave; None where it failed, with the reason on the page."""
    try:
        with place, st.spinner(doing):
            return call()
    except StrataError as error:
        place.error(escaped(error))
    except (TimeoutError, Cancelled, RuntimeError) as error:
        place.error(f"No answer came: {escaped(error)}. Try again when the running job is done.")
    return None


def _show_given(prompt: Prompt, place: DeltaGenerator) -> None:
    given = _answered(lambda: see_prompt(prompt), "Preparing the prompt", place)
    if given is not None:
        text, counts = given
        place.code(text, language=None, wrap_lines=True)
        place.text("Tokens: " + ", ".join(f"{group} {count}" for group, count in counts.items()))
        place.caption(
            "The processor replaces each image placeholder by that image's vision tokens; the answer follows the text."
        )


def _ask(prompt: Prompt, question: str, mask: PruneMask, place: DeltaGenerator) -> None:
    asked = Prompt(prompt.images, question, prompt.domain, prompt.id)
    answers = _answered(lambda: ask_both(asked, mask), "Asking both models", place)
    if answers is None:
        return
    dense, pruned = answers
    one, other = place.columns(2)
    one.caption("Dense model")
    one.text(dense or "(nothing)")
    other.caption(f"Without layers {layer_list(mask.dropped)}")
    other.text(pruned or "(nothing)")
    if dense == pruned:
        place.caption("The same answer.")
