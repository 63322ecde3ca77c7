"""Two prompt sets, one to choose on and one to report on: they follow the prompts in use, and halves are offered where both are one."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.prompts.halves import split_in_halves
from vlm_analysis.ui.common.session import chosen, last_choices, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.stories import fellows
from vlm_analysis.workbench.workspace import Item

HALVES = "AB"
Keys = tuple[str, str]
"""The keys of the two boxes in the session: choose, and report."""


def follow(items: dict[str, Item], keys: Keys, followed: str, *, apart: bool = False) -> None:
    """Choose the prompts in use when they change; a new session starts with the choice that was made here since they did.

    Args:
        items: the prompt sets, by id.
        keys: of the boxes.
        followed: the key under which the prompts are kept that the form was last set to.
        apart: whether in place of the prompts in use their saved halves are chosen, where there are some, or of bundled packs those to
            choose and those to report on, where both are saved.
    """
    state, last, now = st.session_state, last_choices(), chosen("prompts")
    in_use = now.id if now is not None and now.id in items else next(iter(items))
    if state.get(followed) != in_use:
        used, *kept = last.get(keys[0], [None]) if followed not in state else [None]
        holds = kept and used == last.get("prompts") and set(kept) <= set(items)
        found = (_halves(items, in_use) or _packs(items, in_use)) if apart else None
        state[keys[0]], state[keys[1]] = kept if holds else found or (in_use, in_use)
        state[followed] = in_use
    for key in keys:
        if state.get(key) not in items:
            state[key] = in_use


def remember(choose: Item, report: Item, keys: Keys, followed: str) -> None:
    """Keep a choice for sessions to come, unless it is that of the prompts in use."""
    last_choices().pop(keys[0], None)
    if {choose.id, report.id} != {st.session_state[followed]}:
        last_choices()[keys[0]] = [last_choices().get("prompts"), choose.id, report.id]


def warn_same(item: Item, keys: Keys, what: str = "Masks") -> None:
    """Say that choosing and reporting on the same prompts flatters, and offer halves."""
    left, right = st.columns([4, 1], vertical_alignment="center")
    left.warning(
        f"{what} are chosen and reported on the same prompts: the report flatters them. Choose on one half and report on the other."
    )
    right.button(
        "Split in halves",
        icon=":material/splitscreen:",
        on_click=split,
        args=(item, keys),
        width="stretch",
        help="Saves two prompt sets, each with half of every domain's prompts, and chooses them here.",
    )
    if problem := st.session_state.pop("split_error", ""):
        st.error(escaped(problem))


def split(item: Item, keys: Keys) -> None:
    """Save two halves of a prompt set and choose them in the boxes of these keys, as a button's callback."""
    try:
        halves = split_in_halves(open_item(item))
        kept = [
            keep_prompts(workspace(), half, _half_of(item.name, name))
            for half, name in zip(halves, HALVES, strict=True)
        ]
    except StrataError as error:
        st.session_state["split_error"] = str(error)
        return
    for key, half in zip(keys, kept, strict=True):
        st.session_state[key] = half.id


def _half_of(name: str, half: str) -> str:
    return f"{name}, half {half}"


def _halves(items: dict[str, Item], in_use: str) -> tuple[str, str] | None:
    """Return the saved halves of prompts, or of those that they are a half of; None where there are none."""
    name = items[in_use].name
    for half in HALVES:
        name = name.removesuffix(_half_of("", half))
    return _both(items, [_half_of(name, half) for half in HALVES])


def _packs(items: dict[str, Item], in_use: str) -> tuple[str, str] | None:
    """Return the saved packs to choose on and those to report on, of which the prompts in use are one; None where one is not saved."""
    return _both(items, fellows(items[in_use].name))


def _both(items: dict[str, Item], names: Sequence[str]) -> tuple[str, str] | None:
    """Return the prompts of two names; None where one has none."""
    found = [next((one for one, item in items.items() if item.name == name), "") for name in names]
    return (found[0], found[1]) if len(found) == 2 and all(found) else None
