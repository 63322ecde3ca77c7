"""The other side of a `Child`: answers questions, one line of JSON each, until its parent is gone. Run as a script, without Strata.

    python serve.py HANDLER.py BYTES

The first line it writes is {"ready": true}. The handler's function `answers(question)` yields what is written, a line each; after the
last line comes {"end": true}, after a failure {"failed": reason}. The process may take BYTES of memory beyond what it has once the
handler is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

PARENT_S = 0.5  # how often the parent is looked for
MOST_REASON = 500  # characters

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def serve(handler: str, memory: int) -> None:
    """Answer the questions on stdin."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    spec = importlib.util.spec_from_file_location("handler", handler)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _limit(memory)
    _write({"ready": True})
    for line in sys.stdin.buffer:
        _answer(module.answers, json.loads(line))


def _answer(answers: Callable[[Any], Iterable[Any]], question: Any) -> None:
    try:
        for answer in answers(question):
            _write(answer)
    except MemoryError:
        _write({"failed": "memory"})
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
            raise
        _write({"failed": f"{type(error).__name__}: {error}"[:MOST_REASON]})
    else:
        _write({"end": True})


def _write(answer: Any) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _limit(memory: int) -> None:
    """Bound the address space, where the system can; the parent looks at the memory in use too."""
    if resource is None:
        return
    for kind, most in ((resource.RLIMIT_AS, _address_space() + memory), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS
            resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    """Return the bytes of addresses in use; a generous guess where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 1 << 30


def _end_with(parent: int) -> None:
    """End this process once its parent is another: the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
