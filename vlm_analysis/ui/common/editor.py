"""The edit in the editor: clicks in the strip, candidates and saved masks all change one edit in the session.

It drops layers (`mask`), lets vision tokens skip some of those that are left (`mask_vision`), makes some narrow (`mask_narrow`), and drops
layers of the vision encoder (`mask_tower`).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.tower import Tower
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.edits.ownlocks import own_locks, with_own_locks
from vlm_analysis.edits.shorthand import layers_in
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import ModelInfo, TowerInfo
from vlm_analysis.ui.common.address import say_unknown, told
from vlm_analysis.ui.common.held import (
    NO_TOWER,
    NO_VISION,
    WHOLE,
    is_of,
    layers_of,
    narrow_key,
    narrow_of,
    tower_of,
    vision_of,
)
from vlm_analysis.ui.common.savedwidth import saved_narrow
from vlm_analysis.ui.common.sent import MOST_UNDO, Asked, Step, View, read_asked, read_sent
from vlm_analysis.ui.common.session import last_choices, model_slot

STRIP, CANDIDATES = "mask_strip", "mask_candidates"
SEEN, LINE = "mask_seen", "mask_line"  # the mask edited last in any session, as seen here; its line of edits
LEFT = "mask_left"  # the mask edited elsewhere beside which the user stays with this one
LOCKS, VIEW = "mask_locks", "mask_view"  # the layers that the user locked; how the strip is looked at
AS_EDIT = "mask_as_edit"  # what the editor held when it was an Edit last, and that Edit
VISION = "mask_vision"  # the layers that vision tokens skip, a `Vision`
NARROW, NARROWS = "mask_narrow", "mask_narrows"  # the key of the width, and by key each `Narrow` that was here
TOWER = "mask_tower"  # the layers of the vision encoder that are dropped, a `Tower`
_LINES = count(1)
REVISION, TAKEN = "mask_revision", "mask_taken"  # of the mask by other hands than the strip's; the strip's last message
ANSWERED = "mask_answered"  # the strip's last question


def begin_editing(model: ModelInfo) -> None:
    """Start with the mask last edited for this model, also after a refresh; an empty one where there is none.

    A session that shows the mask on which another one's edit builds goes on with that edit; an undo takes it back.
    """
    take_sent()
    state, last = st.session_state, _last_edited(model)
    is_first, is_same = "mask_model" not in state, state.get("mask_model") == model
    if is_same and (last is state.get(SEEN) or _line(model) != state.get(LINE)):
        return
    kept = last or Edit(model.n_layers)
    undo = [*state.mask_undo, held()][-MOST_UNDO:] if is_same else []
    _adopt(kept, model, undo)
    state[SEEN], state[LINE] = last, _line(model)
    if is_first:  # later the mask has an undo of its own
        _take_address()


def _adopt(kept: Edit, model: ModelInfo, undo: list[Step]) -> None:
    """Make a mask of another session the one in this session's editor."""
    state = st.session_state
    state.update(mask=list(kept.dropped), mask_undo=undo, mask_redo=[], mask_name=kept.name, mask_notes=kept.notes)
    state[VISION], state[TOWER] = vision_of(kept), tower_of(kept)
    state.update({"mask_model": model, "mask_origin": with_own_locks(kept.provenance, ()), CANDIDATES: {}})
    state[NARROWS] = state.get(NARROWS, {}) if undo else {}
    state[NARROW] = _known(narrow_of(kept))
    state[LOCKS] = list(own_locks(kept) or ())
    state.mask_kept_notes = kept.notes if is_of(kept.provenance, kept) else None
    _other_hand()


def _line(model: ModelInfo) -> int:
    """Return which line of edits the last one belongs to: one that does not build on the edit before it begins a new line."""
    line = last_choices().get(f"mask-line:{model.fingerprint}", 0)
    return line if isinstance(line, int) else 0


def _take_address() -> None:
    """Take the layers that the address says into the editor; of those that are dropped or skipped it says all, or none."""
    state = st.session_state
    n_layers, n_tower = state.mask_model.n_layers, 0 if (info := tower_info()) is None else info.n_layers
    said = {name: _layers_said(name, n_layers) for name in ("cut", "absent", "frozen")}
    there = _layers_said("tower", n_tower)
    now, skipped = held(), vision()
    dropped = said["cut"] or now.dropped
    if said["absent"] or said["frozen"]:
        absent = set(said["absent"]) - set(vision_locked())
        frozen = set(said["frozen"]) - set(vision_locked()) - absent
        skipped = replace(skipped, absent=tuple(absent), frozen=tuple(frozen))
    width = None if (key := told("narrow")) is None else narrows().get(key) or saved_narrow(state.mask_model, key)
    encoder = Tower(n_tower, there) if there else None
    set_mask(dropped, set(now.own) - set(dropped), skipped, width, encoder)


def _layers_said(name: str, n_layers: int) -> tuple[int, ...]:
    """Return the layers that the address says, "4,7,12-14"; none where it does not, or there are fewer, which is said."""
    text, layers = told(name), None
    if text is None:
        return ()
    with suppress(MaskError):
        layers = layers_in(",".join(text.replace(",", " ").split()))
    if layers is None or layers[-1] >= n_layers or (name == "tower" and len(layers) == n_layers):  # one must stay
        say_unknown(f"{name} for {n_layers} layers", text)
        return ()
    return layers


def is_edited(model: ModelInfo) -> bool:
    """Return whether the mask in the editor is for this model."""
    edited = st.session_state.get("mask_model")
    return isinstance(edited, ModelInfo) and edited.fingerprint == model.fingerprint


def _last_edited(model: ModelInfo) -> Edit | None:
    kept = last_choices().get(f"mask:{model.fingerprint}")
    return kept if isinstance(kept, Edit) and kept.n_layers == model.n_layers else None


def edited_elsewhere(model: ModelInfo) -> Edit | None:
    """Return the mask that another session has edited beside this one; None where there is none, or it is the same."""
    state, last = st.session_state, _last_edited(model)
    return None if last in (None, _as_it_stands()) or any(last is state.get(key) for key in (SEEN, LEFT)) else last


def show_edited_elsewhere(model: ModelInfo) -> None:
    """Take the mask of the session that edited last, and go on with it; an undo takes it back."""
    state, last = st.session_state, _last_edited(model)
    if last is not None:
        _adopt(last, model, [*state.mask_undo, held()][-MOST_UNDO:])
        state[SEEN], state[LINE] = last, _line(model)


def keep_own(model: ModelInfo) -> None:
    """Stay with this session's mask beside the one that was edited last elsewhere, until that one is edited again."""
    st.session_state[LEFT] = _last_edited(model)


def _as_it_stands() -> Edit:
    state = st.session_state
    details = {"name": state.get("mask_name", ""), "notes": state.get("mask_notes", "")}
    return as_edit(**details, provenance=with_own_locks(state.mask_origin, state.get(LOCKS, ())))


def as_edit(**about: Any) -> Edit:
    """Return the edit in the editor; `about` are its name, notes, model and provenance."""
    state = st.session_state
    of = (state.mask_model.n_layers, tuple(state.mask), vision(), tuple(state.get(NARROW, ())), tower())
    if state.get(AS_EDIT, (None, None))[0] != of:  # a wide model's narrow layers have a million numbers
        state[AS_EDIT] = of, Edit(state.mask_model.n_layers, (Drop(tuple(state.mask)), narrow(), vision(), tower()))
    edit: Edit = replace(state[AS_EDIT][1], **about)
    return edit


def vision() -> Vision:
    """Return where vision tokens skip layers in the editor; what it says of dropped layers is of no effect."""
    kept = st.session_state.get(VISION)
    return kept if isinstance(kept, Vision) else NO_VISION


def narrow() -> Narrow:
    """Return which layers are narrow in the editor; what it says of dropped layers is of no effect."""
    state = st.session_state
    kept = narrows().get(next(iter(state.get(NARROW, ())), ""))
    return kept or WHOLE


def narrows() -> dict[str, Narrow]:
    """Return each width that was in the editor, by its key."""
    kept: dict[str, Narrow] = st.session_state.get(NARROWS, {})
    return kept


def tower() -> Tower:
    """Return which layers of the vision encoder the editor drops."""
    kept = st.session_state.get(TOWER)
    return kept if isinstance(kept, Tower) else NO_TOWER


def tower_info() -> TowerInfo | None:
    """Return the layers of the model's vision encoder; None where none can be dropped, or an older recording does not tell them."""
    model, info = st.session_state.mask_model, model_slot().info
    here = info is not None and info.fingerprint == model.fingerprint
    found = info.tower if here and info is not None else model.tower
    return found if found is not None and found.n_layers else None


def _known(narrow: Narrow) -> tuple[str, ...]:
    """Keep a width in the session, and return its key as a step has it."""
    state = st.session_state
    key = narrow_key(narrow, state.mask_model.n_layers)
    if not key:
        return ()
    state[NARROWS] = {**narrows(), key: narrow}
    return (key,)


def vision_locked() -> dict[int, str]:
    """Return the layers that vision tokens cannot skip, with the reasons; recordings of version 0.1 do not tell them."""
    model, info = st.session_state.mask_model, model_slot().info
    here = info is not None and info.fingerprint == model.fingerprint
    return info.vision_locked if here and info is not None else model.vision_locked


def held() -> Step:
    """Return what the strip holds, as a step of its history."""
    now = vision()
    width = tuple(st.session_state.get(NARROW, ()))
    return Step(tuple(st.session_state.mask), locked_by_user(), now.absent, now.frozen, width, tower().dropped)


def remember() -> None:
    """Keep the mask for sessions to come, where this one changed it, with its name, notes and origin: a refresh is a new session."""
    state, now = st.session_state, _as_it_stands()
    seen = state.get(SEEN) or Edit(now.n_layers)
    if (now, now.name, now.notes, now.provenance) != (seen, seen.name, seen.notes, seen.provenance):
        model, last = state.mask_model, last_choices()
        if _last_edited(model) is not state.get(SEEN):  # two sessions edited the same mask: each goes on with its own
            state[LINE] = next(_LINES)
        last[f"mask-line:{model.fingerprint}"] = state.setdefault(LINE, 0)
        last[f"mask:{model.fingerprint}"] = state[SEEN] = now


def note_saved(mask: Edit) -> None:
    """Remember that the mask in the editor is saved under this name: a change makes another one of it, without name and notes."""
    state = st.session_state
    state.mask_origin = {**state.mask_origin, "name": mask.name, **layers_of(mask)}
    state.mask_kept_notes = mask.notes
    remember()


def edit(mask: Edit, model: ModelInfo) -> None:
    """Take a mask of this model into the editor from another page, as a button's callback."""
    begin_editing(model)
    take_mask(mask)


def take_mask(mask: Edit) -> None:
    """Take a candidate or saved mask into the editor under its own name, remembering where it came from.

    Of an edit it takes what the editor holds: dropped layers, also of the vision encoder, those that vision tokens skip, and narrow ones.

    It brings the locks that are saved with it. One without any leaves those that it does not contradict.
    """
    take_sent()
    state, told = st.session_state, own_locks(mask)
    own = set(state.get(LOCKS, ())) - set(mask.dropped) if told is None else told
    set_mask(mask.dropped, own, vision_of(mask), narrow_of(mask), tower_of(mask))
    state.mask_name = mask.name[:120]
    state.mask_notes = state.mask_kept_notes = mask.notes
    origin = {**mask.provenance, "name": mask.name, **layers_of(mask)}
    state.mask_origin = with_own_locks(origin, ())
    remember()


def set_mask(
    layers: Collection[int],
    own: Collection[int],
    skipped: Vision | None = None,
    width: Narrow | None = None,
    tower: Tower | None = None,
) -> None:
    """Change the mask, the user's locks, and more (None: as it is), remembering the old for undo. Locked layers never enter the mask.

    Args:
        layers, own: that are dropped, and that the user locked.
        skipped, width: where vision tokens skip layers, and which layers are narrow.
        tower: layers of the vision encoder that are dropped.
    """
    state = st.session_state
    skipped = vision() if skipped is None else skipped
    new = sorted(set(layers) - set(state.mask_model.locked))
    if len(new) == state.mask_model.n_layers:
        st.toast("At least one layer must stay.", icon=":material/block:")
        return
    before = held()
    narrowed = before.narrow if width is None else _known(width)
    there = before.tower if tower is None else _that_fit(tower)
    now = Step(tuple(new), tuple(sorted(own)), skipped.absent, skipped.frozen, narrowed, there)
    if now != before or skipped != vision():
        state.mask_undo = [*state.mask_undo, before][-MOST_UNDO:]
        state.mask_redo = []
        _other_hand()
        _put(now, skipped)


def _that_fit(tower: Tower) -> tuple[int, ...]:
    """Return the dropped layers of a vision encoder that the model lets go; none, with a word, where it is another encoder."""
    info = tower_info()
    if info is not None and info.n_layers == tower.n_layers:
        return tuple(layer for layer in tower.dropped if layer not in info.locked)
    if tower.dropped:
        st.toast(
            "Layers of the vision encoder were left out: this model is not known to have them.", icon=":material/block:"
        )
    return ()


def take_sent() -> None:
    """Take the strip's last message into the session, once.

    A message that builds on a mask which another hand has changed since is left: the strip shows the new mask then.
    """
    state = st.session_state
    if "mask_model" not in state:
        return
    model = state.mask_model
    message = dict(state.get(STRIP) or {}).get("sent")
    sent = read_sent(message, model.n_layers, model.locked, vision_locked(), narrows(), tower_info())
    if sent is None or sent.base != base() or sent.number <= state.get(TAKEN, 0):
        return
    state[TAKEN], state[VIEW] = sent.number, sent.view
    state.mask_undo, state.mask_redo = list(sent.undo), list(sent.redo)
    if not sent.as_sent:
        _other_hand()
    _put(sent.now, vision())


def take_asked() -> Asked | None:
    """Return the strip's last question, once; None where there is none, or it was of a mask that another hand has changed since."""
    state = st.session_state
    asked = read_asked(dict(state.get(STRIP) or {}).get("asked"))
    if asked is None or asked.number <= state.get(ANSWERED, 0):
        return None
    state[ANSWERED] = asked.number
    return asked if asked.base == base() else None


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


def _put(now: Step, skipped: Vision) -> None:
    """Let the editor hold this; `skipped` tells how vision tokens skip layers."""
    state = st.session_state
    state.mask, state[LOCKS] = list(now.dropped), list(now.own)
    state[VISION] = replace(skipped, absent=now.absent, frozen=now.frozen)
    state[NARROW] = now.narrow
    info = tower_info()
    state[TOWER] = NO_TOWER if info is None else Tower(info.n_layers, now.tower)
    origin = state.get("mask_origin", {})
    if not is_of(origin, as_edit()):  # name and notes are of other layers
        if state.get("mask_name") == str(origin.get("name", ""))[:120]:
            state.mask_name = ""
        if state.get("mask_notes") == state.get("mask_kept_notes"):
            state.mask_notes = ""
    remember()
