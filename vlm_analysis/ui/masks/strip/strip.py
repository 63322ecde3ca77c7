"""The strip on the page: domains, measured damage and the edit, one column a layer. It is painted in the browser (strip.js)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components import v2

from vlm_analysis.edits.edit import PruneMask
from vlm_analysis.export.story import domain_rows
from vlm_analysis.ui.common.editor import (
    STRIP,
    TAKEN,
    base,
    edited_elsewhere,
    locked_by_user,
    take_mask,
    take_sent,
    view,
)
from vlm_analysis.ui.common.text import layer_list
from vlm_analysis.ui.masks.inputs import ScoreInputs, unprotected
from vlm_analysis.ui.masks.strip.content import edit_row, strip_rows

SCRIPTS = ("strip.js", "changes.js", "paint.js", "acts.js")  # in this order one module


def read(*names: str) -> str:
    """Return files beside this one as one text."""
    return "\n".join(Path(__file__).with_name(name).read_text("utf-8") for name in names)


_component = v2.component("strata.strip", html=read("strip.html"), css=read("strip.css"), js=read(*SCRIPTS))


def editor(inputs: ScoreInputs) -> None:
    """Draw the strip, and where another window has changed the mask since."""
    _component(key=STRIP, data=content(inputs), on_sent_change=take_sent)
    st.toggle(
        "Let protected layers go too",
        key="mask_unprotect",
        help="First, last and DeepStack layers: dropping them mostly breaks the model.",
    )
    if (other := edited_elsewhere(inputs.recording.model)) is not None:
        words, take = st.columns([5, 1], vertical_alignment="center")
        words.info(f"In another window the mask was changed since: it drops {layer_list(other.dropped)}.")
        take.button("Take it", on_click=take_mask, args=(other,), width="stretch")


def content(inputs: ScoreInputs) -> dict[str, Any]:
    """Return all that the strip is given."""
    state, model, look = st.session_state, inputs.recording.model, view()
    edit = PruneMask(model.n_layers, tuple(state.mask))
    return {
        **_rows(inputs.numbers_key, inputs),
        **edit_row(edit, model.locks.keeping(locked_by_user())),
        "drawn": inputs.numbers_key,
        "base": base(),
        "taken": state.get(TAKEN, 0),
        "undo": state.mask_undo,
        "redo": state.mask_redo,
        "unprotected": unprotected(),
        "scale": look.scale,
        "pinned": look.pinned,
        "colours": _colours(),
    }


@st.cache_resource(show_spinner=False, max_entries=8)
def _rows(key: str, _inputs: ScoreInputs) -> dict[str, Any]:
    """Return the rows of a recording, kept between script runs by the key."""
    damage = _inputs.damage
    return strip_rows(
        domain_rows(_inputs.recording, _inputs.group),
        _inputs.recording.domain_names,
        None if damage is None else damage.mean("kl_to_dense"),
    )


def _colours() -> dict[str, str]:
    from vlm_analysis.figures import style

    return {"kept": style.KEPT, "dropped": style.DROPPED, "changed": style.CHANGED}
