"""Both models answering while the page looks on: the worker decodes, the script draws, and a script that ends stops the worker.

Streamlit ends a script at its next drawing call, when the user clicks anything or leaves; so the script draws even while it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit
from vlm_analysis.progress import Cancelled, stoppable
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.ui.common.session import bench, runner
from vlm_analysis.workbench.responses import Responses

if TYPE_CHECKING:
    from concurrent.futures import Future

    from vlm_analysis.evaluation.run.respond import Step

TO_BEGIN_S = 60.0
LOOK_S = 0.1


def ask_both(prompt: Prompt, mask: Edit, draw: Callable[[Step | None], None]) -> Responses:
    """Return the responses of the dense and the pruned model to one prompt.

    Args:
        draw: gets the newest step several times a second, None before the first; what it raises stops the worker before its next layer.

    Raises:
        Cancelled: the job runner was closed.
        RuntimeError: the same, before the question was put.
        StrataError: the model was unloaded, or cannot be asked this.
        TimeoutError: a running job did not let the question in within 60 s.
    """
    steps: SimpleQueue[Step | None] = SimpleQueue()
    gone = Event()
    future = runner().ask_later(_decoding(prompt, mask, steps, gone))
    future.add_done_callback(lambda _: steps.put(None))
    try:
        _follow(future, steps, draw)
        return future.result()
    finally:
        gone.set()
        future.cancel()


def _decoding(prompt: Prompt, mask: Edit, steps: SimpleQueue[Step | None], gone: Event) -> Callable[[], Responses]:
    """Return the worker's part: it passes on every step, and stops if the page is gone."""
    ask = bench().ask

    def check() -> None:
        if gone.is_set():
            raise Cancelled("Nobody waits for the responses any more.")

    def call() -> Responses:
        with stoppable(check):
            return ask(prompt, mask, on_partial=steps.put)

    return call


def _follow(future: Future[Responses], steps: SimpleQueue[Step | None], draw: Callable[[Step | None], None]) -> None:
    """Draw the newest step until the worker is done, the last one too: where the worker stopped, it is all there is."""
    newest: Step | None = None
    until = time.monotonic() + TO_BEGIN_S
    draw(newest)
    while True:
        try:
            step = steps.get(timeout=LOOK_S)
            while step is not None and not steps.empty():
                newest, step = step, steps.get()
            if step is None:
                draw(newest)
                return
            newest = step
        except Empty:
            if time.monotonic() > until and future.cancel():
                raise TimeoutError(
                    f"a running job let nothing in between for {TO_BEGIN_S:g} s, and the question was withdrawn"
                ) from None
        draw(newest)
