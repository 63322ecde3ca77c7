"""The mask in the editor: clicks in the strip, candidates and saved masks all change one mask in the session."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.edits.ownlocks import own_locks, with_own_locks
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.sent import MOST_UNDO, Step, View, read_sent
from vlm_analysis.ui.common.session import last_choices

STRIP, CANDIDATES = "mask_strip", "mask_candidates"
SEEN, OWN = (
    "mask_seen",
    "mask_own",
)  # the mask that sessions to come start with, as last seen here; whether this session changed it
LOCKS, VIEW = "mask_locks", "mask_view"  # the layers that the user locked; how the strip is looked at
REVISION, TAKEN = "mask_revision", "mask_taken"  # of the mask by other hands than the strip's; the strip's last message


def begin_editing(model: ModelInfo) -> None:
    """Start with the mask last edited for this model, also after a refresh; an empty one where there is none.

    A session that has changed nothing itself goes on with what another one has changed since.
    """
    take_sent()
    state, last = st.session_state, _last_edited(model)
    if state.get("mask_model") == model and (state.get(OWN, True) or last is state.get(SEEN)):
        return
    kept = last or PruneMask(model.n_layers)
    state.update(mask=list(kept.dropped), mask_undo=[], mask_redo=[], mask_name=kept.name, mask_notes=kept.notes)
    state.update({"mask_model": model, "mask_origin": with_own_locks(kept.provenance, ()), CANDIDATES: {}})
    state.update({SEEN: last, OWN: False, LOCKS: list(own_locks(kept) or ())})
    state.mask_kept_notes = kept.notes if list(kept.dropped) == kept.provenance.get("dropped") else None
    _other_hand()


def _last_edited(model: ModelInfo) -> Edit | None:
    kept = last_choices().get(f"mask:{model.fingerprint}")
    return kept if isinstance(kept, Edit) and kept.n_layers == model.n_layers else None


def edited_elsewhere(model: ModelInfo) -> Edit | None:
    """Return the mask that another session has edited since this one did; None where there is none, or it is the same."""
    last = _last_edited(model)
    return last if last is not st.session_state.get(SEEN) and last != _as_it_stands() else None


def _as_it_stands() -> Edit:
    state = st.session_state
    details = {"name": state.get("mask_name", ""), "notes": state.get("mask_notes", "")}
    origin = with_own_locks(state.mask_origin, state.get(LOCKS, ()))
    return PruneMask(state.mask_model.n_layers, tuple(state.mask), **details, provenance=origin)


def remember() -> None:
    """Keep the mask for sessions to come, where this one changed it, with its name, notes and origin: a refresh is a new session."""
    state, now = st.session_state, _as_it_stands()
    seen = state.get(SEEN) or PruneMask(now.n_layers)
    if (now, now.name, now.notes, now.provenance) != (seen, seen.name, seen.notes, seen.provenance):
        last_choices()[f"mask:{state.mask_model.fingerprint}"] = state[SEEN] = now
        state[OWN] = True


def note_saved(mask: Edit) -> None:
    """Remember that the mask in the editor is saved under this name: a change makes another one of it, without name and notes."""
    state = st.session_state
    state.mask_origin = {**state.mask_origin, "name": mask.name, "dropped": list(mask.dropped)}
    state.mask_kept_notes = mask.notes
    remember()


def edit(mask: Edit, model: ModelInfo) -> None:
    """Take a mask of this model into the editor from another page, as a button's callback."""
    begin_editing(model)
    take_mask(mask)


def take_mask(mask: Edit) -> None:
    """Take a candidate or saved mask into the editor under its own name, remembering where it came from.

    It brings the locks that are saved with it. One without any leaves those that it does not contradict.
    """
    take_sent()
    state, told = st.session_state, own_locks(mask)
    set_mask(mask.dropped, set(state.get(LOCKS, ())) - set(mask.dropped) if told is None else told)
    state.mask_name = mask.name[:120]
    state.mask_notes = state.mask_kept_notes = mask.notes
    origin = {**mask.provenance, "name": mask.name, "dropped": list(mask.dropped)}
    state.mask_origin = with_own_locks(origin, ())
    remember()


def set_mask(layers: Collection[int], own: Collection[int]) -> None:
    """Change the mask and the user's locks, remembering the old ones for undo; locked layers never enter the mask."""
    state = st.session_state
    new = sorted(set(layers) - set(state.mask_model.locked))
    if len(new) == state.mask_model.n_layers:
        st.toast("At least one layer must stay.", icon=":material/block:")
        return
    before: Step = tuple(state.mask), tuple(state.get(LOCKS, ()))
    if (tuple(new), tuple(sorted(own))) != before:
        state.mask_undo = [*state.mask_undo, before][-MOST_UNDO:]
        state.mask_redo = []
        _other_hand()
        _put(new, own)


def take_sent() -> None:
    """Take the strip's last message into the session, once.

    A message that builds on a mask which another hand has changed since is left: the strip shows the new mask then.
    """
    state = st.session_state
    if "mask_model" not in state:
        return
    model = state.mask_model
    sent = read_sent(dict(state.get(STRIP) or {}).get("sent"), model.n_layers, model.locked)
    if sent is None or sent.base != base() or sent.number <= state.get(TAKEN, 0):
        return
    state[TAKEN], state[VIEW] = sent.number, sent.view
    state.mask_undo, state.mask_redo = list(sent.undo), list(sent.redo)
    if not sent.as_sent:
        _other_hand()
    _put(sent.now[0], sent.now[1])


def base() -> str:
    """Return which mask the strip's messages build on: it changes when another hand than the strip's changes the mask."""
    state = st.session_state
    return f"{state.mask_model.fingerprint}:{state.get(REVISION, 0)}"


def view() -> View:
    """Return how the strip is looked at."""
    chosen = st.session_state.get(VIEW)
    return chosen if isinstance(chosen, View) else View()


def locked_by_user() -> tuple[int, ...]:
    """Return the layers that the user locked in the editor."""
    return tuple(st.session_state.get(LOCKS, ()))


def _other_hand() -> None:
    st.session_state[REVISION] = st.session_state.get(REVISION, 0) + 1


def _put(layers: Collection[int], own: Collection[int]) -> None:
    state = st.session_state
    state.mask, state[LOCKS] = list(layers), sorted(own)
    origin = state.get("mask_origin", {})
    if state.mask != origin.get("dropped"):  # name and notes are of other layers
        if state.get("mask_name") == str(origin.get("name", ""))[:120]:
            state.mask_name = ""
        if state.get("mask_notes") == state.get("mask_kept_notes"):
            state.mask_notes = ""
    remember()
