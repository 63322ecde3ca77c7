"""Prompts page: images with questions from bundled packs, uploads, files or earlier work; then a look at the set in use."""

from __future__ import annotations

import operator
from collections import Counter
from functools import reduce
from pathlib import Path, PurePath

import pandas as pd
import streamlit as st

from vlm_analysis.errors import PromptError, StrataError
from vlm_analysis.prompts import Prompt, PromptSet, bundled_packs, open_prompts
from vlm_analysis.stored import keep_prompts
from vlm_analysis.ui import drafts
from vlm_analysis.ui.drafts import counted
from vlm_analysis.ui.session import choose, chosen, opened, workspace
from vlm_analysis.ui.shell import begin, go_on
from vlm_analysis.ui.text import escaped
from vlm_analysis.workspace import Item, clean_name

PAGE_SIZE = 12
MAX_SHOWN_TEXT = 400  # characters of a question or an answer in the gallery
MAX_SHOWN_IMAGES = 4
ALL_DOMAINS = ""  # no prompt has a blank domain
TABLE_HELP = """\
| column | what it holds |
| --- | --- |
| `image` | path of the image, relative to the table; or `images`: a list of paths, in a CSV as JSON |
| `question` | what to ask |
| `domain` | optional: the group it belongs to; `default` where it is blank |
| `id` | optional: a name of its own; the row number where it is blank |
| `answer` | optional: the reference answer |
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
    with st.form("path", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        path = st.text_input(
            "Folder or file on this machine",
            placeholder="/data/charts or /data/charts/prompts.csv",
            key="path-text",
            help="On the machine that Strata runs on. Images lie beside the table, or as domain/name.png with name.txt.",
        ).strip(" \t\"'")
        pressed = st.form_submit_button("Open", icon=":material/folder_open:", key="path-button")
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


def read(name: str, source: Path | str | tuple[str, bytes]) -> None:
    """Open a source and remember what came of it, or the error, until it is saved or another is opened."""
    with st.spinner(f"Opening {escaped(name)}"):
        try:
            found: PromptSet | str = open_prompts(source)
        except StrataError as error:
            found = str(error)
    st.session_state["read"] = (clean_name(name), found)


def draw_read() -> None:
    """Draw what was read: the error, or the count with the problems and the button that saves the set."""
    name, found = st.session_state.get("read", ("", None))
    if isinstance(found, str):
        st.error(escaped(found))
    if not isinstance(found, PromptSet):
        return
    place = st.empty()
    with place.container():
        counts = f"{counted(len(found), 'prompt')} in {counted(len(found.domains), 'domain')}"
        st.markdown(f"**{escaped(name)}**: {counts}; {counted(len(found.problems), 'problem')}")
        if found.problems:
            drafts.draw_problems(found.problems)
        kept = name_form("file", name)
    item = use(found, kept) if kept is not None else None
    if item:
        place.success(f"Saved {counts} as '{escaped(item.name)}'.", icon=":material/check:")
        del st.session_state["read"]


def saved_tab() -> None:
    """Draw the saved sets and what can be done to one of them."""
    items = {item.id: item for item in workspace().items("prompts")}
    if message := st.session_state.pop("saved-error", ""):
        st.error(escaped(message))
    if not items:
        st.caption("Nothing is saved yet. Every set that you use is kept here.")
        return
    in_use = chosen("prompts")
    columns = ["In use", "Name", "Prompts", "Domains", "Created (UTC)"]
    rows = [[item == in_use, item.name, *contents(item), created(item)] for item in items.values()]
    st.dataframe(pd.DataFrame(rows, columns=columns), hide_index=True, alt="Saved prompt sets")
    picked = items[
        st.selectbox(
            "Saved set",
            list(items),
            format_func=lambda item_id: f"{items[item_id].name} ({created(items[item_id])})",
            key="saved-set",
            help="The buttons below act on this one",
        )
    ]
    with st.container(horizontal=True):
        args = ("prompts", picked)
        st.button("Use this set", type="primary", icon=":material/check:", on_click=choose, args=args, key="use-saved")
        st.button("Delete", icon=":material/delete:", on_click=ask_delete, args=(picked.id,), key="delete-saved")
    if st.session_state.get("deleting") == picked.id:
        confirm_delete(picked)
    with st.form("rename", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("New name", picked.name, max_chars=120, key=f"rename-{picked.id}", help="As lists show it")
        st.form_submit_button("Rename", icon=":material/edit:", on_click=rename, args=(picked,), key="rename-button")


def contents(item: Item) -> tuple[int | None, str]:
    """Return the number of prompts of a saved set and its domains, as its description has them."""
    n, domains = item.details.get("n"), item.details.get("domains")
    return n if isinstance(n, int) else None, ", ".join(map(str, domains)) if isinstance(domains, list) else ""


def created(item: Item) -> str:
    """Return the minute in which an item was saved."""
    return item.created[:16].replace("T", " ")


def ask_delete(item_id: str) -> None:
    """Note which set is about to be deleted; an empty id takes it back."""
    st.session_state["deleting"] = item_id


def confirm_delete(item: Item) -> None:
    """Ask once more before a set is deleted."""
    st.warning(f"Delete '{escaped(item.name)}' for good? What was recorded with it stays.", icon=":material/delete:")
    with st.container(horizontal=True):
        st.button("Delete for good", type="primary", on_click=delete, args=(item,), key="delete-yes")
        st.button("Keep it", on_click=ask_delete, args=("",), key="delete-no")


def delete(item: Item) -> None:
    """Delete a saved set; what goes wrong is said in the next run."""
    ask_delete("")
    try:
        workspace().delete(item)
    except StrataError as error:
        st.session_state["saved-error"] = str(error)


def rename(item: Item) -> None:
    """Rename a saved set to what was typed; what goes wrong is said in the next run."""
    try:
        workspace().rename(item, st.session_state[f"rename-{item.id}"])
    except StrataError as error:
        st.session_state["saved-error"] = str(error)


def draw_in_use() -> None:
    """Draw the set this session works with: its domains, a gallery, and the way on."""
    item = chosen("prompts")
    if item is None:
        st.info('No prompts yet. Press "Use these packs" under "Bundled packs" to start.', icon=":material/info:")
        return
    st.subheader(f"In use: {escaped(item.name)}")
    try:
        with st.spinner("Opening the prompts"):
            prompts = opened(item)
    except StrataError as error:
        st.error(escaped(error))
        return
    go_on("pages/3_similarity.py", "Go on to Similarity")
    counts = Counter(prompt.domain for prompt in prompts)
    answered = Counter(prompt.domain for prompt in prompts if prompt.answer)
    rows = [(domain, n, answered[domain]) for domain, n in counts.items()]
    columns = ["Domain", "Prompts", "With answer"]
    st.dataframe(pd.DataFrame(rows, columns=columns), hide_index=True, alt="Prompts of each domain")
    domain = st.selectbox(
        "Show",
        [ALL_DOMAINS, *counts],
        format_func=lambda name: f"{name or 'All domains'} ({counts[name] if name else len(prompts)})",
        key=f"domain-{item.id}",
        help="Which prompts to look at; the set stays as it is",
    )
    draw_gallery(prompts.for_domain(domain) if domain else prompts, f"{item.id}-{domain}")


def draw_gallery(prompts: PromptSet, key: str) -> None:
    """Draw the prompts, a page at a time."""
    grid = st.container()
    n_pages = -(-len(prompts) // PAGE_SIZE)
    page = st.pagination(n_pages, key=f"page-{key}") if n_pages > 1 else 1
    with grid, st.grid(4, min_column_width=220):
        for prompt in prompts[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]:
            with st.container(border=True, height="stretch"):
                draw_prompt(prompt)


def draw_prompt(prompt: Prompt) -> None:
    """Draw one prompt as plain text, so that nothing in it is live."""
    try:
        st.image([drafts.preview(name, prompt, i) for i, name in enumerate(prompt.image_hashes[:MAX_SHOWN_IMAGES])])
    except PromptError as error:
        st.error(escaped(error))
    if len(prompt.images) > MAX_SHOWN_IMAGES:
        st.caption(f"and {len(prompt.images) - MAX_SHOWN_IMAGES} more images")
    st.text(shortened(prompt.question))
    st.caption("Reference answer" if prompt.answer else "No reference answer")
    if prompt.answer:
        st.text(shortened(prompt.answer))
    st.caption("Domain")
    st.text(prompt.domain)


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + " …"


TABS = {
    "Bundled packs": packs_tab,
    "Your images": images_tab,
    "Open a file or folder": file_tab,
    "Saved sets": saved_tab,
}

begin("Prompts", ":material/add_photo_alternate:", "Choose the images and questions that the layers are judged by.")
st.session_state.setdefault("way-in", st.session_state.get("last-way-in", "Bundled packs"))
for tab, draw in zip(st.tabs(list(TABS), key="way-in", on_change="rerun"), TABS.values(), strict=True):
    if tab.open:
        with tab:
            draw()
st.session_state["last-way-in"] = st.session_state["way-in"]
draw_in_use()
