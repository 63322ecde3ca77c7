"""Which layer a criterion would drop next: its order as a whole, of which the strip takes the first that may still go."""

from __future__ import annotations

from typing import Any

import streamlit as st

from vlm_analysis.errors import StrataError
from vlm_analysis.selection.criteria.criteria import CRITERIA, DEFAULTS
from vlm_analysis.selection.criteria.scoring import score_layers
from vlm_analysis.ui.common.inputs import CHOSEN, ScoreInputs


def next_layers(inputs: ScoreInputs, criterion: str | None) -> dict[str, Any]:
    """Return the criteria to choose from, and the drop order of one; without a choice, of the first that the page proposes by."""
    choices = _choices(inputs)
    proposed = [name for name in (*st.session_state.get(CHOSEN, ()), *DEFAULTS) if name in choices]
    name = criterion if criterion == "" or criterion in choices else proposed[0]
    order, why = _order(inputs.numbers_key, inputs, name, _options(inputs, name)) if name else ((), "")
    return {
        "choices": [[key, CRITERIA[key].title] for key in choices],
        "criterion": name,
        "title": CRITERIA[name].title if name else "",
        "order": list(order),
        "why": why
        or "The layer with dashed edges: what this criterion would drop next beside the layers that are cut.",
    }


def _choices(inputs: ScoreInputs) -> list[str]:
    """Return the criteria for which everything is recorded, without scoring a layer."""
    recording = inputs.recording
    has = {
        "recording": True,
        "attention": True,
        "domains": len(recording.domain_names) > 1,
        "damage": inputs.damage is not None,
        "nothing": False,
    }
    return [
        name for name, row in CRITERIA.items() if has[row.needs] and (not row.measure or recording.has(row.measure))
    ]


def _options(inputs: ScoreInputs, criterion: str) -> dict[str, Any]:
    """Return what was chosen on the page for this criterion's arguments."""
    takes = CRITERIA[criterion].takes
    chosen = {name: st.session_state.get(f"candidate_{name}") for name in takes if name != "token_group"}
    options = {name: value for name, value in chosen.items() if value not in (None, "")}
    if options.get("other") == options.get("target", ""):
        options.pop("other", None)
    return {"token_group": inputs.group, **options}


@st.cache_resource(show_spinner=False, max_entries=64)
def _order(key: str, _inputs: ScoreInputs, criterion: str, options: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    """Return the drop order, and why there is none; kept between script runs by the key."""
    try:
        scores = score_layers(_inputs.recording, criterion, damage=_inputs.damage, **options)
    except StrataError as error:
        return (), str(error)
    return scores.order, ""
