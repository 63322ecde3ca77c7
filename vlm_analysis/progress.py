"""Progress and cancellation of long work: work stops at a call of `on_progress`, or of `stop_if_asked` in between.

A call of `on_progress` may do more than stop the work (a short question to the model is answered inside one), so it is made only where
the model is in its ordinary state. `stop_if_asked` does nothing but raise and may be called inside a forward pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from statistics import median_low

Progress = Callable[[int, int, str], None]
"""Called as `on_progress(done, total, message)`; raising `Cancelled` in it stops the work cleanly."""


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop. Not a StrataError: nothing went wrong."""


def no_progress(done: int, total: int, message: str) -> None:
    """Do nothing."""


LEAST_STEPS = 2  # the first alone, often the slowest, would be a guess
MOST_STEPS = 501  # of long work, the newest count


@dataclass
class Pace:
    """The pace of work, from its progress: the median of the step times seen, which one slow step does not move.

    Time runs from the last call with nothing done, so imports and loading before it are not counted. A count that falls starts a new
    stage with its own pace. A call that counts several steps at once, as work that goes on does, is seen once.

    Attributes:
        since: when the step at work began, in seconds.
        done: the count now.
        step_times: seconds a step, the newest last.
    """

    since: float = 0.0
    done: int = 0
    step_times: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_STEPS))

    def advance(self, now: float, done: int) -> None:
        """Add one call of `on_progress`."""
        if done < self.done or done <= 0:
            self.since, self.done = now, done
            self.step_times.clear()
        elif done > self.done:
            self.step_times.append(max(0.0, now - self.since) / (done - self.done))
            self.since, self.done = now, done

    def seconds_left(self, now: float, total: int) -> float | None:
        """Return how long the rest will take at this pace; None until two steps were seen.

        The step at work is counted down, and never below its end.
        """
        if len(self.step_times) < LEAST_STEPS or total < self.done:
            return None
        step = median_low(self.step_times)
        return step * (total - self.done) - min(step, max(0.0, now - self.since)) * (total > self.done)


_check: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


def stop_if_asked() -> None:
    """Raise Cancelled if the work of this thread should stop; do nothing outside of `stoppable`."""
    _check.get()()


@contextmanager
def stoppable(check: Callable[[], None]) -> Iterator[None]:
    """Let `stop_if_asked` call `check` inside; it raises Cancelled to stop the work."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
