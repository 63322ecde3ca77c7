"""The budget control: how much to drop, in layers, as a ratio, or as a share of parameters or measured time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vlm_analysis.selection.strategies.budgets import Share
from vlm_analysis.ui.common.inputs import (
    ScoreInputs,
    layers_slider,
    missing_to_measure,
    model_is_here,
    prompts_of,
    remembered,
    say_missing,
)
from vlm_analysis.ui.common.jobs import current, job_panel, start
from vlm_analysis.ui.common.session import bench, model_slot
from vlm_analysis.ui.common.shell import say_set_aside
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.ui.common.work import job
from vlm_analysis.words import counted

UNITS = {
    "layers": "A number of decoder layers.",
    "ratio": "A ratio of all decoder layers; the number is rounded down.",
    "parameters": "A share of all parameters of the model, the vision part included; it is reached or passed.",
    "latency": "A share of the measured time of a forward pass; it is reached or passed.",
}


@dataclass(frozen=True, eq=False)
class Budget:
    """A budget with the costs it is counted in; `amount` is None where it cannot be counted yet."""

    amount: int | float | Share | None
    costs: np.ndarray | None = None

    @property
    def key(self) -> str:
        """Return it as text."""
        return f"{self.amount!r} {None if self.costs is None else self.costs.tobytes().hex()}"


def ask_budget(inputs: ScoreInputs) -> Budget:
    """Draw the unit and its slider; where the costs are not known, say why and how to get them."""
    left, right = st.columns([2, 3])
    unit = left.segmented_control(
        "Budget in",
        list(UNITS),
        default="layers",
        required=True,
        key="candidate_unit",
        persist_state="session",
        help=" ".join(f"**{name}**: {words}" for name, words in UNITS.items()),
    )
    free = len(inputs.free)
    if not free:
        st.caption("No layer may go: all are protected or locked. Let protected layers go too, above.")
        return Budget(None)
    if unit == "parameters":
        return _parameters(inputs, right)
    if unit == "latency":
        return _latency(inputs, right)
    if unit == "ratio":
        return _ratio(inputs, right)
    return Budget(layers_slider(inputs, right))


def _ratio(inputs: ScoreInputs, container: DeltaGenerator) -> Budget:
    n_layers = inputs.recording.n_layers
    least, most = math.ceil(100 / n_layers), math.floor(100 * len(inputs.free) / n_layers)
    if least >= most:
        container.caption("Too few layers may go for a ratio. Choose a budget in layers.")
        return Budget(None)
    percent = _percent(container, "Budget: ratio of layers, %", least, min(most, 99), "candidate_ratio", n_layers)
    n_dropped = math.floor(percent / 100 * n_layers + 1e-9)
    container.caption(f"{n_dropped} of {n_layers} layers, which is {n_dropped / n_layers:.1%}.")
    return Budget(percent / 100)


def _percent(container: DeltaGenerator, label: str, least: int, most: int, key: str, n_layers: int) -> int:
    remembered(key, round(300 / n_layers), least, most)
    return int(
        container.slider(
            label,
            least,
            most,
            key=key,
            persist_state="session",
            format="%d %%",
            help=f"From {least} % to {most} %: what the layers that may go make up.",
        )
    )


def _parameters(inputs: ScoreInputs, container: DeltaGenerator) -> Budget:
    model = inputs.recording.model
    if not model.layer_parameters or not model.n_parameters:
        container.caption(
            "This recording does not know the model's parameters by layer: it was made before they were kept. Record again."
        )
        return Budget(None)
    costs = np.array(model.layer_parameters, dtype=np.float64)
    return _share(inputs, container, "parameters", costs, float(model.n_parameters))


def _latency(inputs: ScoreInputs, container: DeltaGenerator) -> Budget:
    latency = model_slot().latency if model_is_here(inputs.recording) else None
    if latency is None:
        with container:
            _measure_latency(inputs)
        return Budget(None)
    container.caption(
        f"A forward pass takes {latency.total_ms:.3g} ms here, measured on {counted(latency.n_prompts, 'prompt')}."
    )
    with container:
        say_set_aside(latency.set_aside, latency.n_prompts)
    return _share(inputs, container, "latency", np.asarray(latency.layer_ms, np.float64), float(latency.total_ms))


def _measure_latency(inputs: ScoreInputs) -> None:
    missing, prompts = missing_to_measure(inputs.recording), prompts_of(inputs.recording)
    st.caption("No time was measured since this model was loaded.")
    if missing:
        say_missing(missing)
    elif prompts is not None:
        st.button(
            "Measure latency",
            icon=":material/timer:",
            on_click=start,
            args=("latency", f"Timing the layers on {prompts.name}", job(bench().latency, prompts), prompts.id),
            disabled=(view := current("latency")) is not None and view.active,
            help="Times every decoder layer and the whole forward pass on the recorded prompts, on this machine.",
        )
    job_panel("latency")


def _share(inputs: ScoreInputs, container: DeltaGenerator, of: str, costs: np.ndarray, total: float) -> Budget:
    """Draw the slider of a share, up to what the layers that may go make up."""
    most = math.floor(100 * float(costs[inputs.free].sum()) / total + 1e-9)
    if most < 2:
        container.caption(
            escaped(f"The layers that may go make up less than 2 % of the {of}. Choose a budget in layers.")
        )
        return Budget(None)
    percent = _percent(
        container, f"Budget: share of {of}, %", 1, min(most, 99), f"candidate_{of}", inputs.recording.n_layers
    )
    return Budget(Share(percent / 100, of=of, total=total), costs)
