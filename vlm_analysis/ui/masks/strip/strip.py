"""The strip on the page: domains, measured damage and the edit, one column a layer. It is painted in the browser (strip.js)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components import v2

from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.export.story import domain_rows
from vlm_analysis.model_info import ModelInfo, TowerInfo
from vlm_analysis.ui.common.address import tell_edit
from vlm_analysis.ui.common.editor import (
    ANSWERED,
    STRIP,
    TAKEN,
    as_edit,
    base,
    held,
    locked_by_user,
    narrows,
    take_asked,
    take_sent,
    tower,
    tower_info,
    view,
    vision_locked,
)
from vlm_analysis.ui.common.inputs import ScoreInputs, unprotected
from vlm_analysis.ui.common.savedwidth import is_saved
from vlm_analysis.ui.common.sent import Asked
from vlm_analysis.ui.masks.maskstore import save_form
from vlm_analysis.ui.masks.strip.beside import beside
from vlm_analysis.ui.masks.strip.content import edit_row, narrow_row, strip_rows
from vlm_analysis.ui.masks.strip.encoder import encoder_rows
from vlm_analysis.ui.masks.strip.nextlayer import next_layers
from vlm_analysis.ui.masks.windows import say_changed_elsewhere

SCRIPTS = (
    "strip.js",
    "changes.js",
    "vision.js",
    "encoder.js",
    "paint.js",
    "beside.js",
    "acts.js",
    "address.js",
    "leaving.js",
)  # in this order one module
DRAWN = "mask_drawn"  # the mask that the rest of the page shows


def read(*names: str) -> str:
    """Return files beside this one as one text."""
    return "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in names)


_component = v2.component("strata.strip", html=read("strip.html"), css=read("strip.css"), js=read(*SCRIPTS))


def editor(inputs: ScoreInputs) -> None:
    """Draw the strip with what stands beside it, and the form that saves the mask; its edits run no more of the page than this.

    What is drawn below of the mask follows once it has come to rest, at once where another hand has changed it.
    """
    st.session_state[DRAWN] = _drawn()
    tell_edit(as_edit(), *held().narrow)
    _editing(inputs)


@st.fragment
def _editing(inputs: ScoreInputs) -> None:
    asked = take_asked()
    _component(key=STRIP, data=content(inputs, asked), on_sent_change=take_sent, on_asked_change=lambda: None)
    st.toggle(
        "Let protected layers go too",
        key="mask_unprotect",
        help="First, last and DeepStack layers, and those of the vision encoder that should stay: dropping them mostly breaks the model.",
    )
    say_changed_elsewhere(inputs.recording.model)
    save_form()
    if (width := held().narrow) and not is_saved(inputs.recording.model, width[0]):
        st.caption(":material/link: What narrow layers keep is not in this address until the edit is saved as a mask.")
    drawn, now = st.session_state[DRAWN], _drawn()
    if drawn != now and (asked is not None or drawn[0] != now[0]):
        st.rerun()


def _drawn() -> tuple[Any, ...]:
    """Return what the page below shows of the edit: by whose hand and under which switch, the layers and the locks."""
    return (base(), unprotected()), held()


def content(inputs: ScoreInputs, asked: Asked | None = None) -> dict[str, Any]:
    """Return all that the strip is given."""
    state, model, look = st.session_state, inputs.recording.model, view()
    edit, now = as_edit(), held()
    known = {key for step in (now, *state.mask_undo, *state.mask_redo) for key in step.narrow}
    return {
        **_rows(inputs.numbers_key, inputs),
        **edit_row(edit, model.locks.keeping(locked_by_user()), vision_locked()),
        "tower": list(tower().dropped),
        "encoder": _encoder(inputs),
        "narrow": list(now.narrow),
        "narrows": {
            key: _narrow_row(key, model.fingerprint, one, model) for key, one in narrows().items() if key in known
        },
        "drawn": inputs.numbers_key,
        "base": base(),
        "taken": state.get(TAKEN, 0),
        "answered": state.get(ANSWERED, 0),
        "undo": [list(step) for step in state.mask_undo],
        "redo": [list(step) for step in state.mask_redo],
        "unprotected": unprotected(),
        "look": {
            "scale": look.scale,
            "pinned": look.pinned,
            "next_by": look.next_by,
            "auto": look.auto,
            "vision": look.vision,
        },
        "colours": _colours(),
        "next": next_layers(inputs, look.next_by),
        **beside(inputs.recording, edit, look, asked),
    }


@st.cache_resource(show_spinner=False, max_entries=64)
def _narrow_row(key: str, fingerprint: str, _narrow: Narrow, _model: ModelInfo) -> dict[str, dict[str, Any]]:
    return narrow_row(_narrow, _model)


@st.cache_resource(show_spinner=False, max_entries=8)
def _rows(key: str, _inputs: ScoreInputs) -> dict[str, Any]:
    """Return the rows of a recording, kept between script runs by the key."""
    damage = _inputs.damage
    return strip_rows(
        domain_rows(_inputs.recording, _inputs.group),
        _inputs.recording.domain_names,
        None if damage is None else damage.mean("kl_to_dense"),
    )


def _encoder(inputs: ScoreInputs) -> dict[str, Any] | None:
    """Return what is drawn of the vision encoder's layers; None where none can be dropped."""
    info, unprotect = tower_info(), unprotected()
    if info is None:
        return None
    return _encoder_rows(f"{inputs.numbers_key} {info} {unprotect}", inputs, info, unprotect)


@st.cache_resource(show_spinner=False, max_entries=8)
def _encoder_rows(key: str, _inputs: ScoreInputs, _info: TowerInfo, unprotect: bool) -> dict[str, Any]:
    return encoder_rows(_inputs.recording, _info, unprotect=unprotect)


def _colours() -> dict[str, str]:
    from vlm_analysis.figures import style

    return {"kept": style.KEPT, "dropped": style.DROPPED, "changed": style.CHANGED}
