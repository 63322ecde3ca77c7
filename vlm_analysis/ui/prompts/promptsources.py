"""The Prompts page's ways in: bundled packs, images with questions typed beside them, files and folders."""

from __future__ import annotations

import operator
from functools import reduce
from pathlib import Path, PurePath

import streamlit as st

from vlm_analysis.guard.shared import is_shared
from vlm_analysis.prompts.formats.table import FORMATS
from vlm_analysis.prompts.opening import bundled_packs, choosing_packs, open_prompts
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.incoming import bring, draw_incoming, draw_uploader, use
from vlm_analysis.ui.common.recent import offer_recent
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.prompts.drafttable import draw_draft_uploader, draw_row_actions, draw_table
from vlm_analysis.words import joined
from vlm_analysis.workbench.recent import recent_folders

FORMATS_HELP = f"""\
A table (CSV, TSV, JSON, JSONL, Parquet or Arrow), or a zip, tar or folder that holds one with its pictures, in one of these formats:
{joined(sorted({one.TITLE for one in FORMATS.values()}))}. Any other table is read by naming its columns.
"""
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


def packs_tab() -> None:
    """Draw the bundled packs."""
    st.markdown(
        "Small drawings, each with a question and a reference answer. "
        "Pocket-VL was made for general and math, Pocket-VL Steps for steps too."
    )
    picked = st.pills(
        "Packs",
        bundled_packs(),
        selection_mode="multi",
        default=choosing_packs(),
        format_func=escaped,
        key="packs",
        help="Take two domains or more to see which layers one can spare and another needs. Report masks that were chosen on a pack on its "
        "fellow, whose name ends in -report: drawings of the same kind, none the same.",
    )
    if st.button("Use these packs", type="primary", icon=":material/check:", key="use-packs", disabled=not picked):
        names = sorted(picked)
        use(reduce(operator.add, map(open_prompts, names)), f"Bundled packs: {', '.join(names)}")


def images_tab() -> None:
    """Draw the uploader, the table of drafts and the button that saves it."""
    draw_draft_uploader()
    if not drafts.current_drafts():
        st.caption("Each image becomes a row of a table, where you write its question, domain and reference answer.")
        return
    draw_table()
    draw_row_actions()
    name = name_form("drafts", "My images")
    if name is None:
        return
    ready, unfinished = drafts.finished(drafts.current_drafts())
    item = use(PromptSet(ready), name) if ready else None
    if item:
        drafts.note_saved()
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
    """Draw the ways to open data, and a look at what was brought."""
    draw_uploader("Your data: drag a table, a zip or a tar here, or browse")
    if not is_shared():
        path, pressed = _path_form()
        if pressed:
            bring(PurePath(path).name or path, Path(path) if path else "")
    with st.expander("What can be read"):
        st.markdown(FORMATS_HELP)
        st.markdown(TABLE_HELP)
        st.code(TABLE_EXAMPLE, language=None)
        st.markdown("A folder of `domain/name.png` with the question in `name.txt` works without a table.")
    if draw_incoming() is not None:
        st.rerun()


def _path_form() -> tuple[str, bool]:
    """Draw the field for a path on this machine; returns it, and whether it is to be opened."""
    folders = {path: path for path in recent_folders(workspace())}
    offer_recent(folders, "path-recent", lambda path: st.session_state.update({"path-text": path}))
    with st.form("path", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        path = st.text_input(
            "Folder or file on this machine",
            placeholder="/data/charts or /data/charts/prompts.csv",
            key="path-text",
            help="On the machine that Strata runs on. Images lie beside the table, or as domain/name.png with name.txt.",
        ).strip(" \t\"'")
        pressed = st.form_submit_button("Open", icon=":material/folder_open:", key="path-button")
    return path, pressed
