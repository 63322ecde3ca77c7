"""The Prompts page's table of images: many at a time, with texts for many rows at once and domains from the names of files or folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

import streamlit as st

from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.drafts import MAX_DRAFTS, Draft
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, some_of

ROWS_IN_VIEW = 20
ROW_HEIGHT = 48  # pixels; of the heading too
MOST_NAMED = 8  # domains of a preview
FIELDS = {"question": "Question", "domain": "Domain", "answer": "Answer"}
WAYS = {"files": "Images", "folder": "A folder of images"}
DOMAINS_FROM: dict[str, tuple[str, Callable[[str], str]]] = {
    "folder": ("the folder", lambda name: PurePosixPath(name).parent.name),
    "file": (
        "the beginning of the file name",
        lambda name: re.split(r"[\W\d_]", PurePosixPath(name).name, maxsplit=1)[0],
    ),
}


def draw_draft_uploader() -> None:
    """Draw the uploader; images that arrive become rows, and what was left out is named."""
    n_uploads = st.session_state.get("n_uploads", 0)
    way = st.segmented_control(
        "What you bring",
        list(WAYS),
        default="files",
        required=True,
        format_func=WAYS.__getitem__,
        key="drafts-way",
        help="Of a folder, all images in it and in its folders are taken.",
    )
    is_folder = way == "folder"
    uploads = st.file_uploader(
        "Drag a folder of images here, or browse"
        if is_folder
        else "Images: drag them here, browse, or move here with Tab and paste",
        type=drafts.IMAGE_TYPES,
        accept_multiple_files="directory" if is_folder else True,
        max_upload_size=20,
        key=f"images-{way}-{n_uploads}",
        help=f"PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF or JPEG 2000, 20 MB each at most; up to {MAX_DRAFTS} rows at a time",
    )
    if uploads:
        with st.spinner(f"Opening {counted(len(uploads), 'image')}"):
            st.session_state["left-out"] = drafts.add_uploads(uploads)
        st.session_state["n_uploads"] = n_uploads + 1  # a new uploader lets go of the files
        st.rerun()
    drafts.draw_notes("Left out", st.session_state.get("left-out", []))


def draw_table() -> None:
    """Draw the table; what is typed or pasted stays in the session."""
    column = st.column_config
    frame = drafts.drafts_frame()
    st.caption(
        "Cells can be pasted from a spreadsheet: copy one or more columns there, click the first cell here, and press Ctrl+V (⌘V). "
        "A double click opens a cell with its whole text."
    )
    st.data_editor(
        frame,
        key=drafts.editor_key(),
        hide_index=True,
        height=(min(len(frame), ROWS_IN_VIEW) + 1) * ROW_HEIGHT,
        row_height=ROW_HEIGHT,
        disabled=["thumbnail", "name"],
        column_config={
            "ticked": column.CheckboxColumn("Ticked", width=70, help="The buttons below act on ticked rows"),
            "thumbnail": column.ImageColumn("Image", width=80),
            "name": column.TextColumn("Name", width=200, help="Becomes the id of the prompt"),
            "question": column.TextColumn("Question", width=320, max_chars=10_000, help="What to ask; needed"),
            "domain": column.TextColumn("Domain", width=130, max_chars=200, help="Its group; blank means default"),
            "answer": column.TextColumn(
                "Answer", width=160, max_chars=10_000, help="The reference answer, if you have one"
            ),
        },
        alt="Your images with their questions, domains and answers",
    )


def draw_row_actions() -> None:
    """Draw what can be done to many rows at once."""
    rows = drafts.current_drafts()
    ticked = [row for row in rows if row.ticked]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"{counted(len(rows), 'row')}, {len(ticked)} ticked", width="content")
        for key, label, icon, which in (
            ("tick-all", "Tick all", "select_all", lambda _: True),
            ("tick-none", "Tick none", "deselect", lambda _: False),
            ("tick-open", "Tick those without a question", "rule", lambda row: not row.question.strip()),
        ):
            st.button(label, on_click=drafts.tick, args=(which,), key=key, icon=f":material/{icon}:")
        st.button(
            "Remove ticked rows",
            on_click=drafts.remove_ticked,
            key="remove-ticked",
            icon=":material/delete:",
            disabled=not ticked,
        )
    _set_form(len(ticked), len(rows))
    _domain_form(ticked)


def _set_form(n_ticked: int, n_rows: int) -> None:
    """Draw a text for one column and the buttons that write it into the ticked rows, as Enter does, or into all."""
    with st.form("set-rows", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Column", list(FIELDS), format_func=FIELDS.__getitem__, key="set-field", width=140)
        st.text_input(
            "Text for many rows",
            key="set-text",
            help="Replaces what the rows have in that column; a blank one does nothing",
        )
        for key, label, n in (("set-ticked", "Set in ticked rows", n_ticked), ("set-all", "Set in all rows", n_rows)):
            st.form_submit_button(
                f"{label} ({n})", on_click=_take_set, args=(key == "set-ticked",), key=key, disabled=not n
            )


def _take_set(ticked_only: bool) -> None:
    """Write the text of the form into rows."""
    text = st.session_state["set-text"]
    drafts.set_rows(st.session_state["set-field"], lambda _: text, ticked_only=ticked_only)


def _domain_form(ticked: list[Draft]) -> None:
    """Draw the choice where domains come from, what they would be, and the button that sets them in the ticked rows."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        way = st.segmented_control(
            "Domain from",
            list(DOMAINS_FROM),
            format_func=lambda name: DOMAINS_FROM[name][0],
            key="domain-from",
            help="A name begins until its first character that is no letter: “chart-01.png” is of “chart”.",
        )
        if way is None:
            return
        of = DOMAINS_FROM[way][1]
        counts = Counter(name for row in ticked if (name := of(row.name)))
        st.button(
            f"Set {counted(len(counts), 'domain')} in ticked rows",
            on_click=drafts.set_rows,
            args=("domain", lambda row: of(row.name)),
            key="set-domains",
            disabled=not counts,
        )
    lacking = len(ticked) - sum(counts.values())
    preview = some_of((f"{name} ({n})" for name, n in counts.most_common()), MOST_NAMED, len(counts))
    rest = f" {counted(lacking, 'ticked row')} would keep what {'it has' if lacking == 1 else 'they have'}." * bool(
        lacking
    )
    st.caption(f"It would be: {escaped(preview or 'none')}.{rest}")
