"""The candidates: every criterion with every strategy and budget, and how sure a candidate is."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.selection.certainty.masks import SPAN_GROUPS, mask_stability, mask_words
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.selection.strategies.budgets import Share
from vlm_analysis.selection.strategies.make import make_mask, random_masks
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.ui.common.editor import CANDIDATES, locked_by_user
from vlm_analysis.ui.common.inputs import ScoreInputs, ask_options, choose_criteria, taken, unprotected
from vlm_analysis.ui.common.sameline import line_of, recording_id, same_line
from vlm_analysis.ui.common.text import GROUP_HELP, NEEDS, escaped
from vlm_analysis.ui.masks.budget import Budget, ask_budget
from vlm_analysis.ui.masks.presetform import asks_preset, preset_candidates
from vlm_analysis.ui.masks.searchview import search_form

N_RANDOM = 5


def candidates(inputs: ScoreInputs) -> dict[str, Edit]:
    """Draw the choice of strategy, budget and what they take; returns the masks, by their names on screen."""
    if asks_preset():
        masks, refused = preset_candidates(inputs)
        return _drawn(masks, refused)
    left, _ = st.columns([2, 3])
    strategy = left.selectbox(
        "Strategy",
        list(STRATEGIES),
        format_func=lambda key: STRATEGIES[key].title,
        key="candidate_strategy",
        persist_state="session",
        help="How scores, spans of layers or nothing become a mask.",
    )
    row = STRATEGIES[strategy]
    st.caption(escaped(f"{row.title}: {row.source}. Needs {NEEDS[row.needs]}."))
    if row.needs == "model":
        search_form(inputs, strategy)
        st.session_state[CANDIDATES] = {}
        return {}
    budget = ask_budget(inputs)
    criteria = choose_criteria(inputs) if row.needs == "scores" else []
    names = taken(criteria) | ({"seed"} if "seed" in row.takes else set())
    names |= {"domain"} if "domain" in row.takes else set()
    score_options = ask_options(inputs, names)
    options = _strategy_options(strategy)
    masks: dict[str, Edit] = {}
    if budget.amount is not None:
        key = repr((inputs.key, strategy, budget.key, criteria, sorted(score_options.items()), sorted(options.items())))
        masks, refused = _make(key, inputs, strategy, budget, criteria, score_options, options)
        _drawn(masks, refused)
    else:
        st.session_state[CANDIDATES] = masks
    if masks:
        same_line(*_lines(strategy, budget, criteria, score_options, options))
        _how_sure(inputs, strategy, budget, criteria, score_options, options)
    return masks


def _drawn(masks: dict[str, Edit], refused: list[tuple[str, str]]) -> dict[str, Edit]:
    """Say why masks are missing, and return the others, which are the candidates now."""
    for reason in dict.fromkeys(reason for _, reason in refused):
        st.warning(escaped(f"{', '.join(title for title, why in refused if why == reason)}: {reason}"))
    st.session_state[CANDIDATES] = masks
    return masks


def _strategy_options(strategy: str) -> dict[str, Any]:
    """Draw what only this strategy takes."""
    takes = STRATEGIES[strategy].takes
    options: dict[str, Any] = {}
    if "gap" in takes:
        options["gap"] = st.slider(
            "Gap: layers kept between any two dropped ones",
            0,
            8,
            1,
            key="candidate_gap",
            persist_state="session",
            help="1: no two neighbours go. 0: the same as first k.",
        )
    if "token_group" in takes:
        picked = st.selectbox(
            "Tokens of the spans",
            ["", *GROUP_HELP],
            format_func=lambda group: group or f"the strategy's own: {SPAN_GROUPS[strategy]}",
            key=f"candidate_tokens:{strategy}",
            persist_state="session",
            help="Over which tokens the change of a run of layers is measured; the switch above the heatmap does not count here.",
        )
        options["token_group"] = picked or None
    return options


@st.cache_resource(show_spinner=False, max_entries=64)
def _make(
    key: str,
    _inputs: ScoreInputs,
    strategy: str,
    _budget: Budget,
    criteria: list[str],
    score_options: dict[str, Any],
    options: dict[str, Any],
) -> tuple[dict[str, Edit], list[tuple[str, str]]]:
    """Return the masks by their names on screen, and why others could not be made; kept between script runs by the key."""
    inputs, budget = _inputs, _budget
    assert budget.amount is not None
    row, by_title, refused = STRATEGIES[strategy], {}, []
    kinds: dict[str, Any] = {"locks": inputs.locks, "costs": budget.costs}
    for criterion in criteria if row.needs == "scores" else [""]:
        title = CRITERIA[criterion].title if criterion else row.title
        if criterion and "target" in CRITERIA[criterion].takes:
            title += f" ({score_options.get('target')})"
        try:
            if criterion:
                scores = score_layers(inputs.recording, criterion, damage=inputs.damage, **score_options)
                by_title[title] = make_mask(scores, strategy, budget.amount, **kinds, **options)
            elif row.needs == "recording":
                only: dict[str, Any] = {"domain": score_options.get("domain"), **options}
                by_title[title] = make_mask(None, strategy, budget.amount, recording=inputs.recording, **kinds, **only)
            elif strategy == "random-draw":
                seed, n_layers = int(score_options["seed"]), inputs.recording.n_layers
                masks = random_masks(N_RANDOM, budget.amount, n_layers=n_layers, seed=seed, **kinds)
                by_title |= {f"{title}, seed {seed + number}": mask for number, mask in enumerate(masks)}
            else:
                by_title[title] = make_mask(None, strategy, budget.amount, n_layers=inputs.recording.n_layers, **kinds)
        except StrataError as error:
            refused.append((title, str(error)))
    return by_title, refused


def _lines(
    strategy: str, budget: Budget, criteria: list[str], score_options: dict[str, Any], options: dict[str, Any]
) -> list[str]:
    """Return the line of each candidate; none for a budget in measured time, which needs the model."""
    amount = budget.amount
    if isinstance(amount, Share) and amount.of != "parameters":
        return []
    unit = "parameters" if isinstance(amount, Share) else "ratio" if isinstance(amount, float) else None
    arguments = {
        **score_options,
        "gap": options.get("gap"),
        "span_tokens": options.get("token_group"),
        "unprotect": unprotected(),
        "keep": ",".join(map(str, locked_by_user())),
    }
    arguments |= {"strategy": strategy, "budget": amount.share if isinstance(amount, Share) else amount, "unit": unit}
    each: list[dict[str, Any]] = [{"criterion": one} for one in criteria] or [{}]
    if strategy == "random-draw":
        each = [{"seed": int(score_options["seed"]) + number} for number in range(N_RANDOM)]
    return [line_of("mask", recording_id(), model=False, **{**arguments, **one}) for one in each]


def _how_sure(
    inputs: ScoreInputs,
    strategy: str,
    budget: Budget,
    criteria: list[str],
    score_options: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Draw, for a candidate that is chosen, how often its layers go when the prompts are drawn again."""
    needs = STRATEGIES[strategy].needs
    if needs not in ("scores", "recording") or budget.amount is None:
        return
    picked = st.selectbox(
        "How sure is",
        criteria if needs == "scores" else [strategy],
        index=None,
        format_func=lambda key: CRITERIA[key].title if key in CRITERIA else STRATEGIES[key].title,
        key="candidate_sure",
        placeholder="Choose a candidate",
        help="The prompts are drawn 200 times with replacement within each domain, and the mask is made anew each time.",
    )
    if picked is None:
        return
    question: dict[str, Any] = (
        {**score_options, "damage": inputs.damage, **options}
        if needs == "scores"
        else {"domain": score_options.get("domain")}
    )
    question = {name: value for name, value in {**question, **options}.items() if value is not None}
    kinds: dict[str, Any] = {"locks": inputs.locks, "costs": budget.costs}
    try:
        sure = mask_stability(
            inputs.recording,
            picked if needs == "scores" else None,
            strategy,
            budget.amount,
            **kinds,
            **question,
        )
    except StrataError as error:
        st.caption(escaped(error))
        return
    for sentence in mask_words(sure):
        st.markdown(escaped(sentence))
