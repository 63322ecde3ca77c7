"""Jobs that tests hold and let go, and how they wait for the others."""

from __future__ import annotations

import threading
from typing import Any

from vlm_analysis.progress import Progress
from vlm_analysis.workbench.jobs import JobRunner, JobView

LIMIT_S = 300.0  # never reached unless something hangs
PAUSE = threading.Event()  # never set: `PAUSE.wait(0.001)` lets other threads go on


class Held:
    """Work that says when it has begun and goes on to its only report when it is let go."""

    def __init__(self, result: Any = "held") -> None:
        self.begun, self.go, self.result = threading.Event(), threading.Event(), result

    def __call__(self, on_progress: Progress) -> Any:
        self.begun.set()
        assert self.go.wait(LIMIT_S)
        on_progress(1, 2, "let go")
        return self.result


def ended(runner: JobRunner, job_id: str) -> JobView:
    view = runner.wait(job_id, LIMIT_S)
    assert view is not None
    assert not view.active, f"'{view.label}' did not end"
    return view
