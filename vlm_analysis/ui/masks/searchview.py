"""The form that searches for a mask on measured damage: greedy, beam and evolutionary."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.selection.search.objective import SCORES, Objective
from vlm_analysis.selection.search.search import most_tried
from vlm_analysis.selection.strategies.make import make_mask
from vlm_analysis.ui.common.clusterfield import where_it_runs
from vlm_analysis.ui.common.editor import locked_by_user
from vlm_analysis.ui.common.inputs import (
    ScoreInputs,
    forget_unknown,
    layers_slider,
    missing_to_measure,
    prompts_of,
    say_missing,
    unprotected,
)
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.sameline import layers_text, line_of, same_line
from vlm_analysis.ui.common.session import bench, is_shown
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import METRIC_HELP, escaped, layer_list
from vlm_analysis.ui.common.work import clustered, job
from vlm_analysis.words import METRIC_TITLES, counted, total_of_domains
from vlm_analysis.workbench.shelf import open_whole
from vlm_analysis.workbench.workspace import Item

TITLES = {"greedy": "Greedy", "beam": "Beam", "evolutionary": "Evolutionary"}
WORDS = {
    "greedy": "Drops the layer that harms least, measures all that are left again on top of it, and so on (SLEB, arXiv:2402.09025).",
    "beam": "Drops one layer more at a time from each of the best masks of the step before; the same layers reached twice are one "
    "mask. Our choice.",
    "evolutionary": "Starts from the masks of the criteria and from random ones. Children swap a layer, sometimes two, or cross two "
    "parents; the best stay. It is never worse than the best mask it starts from. Our choice.",
}
SETTINGS = {  # name: label, least, most, default, help
    "width": ("Width", 1, 16, 4, "How many masks go on from each step; 1 is greedy."),
    "population": ("Population", 4, 64, 16, "Masks of a generation, and of those that have children."),
    "generations": ("Generations", 1, 40, 8, "How often the best have children."),
}
TAKES = {"greedy": (), "beam": ("width",), "evolutionary": ("population", "generations")}
HARMS = {
    "kl_to_dense": METRIC_HELP["kl_to_dense"],
    "answer_nll": "The increase over the dense model, in nats a token.",
    "exact_match": "What is lost of the dense model's score: 1 − retention, without domains on which that is 0.",
    "token_agreement": "Positions at which the first choice is no longer the dense model's.",
}


def search_form(inputs: ScoreInputs, strategy: str) -> None:
    """Draw what a search is asked and the button that starts it; its mask is saved."""
    st.caption(f"{WORDS[strategy]} The mask is saved, and stands in the table below.")
    left, middle, right = st.columns(3)
    budget = layers_slider(inputs, left)
    score = middle.selectbox(
        "Damage as",
        SCORES,
        format_func=METRIC_TITLES.__getitem__,
        key="search_score",
        persist_state="session",
        help="The lowest harm wins; ties go by KL. These definitions are our choice. "
        + " ".join(f"**{METRIC_TITLES[score]}**: {words}" for score, words in HARMS.items()),
    )
    objective = Objective(score, *_whose(inputs.recording, right))
    settings = _ask_settings(TAKES[strategy])
    free, count = len(inputs.free), inputs.recording.n_prompts
    runs = most_tried(strategy, free, min(budget, free), **settings)
    explained(
        f"Up to [[evaluation|{counted(runs, 'evaluation')}]] on {counted(count, 'prompt')}: {counted(runs * count, 'answer')} to score."
    )
    _offer(inputs, strategy, budget, objective, settings)
    view = job_panel("search", "What was measured is kept: search again to go on.")
    item = view.result if view is not None and isinstance(view.result, Item) else None
    if view is not None and view.status == "done" and (item is None or is_shown(item)):
        words = f"{item.name}: drops {layer_list(item.details.get('dropped', []))}." if item is not None else ""
        st.success(
            f"{escaped(words)} It is saved, and stands in the table below. It was fitted to these prompts: evaluate "
            "it on others.",
            icon=":material/check:",
        )
        mask: Edit | None = None if item is None else open_whole(item)
        if mask is not None and isinstance(noted := mask.provenance.get("set_aside"), dict):
            say_set_aside(noted)


def _whose(recording: Recording, container: DeltaGenerator) -> tuple[str | None, bool]:
    """Draw the choice of whose answers count: a target, None for all, and whether the worst domain counts."""
    names = list(recording.domain_names)
    choices: dict[str, tuple[str | None, bool]] = {"all": (None, False)}
    if len(names) > 1:
        choices["worst"] = (None, True)
    words = {"all": total_of_domains(names), "worst": total_of_domains(names, "the worst domain")}
    choices |= {f"domain {name}": (name, False) for name in names}
    forget_unknown("search_whose", choices)
    picked = container.selectbox(
        "On prompts of",
        list(choices),
        format_func=lambda key: words.get(key) or key.removeprefix("domain "),
        key="search_whose",
        persist_state="session",
        help="Whose answers should survive. The worst domain: the one with the largest harm, sought anew for each mask.",
    )
    return choices[picked]


def _ask_settings(names: tuple[str, ...]) -> dict[str, int]:
    settings = {}
    for name, place in zip(names, st.columns(3), strict=False):
        label, least, most, default, words = SETTINGS[name]
        settings[name] = place.slider(
            label, least, most, default, key=f"search_{name}", persist_state="session", help=words
        )
    return settings


def _offer(inputs: ScoreInputs, strategy: str, budget: int, objective: Objective, settings: dict[str, int]) -> None:
    """Draw the button that starts the search, or what is missing for it."""
    prompts, missing = prompts_of(inputs.recording), missing_to_measure(inputs.recording)
    if missing or prompts is None:
        say_missing(missing)
        return
    arguments = (strategy, budget, objective, unprotected(), locked_by_user())
    line_settings: dict[str, Any] = {**settings, "unprotect": arguments[3], "keep": arguments[4]}
    if strategy == "evolutionary":
        line_settings["start"] = _masks_of_criteria(repr((inputs.key, budget)), inputs, budget)[
            : settings["population"]
        ]
    cluster, own = where_it_runs("search"), bench()
    st.button(
        "Search for a mask",
        icon=":material/search:",
        on_click=start,
        args=(
            "search",
            f"{TITLES[strategy]} search on {prompts.name}",
            clustered(cluster, own, job(own.search, prompts, *arguments[:3], **line_settings)),
            prompts.id,
            *arguments,
            settings,
        ),
        disabled=budget > len(inputs.free) or ((view := current("search")) is not None and view.active),
    )
    same_line(_line(prompts, *arguments[:3], settings | {"cluster": cluster}, line_settings))


def _line(
    prompts: Item,
    strategy: str,
    budget: int,
    objective: Objective,
    settings: dict[str, Any],
    line_settings: dict[str, Any],
) -> str:
    """Return the line that searches the same."""
    start = [layers_text(mask) for mask in line_settings.get("start", ())]
    options: dict[str, Any] = {
        "strategy": strategy,
        "budget": budget,
        "damage": objective.score,
        "target": objective.target,
    }
    kept = ",".join(map(str, line_settings["keep"]))
    more: dict[str, Any] = {
        "worst": objective.worst,
        "unprotect": line_settings["unprotect"],
        "keep": kept,
        "start": start,
    }
    return line_of("search", prompts, **options, **settings, **more)


@st.cache_resource(show_spinner=False, max_entries=16)
def _masks_of_criteria(key: str, _inputs: ScoreInputs, budget: int) -> list[Edit]:
    """Return the different masks of the usable criteria; kept between script runs by the key."""
    masks: dict[Edit, None] = {}
    for criterion in _inputs.usable():
        try:
            scores = score_layers(_inputs.recording, criterion, damage=_inputs.damage, token_group=_inputs.group)
            masks[make_mask(scores, "first-k", budget, locks=_inputs.locks)] = None
        except StrataError:
            continue  # the others will do
    return list(masks)
