"""Cosine against measured damage, the jobs that measure it, and greedy pruning on it."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.rank import Damage, cosine_against_damage, misleading_words
from vlm_analysis.ui.asking import Ranked, missing_to_measure, pick_domain, prompts_of, say_missing, unprotected
from vlm_analysis.ui.budget import layers_slider
from vlm_analysis.ui.downloads import PICTURE, offer_table
from vlm_analysis.ui.jobs import current, job_panel, start
from vlm_analysis.ui.text import METRIC_HELP, escaped
from vlm_analysis.ui.work import damage_work, greedy_work

By = Literal["damage_kl", "damage_nll"]
BY: dict[By, str] = {"damage_kl": "KL to dense", "damage_nll": "answer NLL"}
SCORES = {"kl_to_dense": "KL to dense", "answer_nll": "answer NLL"}


def damage_view(ranked: Ranked) -> None:
    """Draw cosine against damage where it was measured, else the next step; then greedy pruning."""
    if ranked.problem:
        st.error(escaped(ranked.problem))
    if ranked.damage is None:
        st.markdown(
            "Cosine is cheap; the truth is what happens to the answers when a layer is left out. Measured once, that is a ranking "
            "of its own, and shows which layers cosine gets wrong on this model."
        )
    else:
        _scatter(ranked, ranked.damage)
    _measure(ranked)
    st.divider()
    st.markdown("**Greedy on measured damage**")
    greedy_form(ranked)


def _scatter(ranked: Ranked, damage: Damage) -> None:
    from vlm_analysis.figures import damage_scatter

    left, right = st.columns(2)
    by: By = left.segmented_control(
        "Damage as",
        list(BY),
        default="damage_kl",
        required=True,
        format_func=BY.__getitem__,
        key="damage_by",
        persist_state="session",
        help=f"**KL to dense**: {METRIC_HELP['kl_to_dense']} **Answer NLL**: its increase. {METRIC_HELP['answer_nll']}",
    )
    words = "Whose cosines and damage are compared."
    target = pick_domain(ranked.recording, "On prompts of", "damage_target", words, right)
    try:
        frame = cosine_against_damage(ranked.recording, damage, ranked.group, target, by=by)
    except StrataError as error:
        st.caption(escaped(error))
        return
    for sentence in misleading_words(frame):
        st.markdown(escaped(sentence))
    figure = damage_scatter(frame, by, y_title=f"damage: {BY[by]}, nats")
    st.plotly_chart(figure, key="damage-scatter", config=PICTURE)
    st.caption(
        f"Each point is a layer. Across: block influence, 1 − mean cos(x, y) over {ranked.group} tokens (ShortGPT, arXiv:2403.03853). "
        "Up: what leaving out this layer alone does to the answers, in nats (as in SLEB, arXiv:2402.09025). An outlier's two ranks "
        "lie at least a third of the layers, and 2, apart (our choice)."
    )
    with st.expander("Numbers"):
        offer_table(frame, "cosine-against-damage")


def _measure(ranked: Ranked) -> None:
    """Draw the button that measures what is not measured yet."""
    recording, damage = ranked.recording, ranked.damage
    left = len(set(range(recording.n_layers)) - set(recording.model.locked)) if damage is None else 0
    if left:
        prompts, missing = prompts_of(recording), missing_to_measure(recording)
        st.caption(
            f"To measure: {left} of {recording.n_layers} layers, each left out alone on {recording.n_prompts} prompts: "
            f"{left * recording.n_prompts} answers to score, and those of the dense model where it was not evaluated yet. A job that "
            "is cancelled is taken up where it stopped."
        )
        if missing:
            say_missing(missing)
        elif prompts is not None:
            st.button(
                "Measure damage",
                type="primary",
                icon=":material/troubleshoot:",
                on_click=start,
                args=("damage", f"Measuring damage on {prompts.name}", damage_work(prompts), prompts.id),
                disabled=(view := current("damage")) is not None and view.active,
            )
    job_panel("damage", "What was measured is kept: measure again to go on.")


def greedy_form(ranked: Ranked) -> None:
    """Draw the button that prunes greedily on measured damage; its mask is saved."""
    recording = ranked.recording
    st.caption(
        "Drops the layer that harms least, measures all that are left again on top of it, and so on: SLEB, arXiv:2402.09025; KL as "
        "the damage is our choice. The mask is saved, and can be started from."
    )
    left, middle, right = st.columns(3)
    budget = layers_slider(ranked, left)
    score = middle.selectbox(
        "Damage as",
        list(SCORES),
        format_func=SCORES.__getitem__,
        key="greedy_score",
        persist_state="session",
        help=f"In nats; the lowest goes. **KL to dense**: {METRIC_HELP['kl_to_dense']}",
    )
    target = pick_domain(recording, "On prompts of", "greedy_target", "Whose answers should survive.", right)
    free = len(ranked.free)
    runs = sum(free - step for step in range(min(budget, free)))
    st.caption(
        f"Up to {runs} evaluations on {recording.n_prompts} prompts: {runs * recording.n_prompts} answers to score."
    )
    _start_greedy(ranked, budget, score, target)
    view = job_panel("greedy")
    if view is not None and view.status == "done":
        st.success("The greedy mask is saved: Start from it on the Candidates tab.", icon=":material/check:")


def _start_greedy(ranked: Ranked, budget: int, score: str, target: str | None) -> None:
    prompts, missing = prompts_of(ranked.recording), missing_to_measure(ranked.recording)
    if missing or prompts is None:
        say_missing(missing)
    else:
        asked = (prompts, budget, score, target, unprotected())
        st.button(
            "Prune greedily",
            icon=":material/stairs:",
            on_click=start,
            args=("greedy", f"Greedy pruning on {prompts.name}", greedy_work(*asked), prompts.id, *asked[1:]),
            disabled=budget > len(ranked.free) or ((view := current("greedy")) is not None and view.active),
        )
