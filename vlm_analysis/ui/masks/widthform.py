"""What the part "Width" asks: the prompts and how they are scored, what share goes, and how units are weighed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from vlm_analysis.evaluation.pivots import EACH, IN_ALL, WINDOW
from vlm_analysis.selection.width.choosing import GLOBAL, UNIFORM
from vlm_analysis.selection.width.options import NONE, RANDOM, STEPS, WidthOptions
from vlm_analysis.selection.width.scores import KV_GROUPS, MAGNITUDE, NEURONS, TAYLOR
from vlm_analysis.ui.common.inputs import SEEDS, forget_unknown
from vlm_analysis.ui.common.pickers import described
from vlm_analysis.ui.common.session import shown_items
from vlm_analysis.workbench.workspace import Item

PLAIN = WidthOptions()
MODES = {UNIFORM: "uniform: can be served", GLOBAL: "global: a view"}
SIDES = {EACH: "on each side", IN_ALL: "in all"}
PIVOTS = {STEPS: "marks of steps", RANDOM: "random places", NONE: "none: all tokens alike"}
BY = {TAYLOR: "what leaving it out does (Taylor)", MAGNITUDE: "the norm of its weights"}
UNITS = {NEURONS: "MLP neurons", KV_GROUPS: "attention groups"}
NUMBERS: Mapping[str, tuple[str, float, float, float, str]] = {  # label, most, step, default, help
    "g_base": (
        "g_base: weight of pivots",
        1.0,
        0.05,
        PLAIN.g_base,
        "How much tokens near pivots count where nothing goes: 0 not at all, 1 alone. Our default, as the paper tells none.",
    ),
    "rho": (
        "ρ: how fast that falls",
        4.0,
        0.25,
        PLAIN.rho,
        "The weight of pivots is g_base · (1 − share)^ρ: the more goes, the less they count. Our default, as the paper tells none.",
    ),
    "alpha": (
        "α: weight of the output's norm",
        4.0,
        0.25,
        PLAIN.alpha,
        "Layers with a large output are worth more. 0 leaves that out. Our default, as the paper tells none.",
    ),
    "beta": (
        "β: weight of the cross-modal distance",
        4.0,
        0.25,
        PLAIN.beta,
        "Layers in which vision and text lie far apart are worth more. 0 leaves that out. Our default, as the paper tells none.",
    ),
    "least": (
        "Share that each layer keeps",
        0.9,
        0.05,
        PLAIN.least,
        "Of its neurons and of its groups, one of each at least. The paper has such a minimum and does not tell it: our default.",
    ),
}


def ask_prompts(recorded: Item | None) -> Item | None:
    """Draw the choice of prompts to score on, the recorded ones first; None where there are none."""
    items = {item.id: item for item in shown_items("prompts")}
    if recorded is not None:
        items = {recorded.id: recorded, **items}
    if not items:
        return None
    forget_unknown("width_prompts", items)
    picked = st.selectbox(
        "Score width on",
        list(items),
        format_func=lambda name: described(items[name]),
        key="width_prompts",
        persist_state="session",
        help="Prompts whose answers the model should keep. Answers that reason in steps have pivots, which count more.",
    )
    return items[picked]


def ask_scoring() -> dict[str, Any]:
    """Draw how scores are measured; returns the options of `score_width`."""
    left, middle, right = st.columns(3)
    window = left.number_input(
        "Window around a pivot, tokens",
        1,
        256,
        WINDOW,
        key="width_window",
        persist_state="session",
        help="8 is the paper's.",
    )
    sides = middle.selectbox(
        "A window is that long",
        list(SIDES),
        format_func=SIDES.__getitem__,
        key="width_sides",
        persist_state="session",
        help="The paper tells it both ways; on each side is our default.",
    )
    fast = right.checkbox(
        "Fast: two passes a batch",
        key="width_fast",
        persist_state="session",
        help="In place of one backward pass for each answer token. Another number, in which tokens cancel each other: for a first look.",
    )
    random = right.checkbox(
        "Random windows too",
        key="width_random",
        persist_state="session",
        help="As many windows at random places, to compare with those around pivots.",
    )
    seed = (
        right.number_input("Seed of the windows", 0, SEEDS, 0, key="width_seed", persist_state="session")
        if random
        else None
    )
    return {"window": int(window), "sides": sides, "fast": fast, "seed": None if seed is None else int(seed)}


def ask_share() -> tuple[float, str]:
    """Draw what share goes, and whether all layers keep as many units."""
    left, right = st.columns(2, vertical_alignment="bottom")
    share = left.slider(
        "Share of the decoder layers' parameters that goes, %",
        1,
        80,
        20,
        key="width_share",
        persist_state="session",
        help="At most so many go; less than a unit, or a unit a layer, is left over.",
    )
    mode = right.segmented_control(
        "Mode",
        list(MODES),
        default=None if "width_mode" in st.session_state else UNIFORM,
        required=True,
        format_func=MODES.__getitem__,
        key="width_mode",
        persist_state="session",
        help="Uniform: every layer keeps as many neurons and groups, as stock classes and engines need it. Global: each layer loses what "
        "it can spare, which keeps more; no stock class loads that, so it is a view in Strata, or a checkpoint with zeros.",
    )
    return share / 100, mode or UNIFORM


def ask_weighing(has_random: bool) -> dict[str, Any]:
    """Draw how units are weighed; returns the options of `make_narrow` that are not the defaults."""
    left, middle, right = st.columns(3)
    among = [name for name in PIVOTS if name != RANDOM or has_random]
    forget_unknown("width_pivots", among)
    chosen: dict[str, Any] = {
        "by": left.selectbox(
            "A unit is worth",
            list(BY),
            format_func=BY.__getitem__,
            key="width_by",
            persist_state="session",
            help="Taylor is the paper's; the norm is a baseline that needs no prompts.",
        ),
        "pivots": middle.selectbox(
            "Windows that count",
            among,
            format_func=PIVOTS.__getitem__,
            key="width_pivots",
            persist_state="session",
            help="Marks of steps are the paper's. Random places have to be scored first; both others are for comparison.",
        ),
        "units": tuple(
            right.multiselect(
                "What may go",
                list(UNITS),
                default=None if "width_units" in st.session_state else list(UNITS),
                format_func=UNITS.__getitem__,
                key="width_units",
                persist_state="session",
                help="The paper cuts both. Some classes are built with fewer neurons only.",
            )
        )
        or PLAIN.units,
    }
    columns = st.columns(len(NUMBERS))
    for (name, (label, most, step, default, words)), column in zip(NUMBERS.items(), columns, strict=True):
        key = f"width_{name}"
        chosen[name] = column.number_input(
            label, 0.0, most, default, step, key=key, persist_state="session", help=words
        )
    return {name: value for name, value in chosen.items() if value != getattr(PLAIN, name)}
