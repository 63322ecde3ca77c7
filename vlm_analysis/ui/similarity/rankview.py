"""Scores with what the prompts can tell of them, and how far rankings agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.selection.certainty.agreement import agreement, domain_items, group_items
from vlm_analysis.selection.certainty.ranks import ALPHA, RankStability, rank_stability, stability_words
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.scores import LayerScores
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.ui.common.downloads import PICTURE, offer_files, offer_table
from vlm_analysis.ui.common.inputs import ScoreInputs, ask_options, choose_criteria, layers_slider, taken
from vlm_analysis.ui.common.sameline import line_of, recording_id, same_line
from vlm_analysis.ui.common.text import escaped

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BETWEEN = {
    "criteria": "Every criterion that this recording can be scored with.",
    "domains": "The ranking by similarity on the prompts of each domain.",
    "token groups": "One criterion's ranking over each group of tokens.",
}


def score_picture(inputs: ScoreInputs) -> None:
    """Draw one criterion's score of every layer with its spread, its rank intervals and what the prompts settle."""
    from vlm_analysis.figures.profiles import score_bars

    reasons = inputs.reasons()
    criterion = _pick_criterion(list(CRITERIA), "score_criterion")
    row = CRITERIA[criterion]
    if reasons[criterion]:
        st.info(escaped(reasons[criterion]), icon=":material/arrow_forward:")
        _explain(criterion)
        return
    options = ask_options(inputs, taken([criterion]))
    try:
        scores = score_layers(inputs.recording, criterion, damage=inputs.damage, **options)
    except StrataError as error:
        st.caption(escaped(error))
        return
    figure = score_bars(
        scores.values,
        scores.spread,
        scores.order,
        st.session_state.mask,
        inputs.recording.model.locks,
        y_title=row.title,
        scale=_reach(scores, inputs.free),
    )
    st.plotly_chart(figure, key="score-bars", config=PICTURE, alt=f"{row.title} of each layer")
    same_line(line_of("rank", recording_id(), model=False, criterion=criterion, **options))
    _explain(criterion)
    st.caption(
        "The axis fits the layers that may go. Whiskers: standard deviation when the prompts are drawn again with replacement, "
        "within each domain."
    )
    _stability(inputs, criterion, scores, options)


def _explain(criterion: str) -> None:
    row = CRITERIA[criterion]
    st.caption(escaped(f"{row.title}: {row.formula}; the {row.drop} go first. {row.source}."))


def _pick_criterion(options: list[str], key: str) -> str:
    return st.selectbox(
        "Criterion",
        options,
        format_func=lambda name: CRITERIA[name].title,
        key=key,
        persist_state="session",
        help="Its formula and source stand below the picture.",
    )


def _reach(scores: LayerScores, free: list[int]) -> tuple[float, float] | None:
    """Return the ends of the axis that show the layers that may go with their spread; protected ones may reach beyond."""
    spread = np.nan_to_num(scores.spread[free])
    ends = np.concatenate([scores.values[free] - spread, scores.values[free] + spread, [0.0]])
    ends = ends[np.isfinite(ends)]
    low, high = float(ends.min()), float(ends.max())
    air = 0.05 * (high - low)
    return (low - air if low < 0 else low, high + air) if high > low else None


def _stability(inputs: ScoreInputs, criterion: str, scores: LayerScores, options: dict[str, Any]) -> None:
    """Draw the interval of each layer's place and say in words what the prompts do not settle."""
    st.markdown("**How sure the order is**")
    budget = layers_slider(inputs)
    try:
        sure = _sure(inputs.key, inputs, criterion, options)
    except StrataError as error:
        st.caption(escaped(error))
        offer_table(_score_frame(scores, None, budget), f"scores-{criterion}", alt="Scores of the layers")
        return
    figure, sentences = _settled(inputs.key, inputs, sure, criterion, options, budget)
    for sentence in sentences:
        st.markdown(escaped(sentence))
    st.plotly_chart(
        figure, key="rank-intervals", config=PICTURE, alt="Each layer's place in the order, with its interval"
    )
    st.caption(
        "Each layer's place with the interval that holds 90 % of its places (5 % to 95 %) when the prompts are drawn 1000 times "
        "with replacement within each domain; prompts that share a picture are one group and drawn together. Layers are told apart by a t "
        f"test of their scores' difference over groups, corrected (Holm) for all {sure.n_pairs} pairs of layers that may go: at most one "
        f"ranking in {1 / ALPHA:.0f} has a false claim (our choice)."
    )
    with st.expander("Numbers"):
        offer_table(_score_frame(scores, sure, budget), f"scores-{criterion}", alt="Scores of the layers")


@st.cache_resource(show_spinner=False, max_entries=8)
def _sure(key: str, _inputs: ScoreInputs, criterion: str, options: dict[str, Any]) -> RankStability:
    return rank_stability(_inputs.recording, criterion, damage=_inputs.damage, locks=_inputs.locks, **options)


@st.cache_resource(show_spinner=False, max_entries=8)
def _settled(
    key: str, _inputs: ScoreInputs, _stable: RankStability, criterion: str, options: dict[str, Any], budget: int
) -> tuple[Figure, list[str]]:
    """Return the picture of the layers' places, and in sentences what the prompts settle at a budget."""
    from vlm_analysis.figures.rankings import rank_intervals

    low, high = _stable.interval()
    unsure = {layer for pair in _stable.not_apart(budget) for layer in pair}
    figure = rank_intervals(low, high, _stable.order, budget, unsure=unsure, locks=_inputs.locks)
    return figure, stability_words(_stable, budget)


def _score_frame(scores: LayerScores, sure: RankStability | None, budget: int) -> pd.DataFrame:
    frame = pd.DataFrame({"layer": np.arange(len(scores.values)), "score": scores.values, "spread": scores.spread})
    if sure is not None:
        rank = {layer: number for number, layer in enumerate(sure.order, start=1)}
        low, high = sure.interval()
        frame["place"] = frame["layer"].map(rank).astype("Int64")
        frame["place_5"], frame["place_95"] = low + 1, high + 1
        frame[f"goes_of_{budget}"] = sure.chance(budget)
    return frame


# --- agreement -----------------------------------------------------------------------------------------------------


def agreement_view(inputs: ScoreInputs) -> None:
    """Draw Kendall's tau-b between criteria, domains or token groups as a matrix, with its downloads."""
    from vlm_analysis.figures.rankings import agreement_heatmap

    between = st.segmented_control(
        "Agreement between",
        list(BETWEEN),
        default="criteria",
        required=True,
        key="agreement_between",
        persist_state="session",
        help=" ".join(f"**{name}**: {words}" for name, words in BETWEEN.items()),
    )
    try:
        items = _items(inputs, between)
        frame = agreement(inputs.recording, items, layers=inputs.free)
    except StrataError as error:
        st.caption(escaped(error))
        return
    if len(frame) < 2:
        st.info(f"It takes two rankings to compare; between {between} there is {len(frame)} here.")
        return
    st.plotly_chart(
        agreement_heatmap(frame), key="agreement", config=PICTURE, alt="Agreement of each pair of drop orders"
    )
    st.caption(
        "Kendall's tau-b of two drop orders, over the layers that may go: (pairs of layers ordered alike − pairs ordered the other "
        "way) / √(pairs not tied in the one · pairs not tied in the other). 1: the same order; 0: unrelated; −1: the reverse. "
        "Kendall, Biometrika 33 (1945). Hatched: not defined, as one ranking is all ties or has no scores."
    )
    st.markdown(escaped(_extremes(frame)))
    offer_files(frame.rename_axis("ranking").reset_index(), f"agreement-{between.replace(' ', '-')}")


def _items(inputs: ScoreInputs, between: str) -> dict[str, dict[str, Any]]:
    if between == "domains":
        return domain_items(inputs.recording, token_group=inputs.group)
    if between == "token groups":
        names = [key for key in inputs.usable() if "token_group" in CRITERIA[key].takes]
        criterion = _pick_criterion(names, "agreement_criterion")
        options = ask_options(inputs, taken([criterion]) - {"token_group"})
        _explain(criterion)
        return group_items(inputs.recording, criterion, **{k: v for k, v in options.items() if k != "token_group"})
    criteria = choose_criteria(inputs)
    options = ask_options(inputs, taken(criteria))
    return {CRITERIA[key].title: {**options, "criterion": key, "damage": inputs.damage} for key in criteria}


def _extremes(frame: pd.DataFrame) -> str:
    """Return in words which two rankings agree most and which least."""
    names, matrix = list(map(str, frame.index)), frame.to_numpy()
    pairs = [(matrix[i, j], names[i], names[j]) for i in range(len(names)) for j in range(i + 1, len(names))]
    pairs = [pair for pair in pairs if np.isfinite(pair[0])]
    if not pairs:
        return "No two of them can be compared."
    (most, one, other), (least, third, fourth) = max(pairs), min(pairs)
    text = f"Most alike: {one} and {other} (tau {most:.2f})."
    return text if len(pairs) == 1 else f"{text} Least alike: {third} and {fourth} (tau {least:.2f})."
