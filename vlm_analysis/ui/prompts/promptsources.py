"""The Prompts page's ways in: bundled packs, images with questions typed beside them, files and folders."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path, PurePath

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.errors import StrataError
from vlm_analysis.guard.shared import is_shared
from vlm_analysis.progress import stoppable
from vlm_analysis.prompts.opening import bundled_packs, open_prompts
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.session import choose, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, duration
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Item, clean_name

DRAW_S = 0.2  # between two pictures of the progress
TABLE_HELP = """\
| column | what it holds |
| --- | --- |
| `image` | path of the image, relative to the table; or `images`: a list of paths, in a CSV as JSON |
| `question` | what to ask; `<image>` or `<image 2>` says where a picture stands, without these marks pictures come first |
| `domain` | optional: the group it belongs to; `default` where it is blank |
| `task` | optional: the level below the domain |
| `id` | optional: a name of its own; the row number where it is blank |
| `answer` | optional: the reference answer; with choices also the letter or the number from 0 of one |
| `answers` | optional: a list of accepted answers, in a CSV as JSON; any of them counts |
| `choices` | optional: a list of 2 to 26 answers to choose from by likelihood, in a CSV as JSON; the answer is one of them |
| `group` | optional: prompts of one group are no independent draws; without it, those that share a picture are one group |
"""
TABLE_EXAMPLE = """\
image,question,domain,id,answer
charts/bars.png,Which bar is the tallest?,charts,bars,the red one
photos/street.jpg,How many people are there?,photos,street,3
"""


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


def packs_tab() -> None:
    """Draw the bundled packs."""
    st.markdown("Small drawings, each with a question and a reference answer. The bundled model was made for them.")
    picked = st.pills(
        "Packs",
        bundled_packs(),
        selection_mode="multi",
        default=bundled_packs(),
        format_func=escaped,
        key="packs",
        help="Each pack is a domain. Take two or more to see which layers one can spare and another needs.",
    )
    if st.button("Use these packs", type="primary", icon=":material/check:", key="use-packs", disabled=not picked):
        names = sorted(picked)
        use(reduce(operator.add, map(open_prompts, names)), f"Bundled packs: {', '.join(names)}")


def images_tab() -> None:
    """Draw the uploader, the table of drafts and the button that saves it."""
    drafts.draw_uploader()
    if not drafts.current_drafts():
        st.caption("Each image becomes a row of a table, where you write its question, domain and reference answer.")
        return
    drafts.draw_table()
    drafts.draw_row_actions()
    name = name_form("drafts", "My images")
    if name is None:
        return
    ready, unfinished = drafts.finished(drafts.current_drafts())
    item = use(PromptSet(ready), name) if ready else None
    if item:
        st.success(escaped(drafts.saved_message(ready, item.name)), icon=":material/check:")
    drafts.draw_notes("Not saved" if ready else "Nothing was saved", unfinished)


def name_form(key: str, default: str) -> str | None:
    """Draw the name and the button that keep a prompt set; returns the name when it was pressed."""
    with st.form(f"save-{key}", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Name of the set", default, max_chars=120, key=f"name-{key}", help="As lists show it")
        pressed = st.form_submit_button(
            "Save as prompt set", type="primary", icon=":material/save:", key=f"save-{key}-button"
        )
    return name if pressed else None


def file_tab() -> None:
    """Draw the ways to open a prompt table, and what was read."""
    upload = st.file_uploader(
        "Prompt table: drag a CSV, JSONL, Parquet or zip file here, or browse",
        type=["csv", "jsonl", "parquet", "zip"],
        key=f"file-{st.session_state.get('n_files', 0)}",
        help="A zip holds the table and its images. The others name images that lie beside them: give their path below.",
    )
    path, pressed = ("", False) if is_shared() else _path_form()
    with st.expander("What a prompt table looks like"):
        st.markdown(TABLE_HELP)
        st.code(TABLE_EXAMPLE, language=None)
        st.markdown("A folder of `domain/name.png` with the question in `name.txt` works without a table.")
    if upload:
        st.session_state["n_files"] = st.session_state.get("n_files", 0) + 1  # a new uploader lets go of the bytes
        read(upload.name, (upload.name, upload.getvalue()))
        st.rerun()
    if pressed:
        read(PurePath(path).name, Path(path) if path else "")
    draw_read()


def _path_form() -> tuple[str, bool]:
    """Draw the field for a path on this machine; returns it, and whether it is to be opened."""
    with st.form("path", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        path = st.text_input(
            "Folder or file on this machine",
            placeholder="/data/charts or /data/charts/prompts.csv",
            key="path-text",
            help="On the machine that Strata runs on. Images lie beside the table, or as domain/name.png with name.txt.",
        ).strip(" \t\"'")
        pressed = st.form_submit_button("Open", icon=":material/folder_open:", key="path-button")
    return path, pressed


def read(name: str, source: Path | str | tuple[str, bytes]) -> None:
    """Open a source and remember what came of it, or the error, until it is saved or another is opened.

    Any click ends the reading: Streamlit ends a script that is no longer wanted when it draws next, here the bar.
    """
    place = st.empty()
    with place.container(horizontal=True, vertical_alignment="bottom"):
        bar = st.progress(0.0, f"Opening {escaped(name)}")
        st.button("Cancel", key="cancel-read")
    try:
        with stoppable(_drawn(bar, f"Opening {escaped(name)}")):
            result: PromptSet | str = open_prompts(source)
    except StrataError as error:
        result = str(error)
    place.empty()
    st.session_state["read"] = (clean_name(name), result)


def _drawn(bar: DeltaGenerator, what: str) -> Callable[[], None]:
    """Return what draws the seconds gone by, a few times a second."""
    began = drawn = time.monotonic()

    def draw() -> None:
        nonlocal drawn
        if time.monotonic() - drawn > DRAW_S:
            drawn = time.monotonic()
            bar.progress(0.0, f"{what}: {duration(drawn - began)}")

    return draw


def draw_read() -> None:
    """Draw what was read: the error, or the count with the problems and the button that saves the set."""
    name, result = st.session_state.get("read", ("", None))
    if isinstance(result, str):
        st.error(escaped(result))
    if not isinstance(result, PromptSet):
        return
    container = st.empty()
    with container.container():
        counts = f"{counted(len(result), 'prompt')} in {counted(len(result.domains), 'domain')}"
        st.markdown(f"**{escaped(name)}**: {counts}; {counted(len(result.problems), 'problem')}")
        if result.problems:
            drafts.draw_problems(result.problems)
        kept = name_form("file", name)
    item = use(result, kept) if kept is not None else None
    if item:
        container.success(f"Saved {counts} as '{escaped(item.name)}'.", icon=":material/check:")
        del st.session_state["read"]
