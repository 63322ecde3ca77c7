"""The mask editor: heatmap clicks, pills, candidates, undo and redo all change one mask in the session."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.edits.edit import Edit, PruneMask
from vlm_analysis.export.story import domain_rows
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.recording import Recording
from vlm_analysis.ui.common.session import last_choices
from vlm_analysis.ui.common.text import layer_list

HEATMAP, PILLS, CANDIDATES = "mask_heatmap", "mask_pills", "mask_candidates"
SEEN, OWN = (
    "mask_seen",
    "mask_own",
)  # the mask that sessions to come start with, as last seen here; whether this session changed it
MOST_UNDO = 100


def begin_editing(model: ModelInfo) -> None:
    """Start with the mask last edited for this model, also after a refresh; an empty one where there is none.

    A session that has changed nothing itself goes on with what another one has changed since.
    """
    state, last = st.session_state, _last_edited(model)
    if state.get("mask_model") == model and (state.get(OWN, True) or last is state.get(SEEN)):
        return
    kept = last or PruneMask(model.n_layers)
    state.update(mask=list(kept.dropped), mask_undo=[], mask_redo=[], mask_name=kept.name, mask_notes=kept.notes)
    state.update({"mask_model": model, "mask_origin": kept.provenance, CANDIDATES: {}, SEEN: last, OWN: False})
    state.mask_kept_notes = kept.notes if list(kept.dropped) == kept.provenance.get("dropped") else None


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
    return PruneMask(state.mask_model.n_layers, tuple(state.mask), **details, provenance=state.mask_origin)


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
    """Take a candidate or saved mask into the editor under its own name, remembering where it came from."""
    set_mask(mask.dropped)
    st.session_state.mask_name = mask.name[:120]
    st.session_state.mask_notes = st.session_state.mask_kept_notes = mask.notes
    st.session_state.mask_origin = {**mask.provenance, "name": mask.name, "dropped": list(mask.dropped)}
    remember()


def set_mask(layers: list[int] | tuple[int, ...]) -> None:
    """Change the mask, remembering the old one for undo; locked layers never enter it."""
    locked = st.session_state.mask_model.locked
    new = sorted(set(layers) - set(locked))
    if len(new) == st.session_state.mask_model.n_layers:
        st.toast("At least one layer must stay.", icon=":material/block:")
        return
    if new != st.session_state.mask:
        st.session_state.mask_undo = [*st.session_state.mask_undo, st.session_state.mask][-MOST_UNDO:]
        st.session_state.mask_redo = []
        _put(new)


def _put(layers: list[int]) -> None:
    st.session_state.mask = layers
    origin = st.session_state.get("mask_origin", {})
    if layers != origin.get("dropped"):  # name and notes are of other layers
        if st.session_state.get("mask_name") == str(origin.get("name", ""))[:120]:
            st.session_state.mask_name = ""
        if st.session_state.get("mask_notes") == st.session_state.get("mask_kept_notes"):
            st.session_state.mask_notes = ""
    remember()


def undo() -> None:
    """Go back to the mask before the last change."""
    if st.session_state.mask_undo:
        st.session_state.mask_redo.append(st.session_state.mask)
        _put(st.session_state.mask_undo.pop())


def redo() -> None:
    """Take the last undo back."""
    if st.session_state.mask_redo:
        st.session_state.mask_undo.append(st.session_state.mask)
        _put(st.session_state.mask_redo.pop())


def toggle_points(points: list[dict[str, object]]) -> None:
    """Toggle the layers of clicked cells; protected ones only when they are unlocked."""
    model = st.session_state.mask_model
    open_layers = set(range(model.n_layers)) - set(model.locked)
    if not st.session_state.get("mask_unprotect"):
        open_layers -= set(model.protected)
    clicked = {int(str(point["x"])) for point in points if str(point.get("x", "")).isdigit()}
    if clicked - open_layers:
        st.toast(
            f"Layer {layer_list(sorted(clicked - open_layers))} is protected. Unlock it below the heatmap.",
            icon=":material/lock:",
        )
    set_mask(sorted(set(st.session_state.mask) ^ (clicked & open_layers)))


def _heatmap_clicked() -> None:
    st.session_state.mask_clicks = st.session_state.get("mask_clicks", 0) + 1
    toggle_points(st.session_state[HEATMAP]["selection"]["points"])


def editor(recording: Recording, group: str) -> None:
    """Draw heatmap, pills and buttons."""
    from vlm_analysis.figures.heatmaps import similarity_heatmap

    model, dropped = recording.model, list(st.session_state.mask)
    figure = similarity_heatmap(
        domain_rows(recording, group),
        recording.domain_names,
        dropped=dropped,
        locks=model.locks,
        clickable=True,
        revision=st.session_state.get("mask_clicks", 0),
    )
    st.plotly_chart(
        figure, key=HEATMAP, on_select=_heatmap_clicked, selection_mode="points", config={"displayModeBar": False}
    )
    st.caption("Click a cell to drop its layer, or to take it back. P marks protected layers.")
    left, middle, right, state = st.columns([1, 1, 1, 4], vertical_alignment="center")
    left.button("Undo", icon=":material/undo:", on_click=undo, disabled=not st.session_state.mask_undo, width="stretch")
    middle.button(
        "Redo", icon=":material/redo:", on_click=redo, disabled=not st.session_state.mask_redo, width="stretch"
    )
    right.button(
        "Clear", icon=":material/restart_alt:", on_click=set_mask, args=([],), disabled=not dropped, width="stretch"
    )
    state.markdown(f"**{len(dropped)}** of {model.n_layers} layers dropped: {layer_list(dropped)}")
    if (other := edited_elsewhere(model)) is not None:
        words, take = st.columns([5, 1], vertical_alignment="center")
        words.info(f"In another window the mask was changed since: it drops {layer_list(other.dropped)}.")
        take.button("Take it", on_click=take_mask, args=(other,), width="stretch")
    _pills(recording, dropped)


def _pills(recording: Recording, dropped: list[int]) -> None:
    model = recording.model
    unprotect = st.toggle(
        "Let protected layers go too",
        key="mask_unprotect",
        help="First, last and DeepStack layers: dropping them mostly breaks the model.",
    )
    staying = set(model.locked) | (set() if unprotect else set(model.protected) - set(dropped))
    st.session_state[PILLS] = dropped
    st.pills(
        "Layers to drop",
        [layer for layer in range(model.n_layers) if layer not in staying],
        selection_mode="multi",
        key=PILLS,
        on_change=lambda: set_mask(st.session_state[PILLS]),
        help="Click a number here, or a cell above.",
    )
