"""The Model page's answer to "Will it fit?": asked in a job, shown as a sentence, a bar and what fewer layers would save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import fit_work

if TYPE_CHECKING:
    from vlm_analysis.models.fit import FitEstimate

_ASKED = "fit_asked"


def fit_button(source: str, options: dict[str, Any]) -> None:
    """Draw the button that asks whether the model in the form fits."""
    view = current("fit")
    st.button(
        "Will it fit?",
        on_click=_ask,
        args=(source, options),
        disabled=not source or (view is not None and view.active),
        width="stretch",
        help="Counts its parameters from the configuration alone; no weights are read.",
    )


def fit_view(source: str, options: dict[str, Any]) -> None:
    """Draw the answer for the model in the form; one for another model, or for other options, is not shown."""
    view = current("fit")
    if view is None:
        return
    arguments = (source, options)
    if view.active or st.session_state.get(_ASKED) == arguments:
        job_panel("fit")
    if view.status == "done" and view.result is not None and view.result[0] == arguments:
        _draw(view.result[1], str(options["dtype"]), bool(options.get("device_map")))


def _ask(source: str, options: dict[str, Any]) -> None:
    st.session_state[_ASKED] = (source, options)
    start("fit", f"Sizing up {source}", fit_work(source, options), source, options)


def _draw(fit: FitEstimate, source: str, is_spread: bool) -> None:
    from vlm_analysis.figures.memory import memory_bar

    dtype = fit.dtype_for(source)
    if fit.fits(dtype):
        st.success(escaped(f"{fit.name!r} fits. {fit.summary(dtype)}"))
    elif is_spread:
        st.info(
            escaped(
                f"{fit.name!r} does not fit into memory as a whole. Spread, it loads, and what is left over stays on disk."
            )
        )
    else:
        st.warning(escaped(fit.refusal(dtype)))
    if source == "auto" and fit.auto_dtype is not None:
        st.caption(escaped(f"auto takes {fit.auto_dtype}: {fit.reason}."))
    weights = fit.part_bytes(dtype)
    st.plotly_chart(
        memory_bar(weights, fit.needed_bytes(dtype) - fit.weight_bytes(dtype), fit.free),
        width="stretch",
        key="fit_bar",
        config={"displayModeBar": False},
        alt=f"Memory: {fit.summary(dtype)}",
    )
    st.caption(escaped(fit.saving_summary(dtype)))
