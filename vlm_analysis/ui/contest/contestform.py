"""What a contest is asked: the prompts to choose and to report on, how much goes, which kinds compete, and how they are recovered."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.selection.contest.contest import (
    BUDGETS,
    CONTESTANTS,
    DEPTH,
    MIX,
    PARAMETERS,
    TIME,
    VISION,
    WIDTH,
)
from vlm_analysis.ui.common.clusterfield import where_it_runs
from vlm_analysis.ui.common.jobs import current, start
from vlm_analysis.ui.common.pace import seconds_a_pass
from vlm_analysis.ui.common.pickers import described, pick_named
from vlm_analysis.ui.common.promptpair import follow, remember, warn_same
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import bench, model_slot, shown_items
from vlm_analysis.ui.common.shell import next_step
from vlm_analysis.ui.common.work import clustered, watched
from vlm_analysis.words import counted
from vlm_analysis.workbench.budgets import Asked
from vlm_analysis.workbench.contestneeds import ContestNeeds, stages_of
from vlm_analysis.workbench.workspace import Item

JOB = "contest"
PAIR, FOLLOWED = ("contest_choose", "contest_report"), "contest_followed"
KINDS = {
    DEPTH: "depth: layers go",
    WIDTH: "width: layers get narrower",
    VISION: "vision: vision tokens skip layers",
    MIX: "mix: several of these",
}
RECOVERIES = (*TUNINGS, "ridge")


def contest_form() -> None:
    """Draw what is asked and the button, or what is missing for it."""
    info, items = model_slot().info, {item.id: item for item in shown_items("prompts")}
    if info is None:
        next_step("No model is loaded. Saved contests open without one.", "pages/1_model.py", "Load a model")
    elif not items:
        next_step("There are no prompts to choose and report on.", "pages/2_prompts.py", "Choose prompts")
    else:
        _form(info, items)


def _form(info: ModelInfo, items: dict[str, Item]) -> None:
    follow(items, PAIR, FOLLOWED, apart=True)
    left, right = st.columns(2)
    names = {name: described(item) for name, item in items.items()}
    words = (
        "The best edit of each kind is picked on these prompts. They are recorded first where that was not done yet."
    )
    choose = items[pick_named(left, "Choose edits on", PAIR[0], names, words)]
    words = "The picked edits answer these prompts, and nothing is chosen on them."
    report = items[pick_named(right, "Report on", PAIR[1], names, words)]
    remember(choose, report, PAIR, FOLLOWED)
    is_same = choose.prompts == report.prompts
    if is_same:
        warn_same(choose, PAIR, "Edits")
    share, of = _ask_share(info)
    kinds = _ask_kinds()
    recover, options = _ask_options(is_same)
    arguments: dict[str, Any] = {"of": of, "kinds": kinds, "recover": recover, **options}
    takes = _takes(info, choose, report, Asked(share, **arguments)) if kinds else ""
    st.caption(
        f"{takes}Edits are tried on {counted(int(choose.details.get('n', 0)), 'prompt')}, and the best of each kind on "
        f"{counted(int(report.details.get('n', 0)), 'prompt')}. What was measured before is not measured again, so that a contest that is "
        "cancelled goes on where it stopped."
    )
    cluster, own = where_it_runs(JOB), bench()
    st.button(
        "Depth or width?",
        type="primary",
        icon=":material/swap_horiz:",
        on_click=start,
        args=(
            JOB,
            f"A contest of kinds on {report.name}",
            clustered(cluster, own, watched(JOB, own.contest, choose, report, share, **arguments)),
            choose.id,
            report.id,
            share,
            arguments,
        ),
        disabled=not kinds or ((view := current(JOB)) is not None and view.active),
    )
    if kinds:
        same_line(_line(choose, report, share, of, kinds, recover, options | {"cluster": cluster}))


def _takes(info: ModelInfo, choose: Item, report: Item, asked: Asked) -> str:
    """Return about how long it takes; "" where that is not known yet."""
    pass_s = seconds_a_pass(model_slot().fingerprint, choose)
    if pass_s is None:
        return ""
    counts = (int(item.details.get("n", 0)) for item in (choose, report))
    return f"{ContestNeeds(stages_of(info, asked, *counts), pass_s, asked.most_s).words()} "


def _ask_share(info: ModelInfo) -> tuple[float, str]:
    """Draw the budget; returns the share, and what it is of."""
    of = st.segmented_control(
        "Budget of",
        BUDGETS,
        default=None if "contest_of" in st.session_state else PARAMETERS,
        required=True,
        format_func={PARAMETERS: "Parameters", TIME: "Measured time"}.__getitem__,
        key="contest_of",
        persist_state="session",
        help="Measured time: some edits of each kind are timed here first, and from them follows how much must go to save the share of a "
        "prefill's time; each picked edit is timed then, and one that misses the share says so.",
    )
    percent = st.slider(
        "Share of the decoder layers' parameters that goes, %"
        if of == PARAMETERS
        else "Share of a prefill's time that goes, %",
        1,
        80,
        25,
        key="contest_share",
        persist_state="session",
        help="Of parameters every kind saves as much, rounded up to whole layers. One of "
        f"{info.n_layers} layers is about {100 / info.n_layers:.0f} %.",
    )
    return percent / 100, str(of)


def _ask_kinds() -> tuple[str, ...]:
    picked = st.multiselect(
        "Kinds that compete",
        list(KINDS),
        default=None if "contest_kinds" in st.session_state else list(KINDS),
        format_func=KINDS.__getitem__,
        key="contest_kinds",
        persist_state="session",
        help="Where vision tokens skip layers all weights stay: under a budget of parameters that kind has no entry, which is said.",
    )
    return tuple(kind for kind in CONTESTANTS if kind in picked)


def _ask_options(is_same: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Draw recovery and limits; returns the ways of recovery, and the options of the contest that are not its defaults."""
    with st.expander("Options"):
        left, middle, right = st.columns(3)
        recover = left.multiselect(
            "Recover every edit too",
            RECOVERIES,
            key="contest_recover",
            persist_state="session",
            disabled=is_same,
            placeholder="Only the edits as they are",
            help="With the same settings, prompts and seed for all, on the prompts that edits are chosen on; a minute or more for each. "
            "ridge is a repair of dropped layers, and holds for depth alone. Not where both prompt sets are one.",
        )
        minutes = middle.number_input(
            "Limit of each search, minutes",
            0,
            600,
            0,
            key="contest_minutes",
            persist_state="session",
            help="After it a search begins no further step, and its best so far is filled up to the budget, which is said. 0: no limit.",
        )
        fast = right.checkbox(
            "Score the width fast",
            key="contest_fast",
            persist_state="session",
            help="Two backward passes a batch in place of one for each answer token: other numbers, for a first look.",
        )
    options: dict[str, Any] = ({"most_s": 60.0 * minutes} if minutes else {}) | ({"fast": True} if fast else {})
    return () if is_same else tuple(recover), options


def _line(
    choose: Item,
    report: Item,
    share: float,
    of: str,
    kinds: tuple[str, ...],
    recover: tuple[str, ...],
    options: dict[str, Any],
) -> str:
    """Return the line of the same contest, without arguments that are the command's defaults."""
    asked: dict[str, Any] = {"report": report.id, "share": share, "of": "" if of == PARAMETERS else of}
    asked |= {"kind": [] if kinds == CONTESTANTS else list(kinds), "recover": list(recover)}
    limit = options["most_s"] / 60 if "most_s" in options else None
    return line_of(
        "contest", choose, **asked, limit=limit, fast=options.get("fast", False), cluster=options.get("cluster", "")
    )
