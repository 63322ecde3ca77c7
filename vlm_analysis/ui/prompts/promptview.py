"""The Prompts page's saved sets, and a look at the set in use."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.incoming import is_waiting
from vlm_analysis.ui.common.pickers import delete, rename, say_problem
from vlm_analysis.ui.common.promptcard import draw_prompt
from vlm_analysis.ui.common.sameline import line_of, same_line
from vlm_analysis.ui.common.session import choose, chosen, opened, workspace
from vlm_analysis.ui.common.shell import go_on
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import counted, in_groups, total_of_domains
from vlm_analysis.workbench.details import count_domains
from vlm_analysis.workbench.workspace import Item

PAGE_SIZE = 12
ALL_DOMAINS = ""  # no prompt has a blank domain
OWN_IMAGES, FILES, HUB = "Your images", "Open a file or folder", "A dataset of the Hub"  # tabs
BROUGHT = (FILES, HUB)


def saved_tab() -> None:
    """Draw the saved sets and what can be done to one of them."""
    items = {item.id: item for item in workspace().items("prompts")}
    say_problem("prompts")
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
    domains = item.details.get("domains", [])
    more = count_domains(item.details) - len(domains)
    return item.details.get("n"), ", ".join(domains) + f" and {more} more" * (more > 0)


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
        st.button("Delete for good", type="primary", on_click=delete_set, args=(item,), key="delete-yes")
        st.button("Keep it", on_click=ask_delete, args=("",), key="delete-no")


def delete_set(item: Item) -> None:
    """Delete a saved set that was asked about."""
    ask_delete("")
    delete(item)


def in_hand(way_in: str) -> bool:
    """Return whether a tab holds another set than the one in use, rows not saved yet or data not taken yet; says so."""
    own_images = way_in == OWN_IMAGES
    waiting = drafts.unsaved() if own_images else way_in in BROUGHT and is_waiting()
    if waiting and (item := chosen("prompts")) is not None:
        how = "save these rows" if own_images else "take these prompts"
        st.caption(f"In use until you {how}: {escaped(item.name)}.")
    return waiting


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
    same_line(line_of("show", item, model=False))
    counts = Counter(prompt.domain for prompt in prompts)
    answered = Counter(prompt.domain for prompt in prompts if prompt.answer)
    rows = [(domain, n, answered[domain]) for domain, n in counts.items()]
    columns = ["Domain", "Prompts", "With answer"]
    st.dataframe(pd.DataFrame(rows, columns=columns), hide_index=True, alt="Prompts of each domain")
    _say_groups(prompts)
    total = total_of_domains(counts, "All domains")
    domain = st.selectbox(
        "Show",
        [ALL_DOMAINS, *counts],
        format_func=lambda name: f"{name or total} ({counts[name] if name else len(prompts)})",
        key=f"domain-{item.id}",
        help="Which prompts to look at; the set stays as it is",
    )
    draw_gallery(prompts.for_domain(domain) if domain else prompts, f"{item.id}-{domain}")


def _say_groups(prompts: PromptSet) -> None:
    """Say how many groups the prompts are in where some share one, and name the pictures that tie none of them."""
    groups = prompts.groups
    if groups.shared:
        st.caption(
            f"{in_groups(len(prompts), groups.number)}: prompts that share a picture, or a cell of the column “group”, are one group. It "
            "counts as one draw in every interval, and halves never part it."
        )
    for picture in groups.common:
        shown = [prompt for prompt in prompts if picture in prompt.image_hashes]
        st.info(
            escaped(
                f"Picture {shown[0].image_hashes.index(picture) + 1} of '{shown[0].id}' is in {len(shown)} of "
                f"{counted(len(prompts), 'prompt')}, as a "
                "logo or a blank would be: it makes no group of them. If they ask about it, say so in a column “group”."
            )
        )


def draw_gallery(prompts: PromptSet, key: str) -> None:
    """Draw the prompts, a page at a time."""
    grid = st.container()
    n_pages = -(-len(prompts) // PAGE_SIZE)
    page = st.pagination(n_pages, key=f"page-{key}") if n_pages > 1 else 1
    with grid, st.grid(4, min_column_width=220):
        for prompt in prompts[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]:
            with st.container(border=True, height="stretch"):
                draw_prompt(prompt)
