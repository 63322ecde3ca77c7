"""Whose work the pages show: the loaded model's, and the choice of another model's."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vlm_analysis.ui.common.session import look_at, model_slot, shown_model, workspace
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.comparisons import unfinished
from vlm_analysis.workbench.workspace import Item

KINDS = (
    "recordings",
    "masks",
    "evaluations",
    "comparisons",
    "ledgers",
    "stories",
)  # what pages list, and a model has made


def draw_work_of() -> None:
    """Draw the choice of the model whose work is shown, where others than the loaded one have any; call it in the sidebar."""
    info, shown = model_slot().info, shown_model()
    if info is None or shown is None or not set(names := _names()) - {info.fingerprint}:
        return
    models = [info.fingerprint, *(model for model in names if model != info.fingerprint)]
    now = shown if shown in models else info.fingerprint
    picked = st.selectbox(
        "Work of",
        models,
        index=models.index(now),
        format_func=lambda model: (
            f"{info.name}, loaded" if model == info.fingerprint else f"{names[model]} {model[:8]}"
        ),
        key=f"work_of:{info.fingerprint}:{now}",
        help="Pages show recordings, masks and results of one model. Prompts belong to none.",
    )
    look_at(picked)


def say_whose() -> None:
    """Say on top of a page where it shows another model's work than the loaded one's."""
    info, shown = model_slot().info, shown_model()
    if info is not None and shown is not None and shown != info.fingerprint:
        name, loaded = escaped(_names().get(shown, "a model")), escaped(info.name)
        st.warning(
            f"You look at the work of **{name}** ({shown[:8]}); the loaded model is **{loaded}** ({info.fingerprint[:8]}). What is made "
            f"of it asks before it is used on {loaded}. To go back, choose “{loaded}, loaded” under “Work of” in the sidebar.",
            icon=":material/swap_horiz:",
        )


def say_others(kind: str, among: Sequence[Item] | None = None) -> None:
    """Say in place of an empty list where the work of other models is, if there is any of this kind, or `among` these."""
    info, items = model_slot().info, workspace().items(kind) if among is None else among
    if info is not None and any(item.model not in (None, info.fingerprint) for item in items):
        st.caption(
            f"There is none of **{escaped(info.name)}** yet. The work of other models is under “Work of” in the sidebar."
        )


def _names() -> dict[str, str]:
    """Return the name of each model with saved work, by its fingerprint, the one of the newest work first."""
    items = sorted((one for kind in KINDS for one in workspace().items(kind)), key=lambda one: one.id, reverse=True)
    names: dict[str, str] = {}
    for item in items:
        if item.model is not None:
            names.setdefault(item.model, item.model_name or "a model")
    for left in unfinished(workspace()):
        names.setdefault(left.model, left.model_name)
    return names
