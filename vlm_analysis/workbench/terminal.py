"""Progress in a terminal: one line that is redrawn, or a line now and then if the stream is not a terminal."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from vlm_analysis.progress import Pace, Progress, no_progress
from vlm_analysis.words import duration

REDRAW_S = 0.1
LINE_S = 15.0
CLEAR = "\r\x1b[K"


@contextmanager
def shown(stream: TextIO, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Yield a progress that is shown on `stream`, with the time left; `quiet` shows nothing.

    In a terminal the line is removed at the end; other streams get the first line, then at most one every 15 seconds.
    """
    if quiet:
        yield no_progress
        return
    watched, pace, last = stream.isatty(), Pace(clock()), -LINE_S

    def on_progress(done: int, total: int, message: str) -> None:
        nonlocal last
        now = clock()
        pace.advance(now, done)
        if now - last < (REDRAW_S if watched else LINE_S):
            return
        last = now
        line = _line(done, total, message, pace.seconds_left(now, total))
        stream.write(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}" if watched else f"{line}\n")
        stream.flush()

    try:
        yield on_progress
    finally:
        if watched:
            stream.write(CLEAR)
            stream.flush()


def _line(done: int, total: int, message: str, seconds_left: float | None) -> str:
    share = f"{min(100, 100 * done // total):3d} %  " if total > 1 and done >= 0 else ""
    time_left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
    return printable(f"{share}{message or 'working'}{time_left}")


def printable(text: str) -> str:
    """Return text that moves no cursor: anything but printable characters and line breaks becomes a blank.

    >>> printable("red" + chr(27) + "[31m")
    'red [31m'
    """
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
