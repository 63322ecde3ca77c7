"""Three ways to fill the question to many masks at once, each with the time that it may take: quick, thorough, the saved masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.strategies.many import COMPARED, PLAIN, RANDOM, SPACED
from vlm_analysis.ui.common.pace import seconds_a_pass
from vlm_analysis.ui.common.session import model_slot, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, duration
from vlm_analysis.workbench.bench import ALL_CRITERIA
from vlm_analysis.workbench.comparisons import Question
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Item

CHOOSE, REPORT, MASKS = "compare_choose", "compare_report", "compare_masks"
QUICK_CRITERIA, QUICK_STRATEGIES = ("block-influence", "target-aware"), (PLAIN, SPACED, "random-draw")
QUICK_MOST, QUICK_DRAWS, QUICK_PROMPTS = 4, 2, 20  # budgets, random draws, prompts of a domain; our choice
_PROBLEM = "presets:problem"


T = TypeVar("T")


@dataclass(frozen=True)
class Preset:
    """What a preset asks, what that is in words, and what its button does to the form."""

    label: str
    question: Question
    n_prompts: int
    about: str
    fill: Callable[[], None]


def draw_presets(info: ModelInfo, choose: Item, report: Item, count: Callable[[Question], int]) -> None:
    """Draw a button for each preset with its time; pressed, it fills the form below.

    Args:
        count: returns how many masks a question has at most.
    """
    pass_s = seconds_a_pass(model_slot().fingerprint, report)
    st.caption("Fill the form below; the times are the most that it may take:")
    with st.container(horizontal=True):
        for preset in presets(info, choose, report):
            masks = count(preset.question)
            st.button(
                f"{preset.label} · {time_words(preset.question, masks, preset.n_prompts, info.n_layers, pass_s)}",
                on_click=preset.fill,
                key=f"preset-{preset.label}",
                disabled=not masks,
                help=f"{preset.about} {counted(masks, 'mask')} at most on {counted(preset.n_prompts, 'prompt')}.",
            )
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(escaped(problem))


def presets(info: ModelInfo, choose: Item, report: Item) -> list[Preset]:
    """Return the presets for a model and prompts."""
    free, n = len(info.locks.free), n_asked(choose, report)
    few, most = max(1, min(QUICK_MOST, free)), max(1, min(info.n_layers // 2, free))
    saved = tuple(item.id for item in workspace().items("masks") if item.details.get("n_layers") == info.n_layers)
    quick = Question(choose.id, report.id, QUICK_CRITERIA, QUICK_STRATEGIES, few, QUICK_DRAWS)
    n_quick = min(
        int(report.details.get("n", 0)),
        QUICK_PROMPTS * max(1, int(report.details.get("n_domains", len(report.details.get("domains", "x"))))),
    )
    thorough = Question(choose.id, report.id, ALL_CRITERIA, COMPARED, most)
    mine = Question(choose.id, report.id, (), (), 1, masks=saved)
    return [
        Preset(
            "Quick",
            quick,
            n_quick,
            f"Block influence and target-aware, plain and spaced, beside random draws, {counted(few, 'layer')} at most, on the first "
            f"{QUICK_PROMPTS} prompts of each domain.",
            lambda: _fill(info, quick, report),
        ),
        Preset(
            "Thorough",
            thorough,
            n,
            f"Every criterion and strategy, {counted(most, 'layer')} at most.",
            lambda: _fill(info, thorough),
        ),
        Preset("My saved masks", mine, n, "The masks that you saved, as they are.", lambda: _fill(info, mine)),
    ]


def possible_criteria(one_domain: bool) -> list[str]:
    """Return the criteria to compare; of those that compare domains, one domain leaves only the target's own."""
    return [
        name
        for name, row in CRITERIA.items()
        if name != RANDOM and not (one_domain and row.needs == "domains" and name != "target-aware")
    ]


def unless_set(key: str, default: T) -> T | None:
    """Return the default of a widget; None where a preset has set its value, which is not to be given twice."""
    return None if key in st.session_state else default


def _fill(info: ModelInfo, question: Question, shorten: Item | None = None) -> None:
    """Write a question into the form, as a button's callback; with `shorten`, on the first prompts of each domain of a set."""
    state = st.session_state
    state["compare_preset"], state["compare_recover"], state["compare_vision"] = False, [], 0
    state[MASKS] = bool(question.masks)
    if not question.masks:
        for one_domain in (True, False):
            possible = possible_criteria(one_domain)
            state[f"compare_criteria:{one_domain}"] = [name for name in possible if name in question.criteria]
        state["compare_strategies"] = list(question.strategies)
        state[f"compare_most:{info.n_layers}"] = question.most
        state["compare_draws"] = question.n_draws
    if shorten is not None:
        try:
            item = _first_prompts(shorten)
        except StrataError as error:
            state[_PROBLEM] = str(error)
            return
        state[CHOOSE] = state[REPORT] = item.id


def _first_prompts(item: Item) -> Item:
    """Return the saved set of the first prompts of each domain of a set; the set itself where it has no more."""
    prompts: PromptSet = open_item(item)
    few = [prompt for domain in prompts.domains for prompt in prompts.for_domain(domain)[:QUICK_PROMPTS]]
    if len(few) == len(prompts):
        return item
    return keep_prompts(workspace(), PromptSet(few), f"{item.name}, first {QUICK_PROMPTS} of each domain")


def n_asked(choose: Item, report: Item) -> int:
    """Return on how many prompts each mask runs: those reported on, and those it is chosen on where they are others."""
    each = {item.prompts: int(item.details.get("n", 0)) for item in (choose, report)}
    return sum(each.values())


def time_words(
    question: Question, masks: int, n_prompts: int, n_layers: int, pass_s: float | None, more_passes: int = 0
) -> str:
    """Return the most time that a question may take, in words.

    A pass for each mask and prompt, two a prompt for its recording and the dense model, one a layer and prompt where damage is
    measured, and `more_passes` besides; what masks share and what is known already is not taken off.
    """
    if pass_s is None:
        return "time not known yet"
    passes = (masks + 2 + (n_layers if "damage" in question.needs else 0)) * n_prompts + more_passes
    return f"up to {duration(max(1.0, passes * pass_s))}"
