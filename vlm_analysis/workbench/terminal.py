"""Progress in a terminal: one line that is drawn again and again, or a line now and then where nobody watches."""

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
    """Give a progress whose reports are seen on `stream`, with the time left; `quiet` shows nothing.

    A terminal keeps nothing of it; any other stream gets the first report and then one at most every 15 seconds.
    """
    if quiet:
        yield no_progress
        return
    watched, pace, last = stream.isatty(), Pace(clock()), -LINE_S

    def report(done: int, total: int, message: str) -> None:
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
        yield report
    finally:
        if watched:
            stream.write(CLEAR)
            stream.flush()


def _line(done: int, total: int, message: str, seconds_left: float | None) -> str:
    share = f"{min(100, 100 * done // total):3d} %  " if total > 1 and done >= 0 else ""
    left = "" if seconds_left is None else f", about {duration(seconds_left)} left"
    return printable(f"{share}{message or 'working'}{left}")


def printable(text: str) -> str:
    """Return text that moves no cursor: anything but printable characters and line breaks becomes a blank.

    >>> printable("red" + chr(27) + "[31m")
    'red [31m'
    """
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
