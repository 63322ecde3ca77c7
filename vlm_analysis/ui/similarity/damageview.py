"""Cosine against measured damage, and the job that measures it."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.selection.certainty.against import cosine_against_damage, misleading_words
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.ui.common.clusterfield import where_it_runs
from vlm_analysis.ui.common.downloads import PICTURE, offer_table
from vlm_analysis.ui.common.inputs import ScoreInputs, missing_to_measure, pick_domain, prompts_of, say_missing
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import METRIC_HELP, escaped
from vlm_analysis.ui.common.work import clustered, job
from vlm_analysis.words import counted

By = Literal["damage_kl", "damage_nll"]
BY: dict[By, str] = {"damage_kl": "KL to dense", "damage_nll": "answer NLL"}


def damage_view(inputs: ScoreInputs) -> None:
    """Draw cosine against damage where it was measured, else the next step."""
    if inputs.problem:
        st.error(escaped(inputs.problem))
    if inputs.damage is None:
        st.markdown(
            "Cosine is cheap; the truth is what happens to the answers when a layer is left out. Measured once, it scores "
            "layers like any criterion, and shows which layers cosine gets wrong on this model."
        )
    else:
        say_set_aside(inputs.damage.set_aside, len(inputs.damage.ids))
        _scatter(inputs, inputs.damage)
    _measure(inputs)


def _scatter(inputs: ScoreInputs, damage: Damage) -> None:
    from vlm_analysis.figures.rankings import damage_scatter

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
    target = pick_domain(inputs.recording, "On prompts of", "damage_target", words, right)
    try:
        frame = cosine_against_damage(inputs.recording, damage, inputs.group, target, by=by)
    except StrataError as error:
        st.caption(escaped(error))
        return
    for sentence in misleading_words(frame):
        st.markdown(escaped(sentence))
    figure = damage_scatter(frame, by, y_title=f"damage: {BY[by]}, nats")
    st.plotly_chart(figure, key="damage-scatter", config=PICTURE, alt="Damage of each layer over its block influence")
    explained(
        f"Each point is a layer. Across: [[block_influence]], 1 − mean cos(x, y) over {inputs.group} tokens (ShortGPT, "
        "arXiv:2403.03853). Up: [[damage|what leaving out this layer alone does]] to the answers, in nats (as in SLEB, "
        "arXiv:2402.09025). An outlier's two ranks lie at least a third of the layers, and 2, apart (our choice)."
    )
    with st.expander("Numbers"):
        offer_table(frame, "cosine-against-damage", alt="Block influence and damage of each layer")


def _measure(inputs: ScoreInputs) -> None:
    """Draw the button that measures what is not measured yet."""
    recording, damage = inputs.recording, inputs.damage
    n_left = len(set(range(recording.n_layers)) - set(recording.model.locked)) if damage is None else 0
    if n_left:
        prompts, missing = prompts_of(recording), missing_to_measure(recording)
        st.caption(
            f"To measure: {n_left} of {recording.n_layers} layers, each left out alone on {counted(recording.n_prompts, 'prompt')}: "
            f"{counted(n_left * recording.n_prompts, 'answer')} to score, and those of the dense model where it was "
            f"not evaluated yet. A job that "
            "is cancelled is taken up where it stopped."
        )
        if missing:
            say_missing(missing)
        elif prompts is not None:
            cluster, own = where_it_runs("damage"), bench()
            st.button(
                "Measure damage",
                type="primary",
                icon=":material/troubleshoot:",
                on_click=start,
                args=(
                    "damage",
                    f"Measuring damage on {prompts.name}",
                    clustered(cluster, own, job(own.measure_damage, prompts)),
                    prompts.id,
                ),
                disabled=(view := current("damage")) is not None and view.active,
            )
            same_line(line_of("sweep", prompts, leave_one_out=True, cluster=cluster))
    job_panel("damage", "What was measured is kept: measure again to go on.")
