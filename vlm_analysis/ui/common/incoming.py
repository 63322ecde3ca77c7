"""Data that someone brings: a file, a path or a dataset of the Hub, looked at before it is taken.

    bring -> look: what it was read as, its first prompts, its problems -> take: saved, and in use

What was brought and what it looks like live in the session, so that every page goes on with them. A look is taken again only where it is
to be read another way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.errors import StrataError
from vlm_analysis.guard.shared import is_shared
from vlm_analysis.progress import stoppable
from vlm_analysis.prompts.opening import Preview, PromptSource, open_prompts, preview_prompts
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.prompts.sources import ARCHIVE_SUFFIXES
from vlm_analysis.prompts.tables import TABLE_SUFFIXES
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.mapping import Reading, mapping_form
from vlm_analysis.ui.common.promptcard import draw_prompt
from vlm_analysis.ui.common.session import choose, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, duration
from vlm_analysis.workbench.recent import note_folder
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Item, clean_name

DRAW_S = 0.2  # between two pictures of the progress
SHOWN = 3  # prompts of a look
_INCOMING, _LOOKS, _TAKEN, _NUMBER = "incoming", "incoming:looks", "incoming:taken", "incoming:number"


@dataclass(frozen=True)
class Incoming:
    """What was brought: its name, what `open_prompts` takes, and a number of its own."""

    name: str
    source: PromptSource
    number: int


def bring(name: str, source: PromptSource) -> None:
    """Make this what is looked at, in place of what was brought before."""
    number = st.session_state[_NUMBER] = st.session_state.get(_NUMBER, 0) + 1
    st.session_state[_INCOMING] = Incoming(clean_name(name), source, number)
    st.session_state[_LOOKS] = {}
    st.session_state.pop(_TAKEN, None)


def is_waiting() -> bool:
    """Return whether something was brought that is neither taken nor put away."""
    return _INCOMING in st.session_state


def put_away() -> None:
    """Let go of what was brought."""
    st.session_state.pop(_INCOMING, None)
    st.session_state.pop(_LOOKS, None)


def draw_uploader(label: str) -> None:
    """Draw the uploader; a file that arrives is brought, and the uploader lets go of it."""
    upload = st.file_uploader(
        label,
        type=[ending.removeprefix(".") for ending in (*TABLE_SUFFIXES, *ARCHIVE_SUFFIXES)],
        key=f"incoming-{st.session_state.get(_NUMBER, 0)}",
        help="A zip or tar holds the table and its pictures, or folders of pictures. A table alone needs its pictures in its cells.",
    )
    if upload is not None:
        bring(upload.name, (upload.name, upload.getvalue()))
        st.rerun()


def draw_incoming() -> Item | None:
    """Draw what was brought, before it is taken and what came of it after; returns the saved set where it was taken just now."""
    incoming: Incoming | None = st.session_state.get(_INCOMING)
    if incoming is None:
        _draw_taken()
        return None
    first = _looked(incoming, Reading())
    head, reading = st.container(), Reading()
    if isinstance(first, Preview):
        reading = mapping_form(first.columns, incoming.number, expanded=not first.title)
    look = _looked(incoming, reading)
    with head:
        _draw_look(incoming, look)
    if isinstance(look, str) or not look.title:
        st.button("Put it away", on_click=put_away, key="put-away", icon=":material/close:")
        return None
    name = _take_form(incoming)
    return None if name is None else _take(incoming, reading, name)


def _looked(incoming: Incoming, reading: Reading) -> Preview | str:
    """Return what it looks like, read in one way; or why it cannot be read as a whole."""
    looks: dict[Reading, Preview | str] = st.session_state[_LOOKS]
    if reading not in looks:
        try:
            with working(f"Looking at {incoming.name}"):
                looks[reading] = preview_prompts(incoming.source, **reading.arguments)
        except StrataError as error:
            looks[reading] = str(error)
    return looks[reading]


def _draw_look(incoming: Incoming, preview: Preview | str) -> None:
    """Draw what it was read as, its first prompts and the problems so far; or why it could not be read."""
    if isinstance(preview, str):
        st.error(escaped(preview))
        return
    if not preview.title:
        st.error(escaped(preview.problems[0].message))
        st.caption("Here: choose below what it is, or which of its columns holds what.")
        return
    st.markdown(f"**{escaped(incoming.name)}**: read as {escaped(preview.title)}: {escaped(preview.reason)}")
    for column, prompt in zip(st.columns(SHOWN), preview.prompts[:SHOWN], strict=False):
        with column, st.container(border=True, height="stretch"):
            draw_prompt(prompt)
    if not preview.prompts:
        st.warning("No prompt could be made of its first rows.", icon=":material/warning:")
    if preview.problems:
        drafts.draw_problems(preview.problems, "left out so far")


def _take_form(incoming: Incoming) -> str | None:
    """Draw the name and the button; returns the name when it was pressed."""
    with st.form("take", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input(
            "Name of the set", incoming.name, max_chars=120, key=f"name-{incoming.number}", help="As lists show it"
        )
        pressed = st.form_submit_button(
            "Take these prompts", type="primary", icon=":material/check:", key="take-button"
        )
        if st.form_submit_button("Put it away", icon=":material/close:", key="put-away-button"):
            put_away()
            st.rerun()
    return name if pressed else None


def _take(incoming: Incoming, reading: Reading, name: str) -> Item | None:
    """Read all of it, save the set and work with it; what goes wrong is said on the page."""
    try:
        with working(f"Reading {incoming.name}"):
            prompts = open_prompts(incoming.source, **reading.arguments)
    except StrataError as error:
        st.error(escaped(error))
        return None
    item = use(prompts, name)
    if item is not None:
        if isinstance(incoming.source, Path) and not is_shared():
            note_folder(workspace(), str(incoming.source))
        counts = f"{counted(len(prompts), 'prompt')} in {counted(len(prompts.domains), 'domain')}"
        st.session_state[_TAKEN] = (f"Saved {counts} as '{item.name}'.", prompts.problems)
        put_away()
    return item


def _draw_taken() -> None:
    """Draw what was taken last, and what of it was left out."""
    message, problems = st.session_state.get(_TAKEN, ("", ()))
    if message:
        st.success(escaped(message), icon=":material/check:")
    if problems:
        drafts.draw_problems(problems)


def use(prompts: PromptSet, name: str) -> Item | None:
    """Save a set and work with it; what goes wrong is said on the page."""
    try:
        with st.spinner(f"Saving {counted(len(prompts), 'prompt')}"):
            item = keep_prompts(workspace(), prompts, clean_name(name))
    except StrataError as error:
        st.error(escaped(error))
        return None
    choose("prompts", item)
    st.toast(f"In use now: {escaped(item.name)}", icon=":material/check:")
    return item


@contextmanager
def working(what: str) -> Iterator[None]:
    """Draw the seconds gone by while something is read.

    Any click ends the reading: Streamlit ends a script that is no longer wanted when it draws next, here the bar.
    """
    place = st.empty()
    with place.container(horizontal=True, vertical_alignment="bottom"):
        bar = st.progress(0.0, escaped(what))
        st.button("Cancel", key="cancel-read", on_click=put_away)
    try:
        with stoppable(_drawn(bar, escaped(what))):
            yield
    finally:
        place.empty()


def _drawn(bar: DeltaGenerator, what: str) -> Callable[[], None]:
    """Return what draws the seconds gone by, a few times a second."""
    began = drawn = time.monotonic()

    def draw() -> None:
        nonlocal drawn
        if time.monotonic() - drawn > DRAW_S:
            drawn = time.monotonic()
            bar.progress(0.0, f"{what}: {duration(drawn - began)}")

    return draw
