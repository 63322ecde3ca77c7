"""Evaluating the mask in the editor in the background: by itself where that is short and nothing else waits, else by a button.

It is the call of the Bench that any evaluation makes, so its scores are kept and used again. It gives way: to the next edit, and to any
other work. One that failed is not tried again by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st

from vlm_analysis.edits.edit import Edit
from vlm_analysis.progress import Cancelled, Pace, Progress
from vlm_analysis.ui.common.jobs import cancel
from vlm_analysis.ui.common.session import bench, model_slot, project, runner
from vlm_analysis.ui.common.work import Work
from vlm_analysis.words import duration
from vlm_analysis.workbench.jobs import JobView
from vlm_analysis.workbench.seen import Seen
from vlm_analysis.workbench.workspace import Item

JOB = "background"
MOST_S = 15.0  # what is evaluated by itself takes less; our choice
OWN = f"job:{JOB}"


@dataclass(frozen=True)
class Wanted:
    """A mask to evaluate: the edit, the prompts and how many there are, the model's fingerprint."""

    edit: Edit
    prompts: Item
    n_prompts: int
    model: str

    @property
    def key(self) -> str:
        return f"{self.model} {self.prompts.prompts} {self.edit.key} {project()}"


@st.cache_resource(show_spinner=False)
def _failures() -> dict[str, str]:
    """Return why evaluations failed, by the key of what was wanted."""
    return {}


def follow(wanted: Wanted | None, *, auto: bool, rested: bool, by_hand: bool) -> dict[str, Any]:
    """Let the mask's evaluation keep up with the editor, and return its state for the strip.

    Args:
        wanted: what to evaluate; None where nothing is, or it is known.
        auto: whether to do so unasked.
        rested: whether the mask has come to rest.
        by_hand: whether the user asks for it.
    """
    view = _own(wanted)
    if wanted is None:
        return {}
    if view is not None and view.active:
        return _running(view)
    expected_s = expected(wanted)
    if by_hand:
        return _running(_start(wanted, by_hand=True))
    if wanted.key in _failures():
        return {"state": "failed", "words": _failures()[wanted.key], "seconds": expected_s}
    if expected_s is not None and expected_s > MOST_S:
        return {"state": "long", "words": "Not evaluated.", "seconds": expected_s}
    if not auto:
        return {"state": "ready", "words": "Not evaluated.", "seconds": expected_s}
    if runner().busy:
        return {"state": "waiting", "words": "Not evaluated: other work goes on first.", "seconds": expected_s}
    if rested:
        return _running(_start(wanted, by_hand=False))
    return {"state": "ready", "words": "Not evaluated.", "seconds": expected_s}


def expected(wanted: Wanted) -> float | None:
    """Return the seconds that the evaluation will take as seen so far; None where nothing was seen with this model."""
    slot, prompts = model_slot(), str(wanted.prompts.prompts)
    alone = slot.seen.expected_s(prompts, wanted.n_prompts)
    return None if alone is None else alone * (1 if prompts in slot.dense else 2)  # the dense model runs too


def _own(wanted: Wanted | None) -> JobView | None:
    """Return this session's job if it is for what is wanted; one for another mask that started by itself is cancelled."""
    state = st.session_state
    view, of = runner().get(state.get(OWN, "")), state.get("background_of", ("", False))
    if view is None:
        return None
    if view.status == "failed":
        _failures().setdefault(of[0], f"The evaluation failed. {view.error}")
    if wanted is not None and of[0] == wanted.key:
        return view
    if view.active and not of[1]:
        cancel(view.id)
    return None


def _start(wanted: Wanted, *, by_hand: bool) -> JobView:
    jobs, slot = runner(), model_slot()
    _failures().pop(wanted.key, None)
    call = bench().scores
    gives_way = None if by_hand else lambda: any(one.kind != JOB for one in jobs.list(active=True))
    trial = None if by_hand or expected(wanted) is not None else slot.seen
    work = _work(call, wanted, gives_way, trial)
    label = f"Evaluating the mask in the editor on {wanted.prompts.name}"
    job_id = jobs.submit(JOB, label, work, dedupe=wanted.key)
    st.session_state[OWN], st.session_state["background_of"] = job_id, (wanted.key, by_hand)
    view = jobs.get(job_id)
    assert view is not None  # it was only just submitted
    return view


def _work(call: Callable[..., Any], wanted: Wanted, gives_way: Callable[[], bool] | None, trial: Seen | None) -> Work:
    """Return the job. It stops where other work waits, and, as a `trial`, where its own pace shows that it takes too long."""

    def work(progress: Progress) -> None:
        pace, begun = Pace(), time.monotonic()

        def report(done: int, total: int, message: str) -> None:
            progress(done, total, message)
            if gives_way is not None and gives_way():
                raise Cancelled("Other work goes first.")
            now = time.monotonic()
            pace.advance(now, done)
            left_s = pace.seconds_left(now, total)
            if trial is not None and left_s is not None and now - begun + left_s > MOST_S:
                trial.add(str(wanted.prompts.prompts), wanted.n_prompts, now - begun + left_s)
                raise Cancelled("It takes longer than is done unasked.")

        call(wanted.prompts, [Edit(wanted.edit.n_layers), wanted.edit], on_progress=report)

    return work


def _running(view: JobView) -> dict[str, Any]:
    if view.status == "queued":
        return {"state": "running", "words": "Waiting to be evaluated.", "share": 0.0}
    left = "" if view.seconds_left is None else f", about {duration(view.seconds_left)} left"
    return {"state": "running", "words": f"Evaluating{left}", "share": view.fraction}
