"""Choosing saved items, and the confirmation where model and item do not belong together."""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.ownlocks import with_own_locks
from vlm_analysis.errors import StrataError
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.address import say_unknown, tell, tell_edit, tell_item, told
from vlm_analysis.ui.common.editor import as_edit, begin_editing, held, is_edited, locked_by_user
from vlm_analysis.ui.common.session import (
    choose,
    chosen,
    look_at,
    model_slot,
    opened,
    shown,
    shown_items,
    shown_model,
    workspace,
)
from vlm_analysis.ui.common.text import does, escaped, holds, what_it_does
from vlm_analysis.ui.common.whose import say_others
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.stale import STALE, is_stale
from vlm_analysis.workbench.workspace import Item

EDITED = "The mask in the editor"
MOST_CHOICES = 200  # in a box: it sends all to the browser


def pick_item(kind: str, label: str, help_text: str, among: list[Item] | None = None) -> Item | None:
    """Draw a box with the saved items of a kind, or those `among` others, the session's own first chosen; None where there is none.

    They are those of the model that is shown, or of no model.
    """
    items = shown_items(kind) if among is None else shown(among)
    for of in dict.fromkeys((kind, *(item.kind for item in items))):
        say_problem(of)
    now = chosen(kind, items)
    if not items or now is None:
        say_others(kind, among)
        return None
    by_id = {item.id: item for item in _in_list(items, kind, now.id)}
    line, key = st.container(horizontal=True, vertical_alignment="bottom"), f"pick:{kind}"
    st.session_state[key] = now.id
    picked = line.selectbox(
        label,
        list(by_id),
        format_func=lambda item_id: described(by_id[item_id]),
        help=help_text,
        key=key,
        on_change=_take,
        args=(kind, by_id, key),
    )
    with line.popover("", icon=":material/more_vert:", width="content", help=f"Rename or delete this {label.lower()}"):
        _manage(by_id[picked])
    _say_whose(by_id[picked])
    tell_item(kind, picked)
    return by_id[picked]


def _in_list(items: list[Item], kind: str, now: str | None) -> list[Item]:
    """Return the items that a box lists: all, or where they are many, the newest that hold what is searched, and the chosen one."""
    if len(items) <= MOST_CHOICES:
        return items
    text = st.text_input(
        f"Find in {len(items):,} {kind}",
        key=f"find:{kind}",
        placeholder="a part of the name or the notes",
        help=f"The box below lists the {MOST_CHOICES} newest of those that hold it.",
    )
    found = [item for item in items if holds(text, item.name, str(item.details.get("notes", "")))]
    if not found:
        st.caption("Nothing of this name. What was chosen stays.")
    listed = found[:MOST_CHOICES]
    return listed + [item for item in items if item.id == now and item not in listed]


def _take(kind: str, by_id: dict[str, Item], key: str) -> None:
    """Choose what the box under `key` holds; a label of a list that has changed since it was drawn chooses nothing."""
    item = by_id.get(st.session_state[key])
    if item is not None:
        choose(kind, item)


def _manage(item: Item) -> None:
    """Draw what can be done with a saved item beside looking at it."""
    st.text_input("New name", item.name, max_chars=120, key=f"rename-{item.id}", on_change=rename, args=(item,))
    st.caption("Deleting cannot be undone. What was made from it stays.")
    st.button("Delete for good", icon=":material/delete:", key=f"delete:{item.id}", on_click=delete, args=(item,))


def rename(item: Item) -> None:
    """Rename a saved item to what was typed under `rename-<id>`; what goes wrong is said in the next run (`say_problem`)."""
    try:
        workspace().rename(item, st.session_state[f"rename-{item.id}"])
    except StrataError as error:
        st.session_state[f"manage:{item.kind}"] = str(error)


def delete(item: Item) -> None:
    """Delete a saved item; what goes wrong is said in the next run (`say_problem`)."""
    try:
        workspace().delete(item)
    except StrataError as error:
        st.session_state[f"manage:{item.kind}"] = str(error)


def say_problem(kind: str) -> None:
    """Draw what went wrong in the run before with a saved item of this kind."""
    if problem := st.session_state.pop(f"manage:{kind}", ""):
        st.error(escaped(problem))


def _say_whose(item: Item) -> None:
    """Name the model and prompts of an item by their fingerprints."""
    prompts = f"prompts {(item.prompts or '?')[:8]}"
    st.caption(f"Model {escaped(item.model_name)} {item.model[:8]}, {prompts}" if item.model else prompts.capitalize())
    if is_stale(workspace(), item):
        st.warning(escaped(STALE))


def open_or_stop(item: Item) -> Any:
    """Return the value behind a saved item; where its file is damaged, say so and end the page there."""
    try:
        return opened(item)
    except StrataError as error:
        st.error(f"{escaped(item.name)}: {escaped(error)}")
        st.stop()


def described(item: Item) -> str:
    """Return an item's name with when it was made and for which model, as plain words."""
    when = item.created[:16].replace("T", " ")
    model = f" · {item.model_name}" if item.model_name else ""
    return f"{item.name} · {when}{model}"


def pick_named(container: DeltaGenerator, label: str, key: str, names: dict[str, str], help_text: str) -> str:
    """Draw a box with names, and return the key of the one that is chosen; a session keeps its choice on other pages too."""
    picked: str = container.selectbox(
        label, list(names), format_func=names.__getitem__, key=key, help=help_text, persist_state="session"
    )
    return picked


def pick_mask(n_layers: int | None = None) -> Edit | None:
    """Draw a box with the mask in the editor and the saved ones of the model that is shown; None where none fits `n_layers`."""
    info, key = model_slot().info, told("mask")
    named = None if key is None else _of_key(key)
    if info is not None and shown_model() == info.fingerprint and not is_edited(info):
        begin_editing(info)  # after a refresh or another model, the mask last edited for this one
    edited = edited_mask()
    items = {item.id: item for item in shown_items("masks") if n_layers in (None, item.details.get("n_layers"))}
    is_usable = edited is not None and not edited.is_dense and n_layers in (None, edited.n_layers)
    now = None if named is None else named.id
    listed = [item.id for item in _in_list(list(items.values()), "masks", now or st.session_state.get("pick:mask"))]
    options = [*([EDITED] if is_usable else []), *listed]
    if not options:
        say_others("masks")
        return None

    def words(option: str) -> str:
        if option == EDITED and edited is not None:
            return f"{EDITED}{f', {edited.name}' if edited.name else ''} · {does(edited)}"
        return f"{described(items[option])} · {what_it_does(items[option].details)}"

    if named is not None and now in options:
        st.session_state["pick:mask"] = named.id
    picked = st.selectbox(
        "Mask", options, format_func=words, help="Masks are made and saved on the Masks page.", key="pick:mask"
    )
    if picked == EDITED and edited is not None:
        tell_edit(edited, *held().narrow)
        tell("mask", None)
        return edited
    tell("mask", edit_key(items[picked].details))
    tell_edit(None)
    return open_or_stop(items[picked])


def _of_key(key: str) -> Item | None:
    """Return the newest saved mask of this key, and show its model's work; where there is none, say so."""
    item = next((item for item in workspace().items("masks") if edit_key(item.details) == key), None)
    if item is None:
        say_unknown("mask", key)
    else:
        look_at(item.model)
    return item


def edited_mask() -> Edit | None:
    """Return the mask as it stands in this session's editor; None where it was not used, or for another model than is shown."""
    mask = st.session_state.get("mask")
    model = st.session_state.get("mask_model")
    if mask is None or not isinstance(model, ModelInfo) or shown_model() not in (None, model.fingerprint):
        return None
    details = {"name": st.session_state.get("mask_name", ""), "notes": st.session_state.get("mask_notes", "")}
    origin = {"made": "by hand", "started_from": st.session_state.get("mask_origin", {})}
    origin = with_own_locks(origin, locked_by_user())
    return as_edit(**details, model=model, provenance=origin)


def agree_on_model(owner: ModelInfo | None, at_hand: ModelInfo | None, what: str, key: str) -> bool:
    """Say where `what` was made for another model than the one at hand; True when it belongs, or the user insists."""
    if at_hand is None or owner is None or owner.fingerprint == at_hand.fingerprint:
        return True
    if owner.n_layers != at_hand.n_layers:
        st.error(
            f"{what} was made for {escaped(owner.name)} with {owner.n_layers} layers; "
            f"{escaped(at_hand.name)} has {at_hand.n_layers}. Load that model, or choose another."
        )
        return False
    st.warning(
        f"{what} was made for another model: {escaped(owner.name)} ({owner.fingerprint[:8]}), "
        f"here it is {escaped(at_hand.name)} ({at_hand.fingerprint[:8]}). Its numbers say nothing about this one."
    )
    return st.checkbox("Use it anyway", key=f"anyway:{key}:{owner.fingerprint[:8]}:{at_hand.fingerprint[:8]}")
