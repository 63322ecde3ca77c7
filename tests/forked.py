"""A process beside this one that has all that this one has imported: forked, it begins at once, where a new one imports torch first."""

from __future__ import annotations

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

import torch

Say = Callable[[object], None]


@dataclass(frozen=True)
class Forked:
    """The process, and the lines that it says.

    Attributes:
        pid: its number.
        said: ends with the process.
    """

    pid: int
    said: TextIO

    def waits_to_say(self, line: str) -> None:
        """Return once it said a line that begins so."""
        for one in self.said:
            if one.startswith(line):
                return
        raise AssertionError(f"it ended without saying {line!r}")

    def ended(self) -> int:
        """Wait for its end, and return its exit code: negative, the number of the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def forked(work: Callable[[Say], object]) -> Iterator[Forked]:
    """Run `work` in a process forked of this one; it is killed at the end.

    Both compute on one thread meanwhile: others of OpenMP do not come along, and with other numbers of threads the last bits differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of Python, on threads, which do not come along: none is needed
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            yield Forked(pid, said)
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        torch.set_num_threads(threads)


def _run(work: Callable[[Say], object], writing: int) -> None:
    """Be the process: say lines, and end with 0, the code of a SystemExit, or 1 after an error."""
    code = 1
    try:
        torch.set_num_threads(1)
        with os.fdopen(writing, "w") as out:
            try:
                work(lambda line: print(line, file=out, flush=True))
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:
                traceback.print_exc(file=out)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
