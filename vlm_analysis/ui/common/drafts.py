"""Prompts in the making: uploaded images with a question, a domain and an answer, edited in a table until they are saved.

    uploads -> add_uploads -> Draft rows <-> the table on screen -> finished -> prompts

The rows live in the session. The table keeps what is typed as changes to the rows it was first given, so these rows
(`_GIVEN`) stay as they are while it is on screen, and every change of the rows themselves gives it a new key. Streamlit
forgets the table's changes when it is not drawn (another tab, another page): what it last showed (`_SHOWN`) outlives it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any, Protocol

import pandas as pd
import streamlit as st
from PIL import Image

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.images import IMAGE_SUFFIXES, open_image
from vlm_analysis.prompts.problems import grouped
from vlm_analysis.prompts.prompts import DEFAULT_DOMAIN, Problem, Prompt
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted
from vlm_analysis.workbench.sidecars import NAME_LIMIT, clean_name

MAX_DRAFTS = 200
MAX_DRAFT_BYTES = 1_000_000_000  # of decoded pixels, which stay in memory until the rows are removed
MAX_NOTES = 12
MAX_PROBLEMS = 500
THUMBNAIL_SIDE = 96
PREVIEW_SIDE = 256
IMAGE_TYPES = [suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES]
TEXTS = ("question", "domain", "answer")

_GIVEN, _SHOWN, _VERSION, _SAVED = "drafts:given", "drafts:shown", "drafts:version", "drafts:saved"


class Upload(Protocol):
    """An uploaded file, as Streamlit hands it over."""

    name: str

    def getvalue(self) -> bytes:
        """Return the bytes of the file."""


@dataclass(frozen=True)
class Draft:
    """One row: a decoded image under a name of its own, its thumbnail as a data URI, and what was typed so far."""

    image: Image.Image
    name: str
    thumbnail: str
    question: str = ""
    domain: str = ""
    answer: str = ""
    ticked: bool = True


def editor_key() -> str:
    """Return the key of the table; a new one after every change of the rows themselves."""
    return f"drafts-{st.session_state.get(_VERSION, 0)}"


def current_drafts() -> tuple[Draft, ...]:
    """Return the rows with everything typed into the table so far."""
    shown: tuple[Draft, ...] = st.session_state.get(_SHOWN, ())
    if editor_key() not in st.session_state:
        return shown
    edits = st.session_state[editor_key()].get("edited_rows", {})
    return tuple(_with_edits(draft, edits.get(row, {})) for row, draft in enumerate(st.session_state[_GIVEN]))


def drafts_frame() -> pd.DataFrame:
    """Return the table to hand to the editor of `editor_key()`; call it right before the editor is drawn."""
    drafts = current_drafts()
    if editor_key() not in st.session_state:
        replace_drafts(drafts)
    st.session_state[_SHOWN] = drafts
    columns = ("ticked", "thumbnail", "name", *TEXTS)
    return pd.DataFrame([[getattr(d, column) for column in columns] for d in st.session_state[_GIVEN]], columns=columns)


def replace_drafts(drafts: Iterable[Draft]) -> None:
    """Make these the rows, with nothing typed over them."""
    st.session_state[_GIVEN] = st.session_state[_SHOWN] = tuple(drafts)
    st.session_state[_VERSION] = st.session_state.get(_VERSION, 0) + 1


def add_uploads(uploads: Sequence[Upload]) -> list[str]:
    """Add a row for each image, ticked in place of those before; return a message for each file left out."""
    drafts = [replace(draft, ticked=False) for draft in current_drafts()]
    room = MAX_DRAFT_BYTES - sum(_n_bytes(draft.image) for draft in drafts)
    problems = []
    for upload in uploads:
        path = upload.name if len(upload.name) <= NAME_LIMIT else "/".join(PurePosixPath(upload.name).parts[-2:])
        name = _free_name(path, {draft.name for draft in drafts})
        if len(drafts) >= MAX_DRAFTS:
            problems.append(f"{name}: expected at most {MAX_DRAFTS} rows, got more. Save these and remove them first.")
            continue
        try:
            image = open_image(upload.getvalue())
        except PromptError as error:
            problems.append(f"{name}: {error}")
            continue
        if room < _n_bytes(image):
            problems.append(f"{name}: expected at most 1 GB of images, got more. Save these and remove them first.")
            continue
        room -= _n_bytes(image)
        drafts.append(Draft(image, name, _thumbnail(image)))
    replace_drafts(drafts)
    return problems


def set_rows(field: str, text: Callable[[Draft], str], *, ticked_only: bool = True) -> None:
    """Write what `text` makes of a row into one field of the ticked rows, or of all; a row of which it makes a blank stays as it is."""

    def written(draft: Draft) -> Draft:
        new = text(draft).strip() if draft.ticked or not ticked_only else ""
        return _with_edits(draft, {field: new}) if new else draft

    replace_drafts(map(written, current_drafts()))


def tick(which: Callable[[Draft], bool]) -> None:
    """Tick the rows for which it holds, and no others."""
    replace_drafts(replace(draft, ticked=which(draft)) for draft in current_drafts())


def note_saved() -> None:
    """Note that the rows are saved as they are."""
    st.session_state[_SAVED] = _texts()


def unsaved() -> bool:
    """Return whether there are rows that are not saved as they are."""
    return bool(current_drafts()) and st.session_state.get(_SAVED) != _texts()


def _texts() -> tuple[tuple[str, ...], ...]:
    return tuple((draft.name, draft.question, draft.domain, draft.answer) for draft in current_drafts())


def remove_ticked() -> None:
    """Remove the ticked rows."""
    replace_drafts(draft for draft in current_drafts() if not draft.ticked)


def finished(drafts: Iterable[Draft]) -> tuple[list[Prompt], list[str]]:
    """Return the prompts that are ready, and a message for each row that is not."""
    prompts, problems = [], []
    for draft in drafts:
        if not draft.question.strip():
            problems.append(f"{draft.name}: the question is missing.")
            continue
        try:
            prompts.append(Prompt((draft.image,), draft.question, draft.domain, draft.name, draft.answer))
        except PromptError as error:
            problems.append(f"{draft.name}: {error}")
    return prompts, problems


def saved_message(prompts: Sequence[Prompt], name: str) -> str:
    """Say in plain text what was saved, and how many went to the default domain or have no answer."""
    n_default = sum(prompt.domain == DEFAULT_DOMAIN for prompt in prompts)
    n_open = sum(prompt.answer is None for prompt in prompts)
    parts = [f"Saved {counted(len(prompts), 'prompt')} as '{name}'."]
    if n_default:
        parts.append(f"In the domain '{DEFAULT_DOMAIN}': {n_default}.")
    if n_open:
        parts.append(f"Without a reference answer: {n_open}; the dense model's own response will stand in.")
    return " ".join(parts)


def draw_notes(what: str, messages: Sequence[str]) -> None:
    """Draw what was left out and why."""
    if not messages:
        return
    lines = [f"- {escaped(message)}" for message in messages[:MAX_NOTES]]
    if len(messages) > MAX_NOTES:
        lines.append(f"- and {len(messages) - MAX_NOTES} more")
    st.warning(f"**{what}: {len(messages)}**\n\n" + "\n".join(lines), icon=":material/warning:")
    if len(messages) > MAX_NOTES:
        with st.expander(f"All {counted(len(messages), 'line')}"):
            st.text("\n".join(messages))


def draw_problems(problems: Sequence[Problem], what: str = "left out") -> None:
    """Draw what a source had to leave out, a line for each reason; `what` says it of the rows."""
    groups = grouped(problems)
    rows = [(group.number, group.message, group.row_words, group.id_words) for group in groups[:MAX_PROBLEMS]]
    left_out = sum(group.number for group in groups if group.rows)
    st.markdown(f"{counted(left_out, 'row') if left_out else 'No row'} {what}")
    column = st.column_config
    st.dataframe(
        pd.DataFrame(rows, columns=["number", "message", "row", "id"]),
        hide_index=True,
        column_config={
            "number": column.NumberColumn("Times", width=70, help="How many problems have this reason"),
            "message": column.TextColumn("Why", width="large", help="That of the first of these rows"),
            "row": column.TextColumn("Rows", width="small", help="Counted from 1; blank where it is the whole source"),
            "id": column.TextColumn("Ids", width="small"),
        },
        row_height=64,  # text wraps from about 60 on
        alt="What was left out, by its reason",
    )


@st.cache_data(show_spinner=False, max_entries=500)
def preview(image_hash: str, _prompt: Prompt, number: int) -> bytes:
    """Return a small PNG of one image of a prompt; drawings of few pixels grow, with sharp edges.

    Raises:
        PromptError: the image cannot be read any more.
    """
    image = open_image(_prompt.images[number])
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    factor = PREVIEW_SIDE // max(image.size)
    return _png(image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST))


def _with_edits(draft: Draft, edits: Mapping[str, Any]) -> Draft:
    """Apply what the browser sent; only the columns that may be edited count. A cell that was emptied comes as None."""
    texts: dict[str, Any] = {field: str(edits[field] or "") for field in TEXTS if field in edits}
    return replace(draft, ticked=bool(edits.get("ticked", draft.ticked)), **texts)


def _free_name(name: str, names: set[str]) -> str:
    """Return a name of one line that no row has yet: the second "a.png" becomes "a.png (2)"."""
    cleaned = free = clean_name(name)
    number = 2
    while free in names:
        free, number = f"{cleaned} ({number})", number + 1
    return free


def _n_bytes(image: Image.Image) -> int:
    return 3 * image.width * image.height


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return "data:image/png;base64," + base64.b64encode(_png(small)).decode()


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
