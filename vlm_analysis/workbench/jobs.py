"""Long work in the background: one worker thread, one job after another, for the whole process.

Knows: order, progress, time left, cancelling, and short questions (`JobRunner.ask`) that are answered between two
progress reports of the running job. There is one model, so there is one worker, and nothing else may touch the model.

Does not know: what a job does, why it was started, how it is drawn. Results live in memory only and only for the newest
finished jobs; work worth keeping is saved by the job itself.

A short question runs *inside* the job's call of `on_progress`. A job must therefore report only where the model is in
its ordinary state: no hook in place, no tensor half replaced.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait as wait_for
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from vlm_analysis.errors import explained
from vlm_analysis.progress import Cancelled, Pace, Progress, stoppable

T = TypeVar("T")
Status = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[Progress], Any]

_ACTIVE = ("queued", "running")


@dataclass(frozen=True)
class JobView:
    """The state of a job at one moment; it never changes.

    Times are seconds since the epoch. `position` is 1 for the job that runs next and 0 for one that no longer waits.
    `error` is written for the user; `traceback` is empty unless the failure was unexpected. `origin` is what `submit` was
    given: where the job was started.
    """

    id: str
    kind: str
    label: str
    status: Status
    created: float
    started: float | None = None
    finished: float | None = None
    done: int = 0
    total: int = 0
    message: str = ""
    error: str = ""
    traceback: str = field(default="", repr=False)
    result: Any = field(default=None, repr=False, compare=False)
    position: int = 0
    cancelling: bool = False
    origin: Any = field(default=None, repr=False, compare=False)
    elapsed_s: float = 0.0
    """Seconds the job has run, or ran; 0 while it waits."""
    seconds_left: float | None = None
    """Seconds until the end at the median step time so far; None until there is one, and once the job has ended."""

    @property
    def active(self) -> bool:
        """True while the job waits or runs."""
        return self.status in _ACTIVE

    @property
    def fraction(self) -> float:
        """The finished share of the work, in 0..1; 0 while the total is unknown, 1 when the job is done."""
        if self.status == "done":
            return 1.0
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0


JobViews = list[JobView]  # a name of its own, because JobRunner has a method `list`


@dataclass(eq=False)
class _Job:
    """The mutable side of a job; touched under the runner's lock only."""

    kind: str
    label: str
    work: Work | None
    dedupe: str | None
    created: float
    origin: Any = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    status: Status = "queued"
    started: float | None = None
    finished: float | None = None
    done: int = 0
    total: int = 0
    message: str = ""
    error: str = ""
    traceback: str = ""
    result: Any = None
    cancelling: bool = False
    pace: Pace = field(default_factory=Pace)

    @property
    def active(self) -> bool:
        return self.status in _ACTIVE

    def advance(self, now: float, done: int, total: int, message: str) -> None:
        """Record one report."""
        self.pace.advance(now, done)
        self.done, self.total, self.message = done, total, message

    def elapsed_s(self, now: float) -> float:
        if self.started is None:
            return 0.0
        return max(0.0, (now if self.finished is None else self.finished) - self.started)

    def seconds_left(self, now: float) -> float | None:
        return self.pace.seconds_left(now, self.total) if self.status == "running" else None

    def view(self, now: float, position: int) -> JobView:
        return JobView(
            id=self.id,
            kind=self.kind,
            label=self.label,
            status=self.status,
            created=self.created,
            started=self.started,
            finished=self.finished,
            done=self.done,
            total=self.total,
            message=self.message,
            error=self.error,
            traceback=self.traceback,
            result=self.result,
            position=position,
            cancelling=self.cancelling and self.active,
            origin=self.origin,
            elapsed_s=self.elapsed_s(now),
            seconds_left=self.seconds_left(now),
        )


class JobRunner:
    """Runs jobs strictly one after another on a daemon thread; every method may be called from any thread.

    Args:
        keep: Finished jobs that are remembered, with their results; older ones are forgotten.
        clock: Seconds since the epoch; tests put their own here.
    """

    def __init__(self, *, keep: int = 50, clock: Callable[[], float] = time.time) -> None:
        self._keep, self._clock = keep, clock
        self._changed = threading.Condition(threading.Lock())
        self._jobs: dict[str, _Job] = {}  # in order of submission
        self._queue: deque[_Job] = deque()
        self._finished: deque[str] = deque()  # in order of finishing
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="strata-jobs", daemon=True)
        self._thread.start()

    # -- jobs ------------------------------------------------------------------------------------------------------

    def submit(self, kind: str, label: str, work: Work, *, dedupe: str | None = None, origin: Any = None) -> str:
        """Queue `work` and return the id of its job.

        `work` gets an `on_progress(done, total, message)` that raises `Cancelled` once cancelling was asked for; what
        it returns becomes the job's result. While a job of the same kind and the same `dedupe` waits or runs, and is
        not being cancelled, nothing is queued and that job's id comes back: a double click starts one job. `origin` says
        where it was started; the runner keeps it and does not look at it.

        Raises:
            RuntimeError: The runner is closed.
        """
        with self._changed:
            self._refuse_if_closed(f"starting '{label}'")
            for job in self._jobs.values():
                same = dedupe is not None and (job.kind, job.dedupe) == (kind, dedupe)
                if same and job.active and not job.cancelling:
                    return job.id
            job = _Job(kind, label, work, dedupe, self._clock(), origin)
            self._jobs[job.id] = job
            self._queue.append(job)
            self._changed.notify_all()
            return job.id

    def cancel(self, job_id: str) -> bool:
        """Ask a job to stop; True if it was still active.

        A waiting job is cancelled at once, a running one at its next progress report, or sooner where it asks
        `stop_if_asked`. One that ends before that is done, not cancelled.
        """
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or not job.active:
                return False
            job.cancelling = True
            if job.status == "queued":
                self._queue.remove(job)
                self._end(job, "cancelled")
            return True

    def get(self, job_id: str) -> JobView | None:
        """The job as it is now; None if there is none of this id or it was forgotten."""
        with self._changed:
            job = self._jobs.get(job_id)
            return None if job is None else self._view(job)

    def list(self, kind: str | None = None, active: bool | None = None) -> JobViews:
        """All remembered jobs in order of submission; if given, only those of `kind`, and only active or ended ones."""
        with self._changed:
            return [
                self._view(job)
                for job in self._jobs.values()
                if kind in (None, job.kind) and active in (None, job.active)
            ]

    def latest(self, kind: str, among: Callable[[Any], bool] = lambda origin: True) -> JobView | None:
        """The job of this kind to show: the one running or next to run, else the one that ended last, else None.

        Only jobs count for whose origin `among` returns True.
        """
        with self._changed:
            candidates = [job for job in self._jobs.values() if job.active]
            candidates += [self._jobs[job_id] for job_id in reversed(self._finished)]
            return next((self._view(job) for job in candidates if job.kind == kind and among(job.origin)), None)

    def wait(self, job_id: str, timeout_s: float | None = None) -> JobView | None:
        """The job once it has ended, or as it is when the time is up; None if it is unknown."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            self._changed.wait_for(lambda: not job.active, timeout_s)
            return self._view(job)

    @property
    def busy(self) -> bool:
        """True while a job waits or runs; short questions do not count."""
        with self._changed:
            return any(job.active for job in self._jobs.values())

    # -- short questions -------------------------------------------------------------------------------------------

    def ask(self, call: Callable[[], T], *, timeout_s: float = 60) -> T:
        """Run `call` on the worker thread and return what it returns; what it raises is raised here.

        It runs at once when no job runs, else inside the running job's next progress report. Asked from the worker
        thread itself, it simply runs.

        Raises:
            TimeoutError: No answer in time. A call that has not begun is withdrawn; one that has runs on, unheard.
            Cancelled: The runner was closed before the call began.
            RuntimeError: The runner is closed.
        """
        if threading.current_thread() is self._thread:
            return call()
        future = self.ask_later(call)
        wait_for([future], timeout_s)
        if future.cancel():
            state = "it had not begun, because a job reported no progress meanwhile, and was withdrawn"
        elif not future.done():
            state = "it is still running"
        else:
            return future.result()
        raise TimeoutError(f"Asking the model failed: expected an answer within {timeout_s:g} s; {state}. Try again.")

    def ask_later(self, call: Callable[[], T]) -> Future[T]:
        """Queue `call` as `ask` does and return its Future at once; cancelling that withdraws a call that has not begun.

        Raises:
            RuntimeError: The runner is closed.
        """
        future: Future[T] = Future()
        with self._changed:
            self._refuse_if_closed("asking the model")
            self._calls.append((future, call))
            self._changed.notify_all()
        return future

    # -- end -------------------------------------------------------------------------------------------------------

    def close(self, timeout_s: float = 10.0) -> None:
        """Cancel every job and every question not yet begun, refuse new ones, and join the worker. May be repeated."""
        with self._changed:
            self._closed = True
            while self._queue:
                self._end(self._queue.popleft(), "cancelled")
            for job in self._jobs.values():
                job.cancelling = True
            calls, self._calls = self._calls, deque()
            self._changed.notify_all()
        for future, _ in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(Cancelled("The job runner was closed before the question was answered."))
        self.join(timeout_s)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the worker to end after `close`; True if it has. Never waits on the worker thread itself."""
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _refuse_if_closed(self, what: str) -> None:
        if self._closed:
            raise RuntimeError(f"{what} failed: expected an open job runner, got a closed one. Restart the app.")

    # -- with the lock held ----------------------------------------------------------------------------------------

    def _view(self, job: _Job) -> JobView:
        position = self._queue.index(job) + 1 if job.status == "queued" else 0
        return job.view(self._clock(), position)

    def _end(self, job: _Job, status: Status) -> None:
        job.status, job.finished, job.work = status, self._clock(), None
        self._finished.append(job.id)
        while len(self._finished) > self._keep:
            del self._jobs[self._finished.popleft()]
        self._changed.notify_all()

    def _stop_if_asked(self, job: _Job) -> None:
        if job.cancelling or job.status != "running":  # the latter: a report that outlived its job
            raise Cancelled(f"'{job.label}' was cancelled.")

    # -- on the worker thread --------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls or self._queue or self._closed)
                if self._closed:
                    return
                job = None if self._calls else self._queue.popleft()
                if job is not None:
                    job.status, job.started = "running", self._clock()
                    job.pace = Pace(job.started)
            if job is None:
                self._answer()
            else:
                self._run(job)

    def _run(self, job: _Job) -> None:
        def on_progress(done: int, total: int, message: str) -> None:
            self._report(job, done, total, message)

        assert job.work is not None, "a queued job has work"
        status: Status
        result, error, trace = None, "", ""
        try:
            with stoppable(lambda: self._check(job)):
                result = job.work(on_progress)
            status = "done"
        except Cancelled:
            status = "cancelled"
        except BaseException as failure:  # a bug, an exit or an interrupt inside a job must not end the worker
            status, (error, trace) = "failed", explained(failure)
        with self._changed:
            job.result, job.error, job.traceback = result, error, trace
            self._end(job, status)

    def _report(self, job: _Job, done: int, total: int, message: str) -> None:
        with self._changed:
            if job.status == "running":
                job.advance(self._clock(), done, total, message)
            self._stop_if_asked(job)
            has_calls = bool(self._calls) and threading.current_thread() is self._thread
        if has_calls:
            self._answer()
            with self._changed:
                self._stop_if_asked(job)

    def _check(self, job: _Job) -> None:
        with self._changed:
            self._stop_if_asked(job)

    def _answer(self) -> None:
        """Answer the questions waiting now; later ones wait for the next report, so that no job is starved."""
        for _ in range(len(self._calls)):
            with self._changed:
                if not self._calls:  # closed meanwhile
                    return
                future, call = self._calls.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with stoppable(lambda: None):  # a job that is cancelled takes no question with it
                    future.set_result(call())
            except BaseException as failure:  # raised again where it was asked
                future.set_exception(failure)
