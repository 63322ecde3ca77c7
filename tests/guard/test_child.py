"""The process for programs of others: it answers, is killed at its bounds, and ends with the process that asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from vlm_analysis.guard.child import BoundError, Bounds, Child, ChildError
from vlm_analysis.progress import Cancelled, stoppable

HANDLER = """
import os, time
def answers(question):
    if question == "pid":
        yield os.getpid()
    elif question == "loop":
        while True: pass
    elif question == "memory":
        yield len("x" * 10**9)
    elif question == "slow memory":
        kept = []
        while True:
            kept.append(bytearray(10**6)); time.sleep(0.001)
    elif question == "output":
        while True: yield "x" * 10**5
    elif question == "die":
        os._exit(3)
    elif question == "panic":
        raise BaseException("a panic")
    else:
        yield from question
"""


@pytest.fixture
def child(tmp_path: Path):
    (tmp_path / "handler.py").write_text(HANDLER)
    made = Child(tmp_path / "handler.py", Bounds(seconds=120, memory=200 << 20, answer=10 << 20))
    yield made
    made.close()


def test_answers_come_as_they_were_written_and_the_process_is_kept(child: Child) -> None:
    assert list(child.answers(["é\n", None, 1.5, {"a": [1]}, "x" * 300_000])) == [
        "é\n",
        None,
        1.5,
        {"a": [1]},
        "x" * 300_000,
    ]
    assert child.ask("pid") == child.ask("pid")


def test_a_process_that_is_not_asked_any_more_ends_and_another_answers(child: Child) -> None:
    child.idle_s = 0.2
    first = child.ask("pid")
    psutil.Process(first).wait(60)
    child.idle_s = 60.0
    second = child.ask("pid")
    assert second != first
    child._rest(0)  # of a question before
    assert child.ask("pid") == second


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("loop", "took longer than 1 s"),
        ("memory", "needed more than 200 MiB"),
        ("slow memory", "needed more than 200 MiB"),
        ("output", "wrote more than 10,485,760 bytes"),
        ("die", "its process ended .exit code 3"),
    ],
)
def test_what_goes_beyond_a_bound_is_ended_and_the_next_question_is_answered(
    child: Child, question: str, told: str
) -> None:
    before = child.ask("pid")
    if question == "loop":
        child.bounds = replace(child.bounds, seconds=1)
    with pytest.raises(BoundError, match=told):
        list(child.answers(question))
    child.bounds = replace(child.bounds, seconds=120)
    assert not psutil.pid_exists(before)
    assert child.ask("pid") != before


def test_a_panic_is_an_error_and_the_process_goes_on(child: Child) -> None:
    before = child.ask("pid")
    with pytest.raises(ChildError, match="BaseException: a panic"):
        child.ask("panic")
    assert child.ask("pid") == before


def test_a_request_to_stop_ends_it(child: Child) -> None:
    asked = time.monotonic()

    def stop() -> None:
        if time.monotonic() > asked:
            raise Cancelled

    before = child.ask("pid")
    with stoppable(stop), pytest.raises(Cancelled):
        child.ask("loop")
    assert not psutil.pid_exists(before)


def test_it_ends_with_its_parent_also_when_that_is_killed_while_it_works(tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text(HANDLER)
    code = f"""
import threading, time
from pathlib import Path
from vlm_analysis.guard.child import Bounds, Child
child = Child(Path({str(tmp_path / "handler.py")!r}), Bounds(600, 1 << 30, 1 << 20))
print(child.ask("pid"), flush=True)
child.ask("loop")
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, 9)
    worker.wait(60)
