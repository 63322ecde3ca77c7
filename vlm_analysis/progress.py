"""Progress and cancellation of long work: work stops at a call of `on_progress`, or of `stop_if_asked` in between.

A call of `on_progress` may do more than stop the work (a short question to the model is answered inside one), so it is made only where
the model is in its ordinary state. `stop_if_asked` does nothing but raise and may be called inside a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Progress = Callable[[int, int, str], None]
"""Called as `on_progress(done, total, message)`; raising `Cancelled` in it stops the work cleanly."""


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop. Not a StrataError: nothing went wrong."""


def no_progress(done: int, total: int, message: str) -> None:
    """Do nothing."""


@dataclass
class Pace:
    """The pace of work, from its progress.

    Time runs from the last call with nothing done, so imports and loading before it are not counted. A count that falls starts a new
    stage with its own pace.

    Attributes:
        since: start of the stage, in seconds.
        base, done: the count at that time and now.
    """

    since: float = 0.0
    base: int = 0
    done: int = 0

    def advance(self, now: float, done: int) -> None:
        """Add one call of `on_progress`."""
        if done < self.done or done <= self.base:
            self.since, self.base = now, done
        self.done = done

    def seconds_left(self, now: float, total: int) -> float | None:
        """Return how long the rest will take at this pace; None while it is unknown."""
        if self.done <= self.base or total < self.done:
            return None
        return max(0.0, now - self.since) / (self.done - self.base) * (total - self.done)


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
