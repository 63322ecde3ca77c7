"""Cancelling inside a forward pass and inside generation: no layer runs after the one at work, and nothing stays behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from oracles import qwen_layers, same_weights, weights_of

from vlm_analysis import Cancelled, LoadedModel, PromptSet, evaluate, record
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.progress import stop_if_asked, stoppable
from vlm_analysis.workbench.jobs import JobRunner

LIMIT_S = 300.0
WORK: dict[str, Callable[[LoadedModel, PromptSet], Any]] = {
    "evaluate": lambda loaded, few: evaluate(loaded, few, batch_size=2),
    "record": record,
    "respond": lambda loaded, few: respond(loaded, few[0]),
}


@contextmanager
def counted(loaded: LoadedModel, at: int, act: Callable[[], None]) -> Iterator[list[int]]:
    """Count the decoder layers that run; before the one numbered `at` (in order of running) `act` is called."""
    ran: list[int] = []

    def note(index: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            ran.append(index)
            if len(ran) == at:
                act()

        return hook

    handles = [layer.register_forward_hook(note(index)) for index, layer in enumerate(qwen_layers(loaded.model))]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


@pytest.mark.parametrize("at", [3, 20], ids=["first pass", "second pass"])
@pytest.mark.parametrize("what", WORK)
def test_a_cancel_ends_the_pass_at_the_next_layer(loaded: LoadedModel, few: PromptSet, what: str, at: int) -> None:
    runner, before, weights = JobRunner(), hooks(loaded), weights_of(loaded.model)
    try:
        with counted(loaded, at, lambda: runner.cancel(job)) as ran:
            go = threading.Event()
            job = runner.submit("work", "Work", lambda progress: (go.wait(LIMIT_S), WORK[what](loaded, few))[1])
            go.set()
            view = runner.wait(job, LIMIT_S)
        assert view is not None
        assert view.status == "cancelled"
        assert len(ran) == at  # the layer at work when the cancel came was the last
    finally:
        runner.close()
    assert hooks(loaded) == before
    assert same_weights(loaded.model, weights)


def test_a_cancel_does_not_wait_for_the_vision_tower(loaded: LoadedModel, few: PromptSet) -> None:
    seen: list[int] = []

    def stop() -> None:
        if seen:
            raise Cancelled

    blocks = loaded.model.model.visual.blocks
    handles = [block.register_forward_hook(lambda *_: seen.append(1)) for block in blocks]
    try:
        with stoppable(stop), pytest.raises(Cancelled):
            evaluate(loaded, few)
    finally:
        for handle in handles:
            handle.remove()
    assert len(seen) == 1


def test_a_question_asked_inside_a_job_outlives_the_job_s_cancel() -> None:
    runner = JobRunner()
    inside, asked = threading.Event(), threading.Event()

    def work(progress: Callable[[int, int, str], None]) -> None:
        inside.set()
        assert asked.wait(LIMIT_S)
        while True:
            progress(0, 1, "working")

    def question() -> str:
        runner.cancel(job)
        stop_if_asked()  # the job is to stop, the question is not
        return "answered"

    try:
        job = runner.submit("work", "Work", work)
        assert inside.wait(LIMIT_S)
        future = runner.ask_later(question)
        asked.set()
        assert future.result(LIMIT_S) == "answered"
        view = runner.wait(job, LIMIT_S)
        assert view is not None
        assert view.status == "cancelled"
    finally:
        runner.close()


def test_nothing_is_stopped_where_nobody_asks() -> None:
    stop_if_asked()
    with stoppable(lambda: None):
        stop_if_asked()
