"""A process for programs and files of others: it is asked in JSON, and killed when it takes too long, too much memory or writes too much.

Nothing is pickled. The process ends with this one, also when this one is killed (`serve`).
"""

from __future__ import annotations

import atexit
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vlm_analysis.progress import stop_if_asked

SERVE = Path(__file__).with_name("serve.py")
START_S = 60.0  # until it has begun: a busy machine takes its time
LOOK_S = 0.05  # between two looks at its memory, and for a request to stop
PIECE = 1 << 16
PANIC = "PanicException"  # the name of its class


class ChildError(Exception):
    """The process could not answer; the message says why, as the end of a sentence."""


class BoundError(ChildError):
    """It took too long, needed too much memory or wrote too much, or its process ended."""


@contextmanager
def no_panic() -> Iterator[None]:
    """Raise ValueError in place of a panic of a library in Rust, which is no Exception and would end its thread."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == PANIC:
            raise ValueError(f"a library panicked: {str(error)[:200]}") from error
        raise


@dataclass(frozen=True)
class Bounds:
    """What an answer may take: seconds, bytes of memory beyond those of an idle process, and bytes of the answer."""

    seconds: float
    memory: int
    answer: int


class Child:
    """A process that answers by a handler: a script without imports of Strata that defines `answers(question)`.

    It is started by the first question and kept, where `idle_s` is given for so many seconds after the last one; one question is answered
    at a time. After a failure that ended it, the next question starts another.
    """

    def __init__(self, handler: Path, bounds: Bounds, idle_s: float | None = None) -> None:
        self.handler, self.bounds, self.idle_s = handler, bounds, idle_s
        self._n_asked = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._idle = 0
        self._pieces: queue.Queue[bytes] = queue.Queue(maxsize=64)
        atexit.register(self.close)

    def ask(self, question: Any) -> Any:
        """Return the only line of the answer.

        Raises:
            ChildError: the handler failed or went beyond the bounds.
            Cancelled: work is asked to stop meanwhile.
        """
        (answer,) = self.answers(question)
        return answer

    def answers(self, question: Any) -> Iterator[Any]:
        """Yield the lines of the answer as they come (raises as `ask`)."""
        with self._lock:
            whole = False
            self._n_asked += 1
            try:
                process = self._started()
                assert process.stdin is not None
                with suppress(OSError):  # it ended meanwhile, which reading tells
                    process.stdin.write(json.dumps(question).encode() + b"\n")
                    process.stdin.flush()
                for line in self._lines(process):
                    answer = json.loads(line)
                    if answer == {"end": True}:
                        whole = True
                        return
                    if isinstance(answer, dict) and "failed" in answer:
                        whole = answer["failed"] != "memory"
                        raise ChildError(str(answer["failed"])) if whole else self._too_much_memory()
                    yield answer
            finally:
                if not whole:
                    self._kill()
                elif self.idle_s is not None:
                    timer = threading.Timer(self.idle_s, self._rest, [self._n_asked])
                    timer.daemon = True
                    timer.start()

    def _rest(self, n_asked: int) -> None:
        """End the process unless it was asked again meanwhile."""
        with self._lock:
            if n_asked == self._n_asked:
                self._kill()

    def close(self) -> None:
        """End the process; an answer that is waited for fails."""
        if self._process is not None:
            self._process.kill()
        if self._lock.acquire(timeout=1):  # else an answer is read, which ends now and cleans up
            try:
                self._kill()
            finally:
                self._lock.release()

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
        waited, n_bytes, line = 0.0, 0, [b""]
        while True:
            try:
                piece = self._pieces.get(timeout=LOOK_S)
            except queue.Empty:
                stop_if_asked()
                self._check_memory(process)
                waited += LOOK_S
                if waited > self.bounds.seconds:
                    raise BoundError(f"it took longer than {self.bounds.seconds:g} s") from None
                continue
            if not piece:
                raise BoundError(f"its process ended (exit code {process.wait()})")
            n_bytes += len(piece)
            if n_bytes > self.bounds.answer:
                raise BoundError(f"it wrote more than {self.bounds.answer:,} bytes")
            first, *others = piece.split(b"\n")
            line.append(first)
            for other in others:
                yield b"".join(line)
                line = [other]

    def _check_memory(self, process: subprocess.Popen[bytes]) -> None:
        """Raise ChildError where the process holds too much: not every system bounds it itself."""
        with suppress(psutil.Error):
            if psutil.Process(process.pid).memory_info().rss > self._idle + self.bounds.memory:
                raise self._too_much_memory()

    def _too_much_memory(self) -> BoundError:
        return BoundError(f"it needed more than {self.bounds.memory >> 20} MiB of memory")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        command = [sys.executable, "-P", str(SERVE), str(self.handler), str(self.bounds.memory)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._process, self._pieces = process, queue.Queue(maxsize=64)
        self._pump = threading.Thread(target=_pump, args=(process.stdout, self._pieces), daemon=True)
        self._pump.start()
        self._await(process)
        return process

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the process has imported its handler, which is not counted as answering."""
        end = time.monotonic() + START_S
        ready = b""
        while not ready.endswith(b"\n"):
            try:
                piece = self._pieces.get(timeout=LOOK_S)
            except queue.Empty:
                piece = b""
                stop_if_asked()
                if process.poll() is None and time.monotonic() < end:
                    continue
            if not piece:
                raise ChildError(f"its process did not start (exit code {process.poll()})")
            ready += piece
        with suppress(psutil.Error):
            self._idle = psutil.Process(process.pid).memory_info().rss

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            while self._pump.is_alive():  # it may wait for room
                with suppress(queue.Empty):
                    self._pieces.get(timeout=LOOK_S)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]


def _pump(pipe: Any, pieces: queue.Queue[bytes]) -> None:
    """Hand on what a process writes; an empty piece is the end."""
    with suppress(OSError, ValueError):  # closed meanwhile
        while piece := pipe.read1(PIECE):
            pieces.put(piece)
    pieces.put(b"")
