"""The table of masks: what a click in it does, the rows in view with what was measured of them, and the button that measures the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.telling import telling_line, title_of
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.editor import CANDIDATES, as_edit, take_mask
from vlm_analysis.ui.common.held import HELD, fits_editor
from vlm_analysis.ui.common.pickers import edited_mask
from vlm_analysis.ui.common.session import choose, opened, workspace
from vlm_analysis.ui.common.terms import explained
from vlm_analysis.ui.common.text import METRIC_HELP, does, escaped
from vlm_analysis.ui.masks.maskpair import draw_pair
from vlm_analysis.ui.masks.maskrows import (
    CANDIDATE,
    EDITOR_ROW,
    MOST_DOMAINS,
    ORDERS,
    MaskRow,
    found,
    made_rows,
    origin_words,
    saved_rows,
    table_frame,
)
from vlm_analysis.ui.masks.measured import Measured, draw_evaluating, measured_here
from vlm_analysis.words import counted
from vlm_analysis.workbench.details import STARRED
from vlm_analysis.workbench.shelf import keep_mask, open_whole, write_notes
from vlm_analysis.workbench.workspace import Item

MOST_ROWS = 200  # in view: the browser gets them all, and sorts them
LOAD, STAR = "mask_load", "mask_star"  # the buttons in the table
_TICKED, _DRAWN, _TABLE, _EDITS, _PROBLEM = (
    "masks:ticked",  # the ids of the ticked rows, the one ticked first in front
    "masks:drawn",  # the ids of the rows as last drawn, in order
    "masks:table",  # the table's key: another one where there are other rows, as edits go by the row's number
    "masks:edits",  # the edits of that table that were taken already
    "masks:problem",  # what went wrong in the run before
)


def take_clicks() -> None:
    """Do what was clicked or typed in the table as it was last drawn; call it before anything shows the mask in the editor."""
    state = st.session_state
    drawn: list[str] = state.get(_DRAWN, [])
    try:
        for key, act in ((LOAD, _load), (STAR, _star)):
            row = dict(state.get(key) or {}).get("row")
            if isinstance(row, int) and 0 <= row < len(drawn):
                act(drawn[row])
        edits = dict(state.get(state.get(_TABLE, "mask_table-0"), {})).get("edited_rows", {})
        before, state[_EDITS] = state.get(_EDITS, {}), {row: dict(changes) for row, changes in edits.items()}
        for row, changes in edits.items():
            if changes != before.get(row) and int(row) < len(drawn):
                _take_edits(drawn[int(row)], changes, before.get(row, {}))
    except StrataError as error:
        state[_PROBLEM] = str(error)


def _take_edits(row_id: str, changes: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    if changes.get("ticked") != before.get("ticked"):
        others = [one for one in st.session_state.get(_TICKED, []) if one != row_id]
        st.session_state[_TICKED] = [*others, row_id] if changes.get("ticked") else others
    if "notes" in changes and changes["notes"] != before.get("notes"):
        item, notes = _item(row_id), str(changes["notes"] or "")
        if item is not None:
            write_notes(workspace(), item, notes)
        elif (mask := _made(row_id)) is not None:
            keep_mask(workspace(), replace(mask, notes=notes))


def _load(row_id: str) -> None:
    """Take a mask of the table into the editor."""
    item, mask = _item(row_id), _made(row_id)
    if item is not None:
        choose("masks", item)
        mask = opened(item)
    if mask is not None and row_id != EDITOR_ROW:
        take_mask(mask)
        st.toast(escaped(f"In the editor: {does(as_edit())}."), icon=":material/edit:")


def _star(row_id: str) -> None:
    """Give a saved mask a star or take it away; one that is not saved is saved with it."""
    item, mask = _item(row_id), _made(row_id)
    if item is not None:
        workspace().note(item, **{STARRED: item.details.get(STARRED) is not True})
    elif mask is not None:
        keep_mask(workspace(), mask, starred=True)
        st.toast("Mask saved, with a star.", icon=":material/star:")


def _item(row_id: str) -> Item | None:
    return None if row_id == EDITOR_ROW or row_id.startswith(CANDIDATE) else workspace().find("masks", row_id)


def _made(row_id: str) -> Edit | None:
    """Return the mask of a row that is not saved, under the name under which it would be."""
    name = row_id.removeprefix(CANDIDATE)
    mask = edited_mask() if row_id == EDITOR_ROW else st.session_state.get(CANDIDATES, {}).get(name)
    if mask is None or not (row_id == EDITOR_ROW or row_id.startswith(CANDIDATE)):
        return None
    named = mask.name if row_id == EDITOR_ROW else name
    model = mask.model or st.session_state.mask_model
    return replace(mask, name=(named or does(mask))[:120], model=model)


# --- the table on screen -------------------------------------------------------------------------------------------


def draw_masks(recording: Recording, candidates: Mapping[str, Edit]) -> None:
    """Draw the masks that fit the recording's model, two that are ticked side by side, and what measures the rest."""
    if problem := st.session_state.pop(_PROBLEM, ""):
        st.error(escaped(problem))
    rows = _rows(recording, candidates)
    if not rows:
        st.caption("There are no masks yet. Drop layers in the strip and save, or take what the criteria propose.")
        return
    measured = measured_here(recording)
    domains = _choose_domains(measured)
    shown, ticked = [_told(row) for row in _read(_in_view(rows))], _read(_ticked(rows))
    measured.look_up([row.mask for row in (*shown, *ticked)])
    _say_what_is_measured(measured, shown)
    _draw(shown, measured, recording.model, domains)
    draw_evaluating(measured, [row.mask for row in ticked], [row.mask for row in shown])
    if len(ticked) == 2:
        draw_pair(ticked[0], ticked[1], measured, recording)
    elif len(ticked) != 1:
        st.caption(f"Tick two masks to compare them{f'; {len(ticked)} are ticked' if ticked else ''}.")
    else:
        st.caption(f"Tick another mask to compare it with {escaped(ticked[0].name)}.")


def _rows(recording: Recording, candidates: Mapping[str, Edit]) -> list[MaskRow]:
    """Return the rows of all masks; those of other models of as many layers where they are asked for."""
    fitting = [
        item
        for item in workspace().items("masks")
        if item.details.get("n_layers") == recording.n_layers and _fits(item)
    ]
    of_others = [item for item in fitting if item.model not in (None, recording.model.fingerprint)]
    if of_others and not st.toggle(
        f"Masks of other models of {recording.n_layers} layers ({len(of_others)})",
        key="masks_of_others",
        help="They fit by their number of layers. What was measured of them on their own model says nothing about this one.",
    ):
        strangers = {item.id for item in of_others}
        fitting = [item for item in fitting if item.id not in strangers]
    saved = saved_rows(fitting)
    return [*made_rows(edited_mask(), candidates, saved), *saved]


def _fits(item: Item) -> bool:
    """Return whether the editor can hold a saved mask; its file is read only where the sidecar, of an older version, does not tell."""
    if item.is_mask or "kinds" not in item.details:
        return item.is_mask or _edit_for_editor(item) is not None
    return HELD.issuperset(item.details["kinds"])


def _read(rows: Sequence[MaskRow]) -> list[MaskRow]:
    """Return the rows with what each mask does, of some read from its file; without those whose file is damaged then."""
    read = []
    for row in rows:
        if row.made is not None or row.item is None or row.item.is_mask:
            read.append(row)
        elif (edit := _edit_for_editor(row.item)) is not None:
            read.append(replace(row, made=edit))
    return read


def _edit_for_editor(item: Item) -> Edit | None:
    """Return a saved edit that does more than drop layers, where the editor can hold it; its file is read once."""
    edit: Edit | None = _opened_edit(str(workspace().root), item.id, item)
    return edit if edit is not None and fits_editor(edit) else None


@st.cache_resource(show_spinner=False, max_entries=1000)
def _opened_edit(root: str, item_id: str, _item: Item) -> Edit | None:
    return open_whole(_item)


def _in_view(rows: Sequence[MaskRow]) -> list[MaskRow]:
    """Draw what chooses among many masks, and return the rows in view."""
    if len(rows) > 12:
        left, right = st.columns([2, 1])
        rows = found(
            rows, left.text_input("Find masks", key="mask_find", placeholder="a part of the name or the notes")
        )
        order = right.selectbox(
            "Order",
            list(ORDERS),
            key="mask_order",
            help=f"Which {MOST_ROWS} are in view where there are more. A click on a column's title sorts those in view.",
        )
        n_made = sum(row.item is None for row in rows)
        rows = [*rows[:n_made], *sorted(rows[n_made:], key=ORDERS[order])]
    else:
        n_made = sum(row.item is None for row in rows)
        rows = [*rows[:n_made], *sorted(rows[n_made:], key=ORDERS["starred, then newest"])]
    n_pages = -(-len(rows) // MOST_ROWS)
    if n_pages < 2:
        return list(rows)
    page = st.pagination(n_pages, key="mask_page")
    begin = (min(page, n_pages) - 1) * MOST_ROWS
    shown = list(rows[begin : begin + MOST_ROWS])
    st.caption(
        f"Masks {begin + 1} to {begin + len(shown)} of {len(rows):,} are in view; a column's title sorts those in view."
    )
    return shown


def _ticked(rows: Sequence[MaskRow]) -> list[MaskRow]:
    """Return the ticked rows, the one ticked first in front; ticks of masks that are gone are forgotten."""
    by_id = {row.id: row for row in rows}
    st.session_state[_TICKED] = [one for one in st.session_state.get(_TICKED, []) if one in by_id]
    return [by_id[one] for one in st.session_state[_TICKED]]


def _told(row: MaskRow) -> MaskRow:
    """Return a row with what only the file of a saved mask tells; it is read once."""
    if row.item is None:
        return row
    try:
        changed = row.item.path.stat().st_mtime_ns
    except OSError:
        return replace(row, origin="damaged")
    origin, chosen_on = _file_tells(str(workspace().root), row.item.id, changed, row.item)
    if row.item.model not in (None, st.session_state.mask_model.fingerprint):
        origin = f"{origin}, of {row.item.model_name}"
    return replace(row, origin=origin, chosen_on=chosen_on)


@st.cache_resource(show_spinner=False, max_entries=10_000)
def _file_tells(root: str, item_id: str, changed: int, _item: Item) -> tuple[str, frozenset[str]]:
    mask: Edit | None = open_whole(_item)
    return ("damaged", frozenset()) if mask is None else (origin_words(mask), mask.chosen_on)


def _choose_domains(measured: Measured) -> list[str]:
    """Return the domains whose retention has a column; which is a choice where there are more than three."""
    names = list(measured.domains)
    if len(names) <= MOST_DOMAINS:
        return names
    chosen = st.multiselect(
        "Domains with a column",
        names,
        default=names[:MOST_DOMAINS],
        key=f"mask_domains:{measured.prompts_id}",
        help="The worst domain and the mean are of all.",
    )
    return [name for name in names if name in chosen]


def _say_what_is_measured(measured: Measured, rows: Sequence[MaskRow]) -> None:
    if measured.why_not:
        st.caption(f"Not evaluated: {measured.why_not}")
        return
    words = f" is of {title_of(measured.metric)} on {measured.name} ({counted(measured.n_prompts, 'prompt')})."
    if n_flattered := sum(measured.fingerprint in row.chosen_on for row in rows):
        words += f" {n_flattered} of the masks in view were chosen on these prompts, which flatters them."
    explained("[[retention|Retention]]", words)
    if line := telling_line(measured.metric):
        st.caption(escaped(line))


def _draw(rows: Sequence[MaskRow], measured: Measured, model: ModelInfo, domains: Sequence[str]) -> None:
    """Draw the editable table; its key goes with its rows."""
    from vlm_analysis.figures.ministrips import strip_width

    state = st.session_state
    ids = [row.id for row in rows]
    if ids != state.get(_DRAWN) or _TABLE not in state:
        number = int(state.get(_TABLE, "mask_table-0").rpartition("-")[2]) + 1
        state[_TABLE], state[_DRAWN], state[_EDITS] = f"mask_table-{number}", ids, {}
    frame = table_frame(rows, measured.numbers, model=model, domains=domains, ticked=frozenset(state.get(_TICKED, ())))
    st.data_editor(
        frame,
        key=state[_TABLE],
        hide_index=True,
        column_config=_columns(list(frame.columns), measured, strip_width(model.n_layers)),
        placeholder="not evaluated",
        alt="The masks with their layers, where they come from and what they keep",
    )


def _columns(names: Sequence[str], measured: Measured, strip_px: int) -> dict[str, Any]:
    """Return how each column is drawn."""
    column = st.column_config
    percent: dict[str, Any] = {"format": "%.0f %%", "disabled": True, "width": 125}
    whose = (
        f"Of {title_of(measured.metric)}. "
        + METRIC_HELP["retention" if measured.metric == "exact_match" else measured.metric]
    )
    looks: dict[str, Any] = {
        "ticked": column.CheckboxColumn(
            "Compare", width=95, help="Two that are ticked are compared below.", pinned=True
        ),
        "star": column.ButtonColumn(
            "Star", key=STAR, type="tertiary", width=60, help="A star saves a mask that is not saved."
        ),
        "strip": column.ImageColumn(
            "Layers",
            width=strip_px + 20,
            help="A bar a layer, layer 0 on the left; dropped ones are short and orange, those that vision tokens "
            "skip are purple.",
        ),
        "name": column.TextColumn("Name", disabled=True, width="medium"),
        "load": column.ButtonColumn(
            "Editor", key=LOAD, width=70, help="Takes the mask into the strip; undo brings back the one before."
        ),
        "origin": column.TextColumn("Origin", disabled=True, width=260),
        "budget": column.NumberColumn("Budget", disabled=True, width=70, help="Layers dropped."),
        "parameters": column.NumberColumn(
            "Parameters saved", help="Of all parameters of the model.", format="%.1f %%", disabled=True, width=135
        ),
        "worst": column.NumberColumn("Worst domain", help=f"The least retention of any domain. {whose}", **percent),
        "mean": column.NumberColumn("Mean", help=f"Retention, the mean over domains. {whose}", **percent),
        "kl_to_dense": column.NumberColumn(
            "KL", format="%.3f", disabled=True, width=90, help=METRIC_HELP["kl_to_dense"]
        ),
        "notes": column.TextColumn(
            "Notes",
            max_chars=2000,
            width="medium",
            help="Kept in the mask's file; they save one that is not saved.",
        ),
    }
    kept = {name: name.removeprefix("kept:") for name in names if name.startswith("kept:")}
    looks |= {
        name: column.NumberColumn(escaped(domain), help=f"Retention. {whose}", **percent)
        for name, domain in kept.items()
    }
    return {name: looks[name] for name in names}
