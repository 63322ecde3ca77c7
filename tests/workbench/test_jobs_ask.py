"""Short questions between two reports of a job, what the runner keeps, and its end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from holding import LIMIT_S, PAUSE, Held, ended

from vlm_analysis import Cancelled
from vlm_analysis.progress import Progress
from vlm_analysis.workbench import jobs
from vlm_analysis.workbench.jobs import JobRunner


def until(claim: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT_S
    while not claim():
        assert time.monotonic() < limit, "waited in vain"
        PAUSE.wait(0.001)


def returned(value: Any, on_progress: Progress) -> Any:
    return value


def nothing(on_progress: Progress) -> None:
    on_progress(0, 1, "")


class TestAsk:
    def test_an_idle_worker_answers_at_once(self, runner: JobRunner) -> None:
        assert runner.ask(lambda: threading.current_thread().name, timeout_s=LIMIT_S) == "strata-jobs"
        assert runner.list() == []

    def test_a_question_is_answered_between_two_reports_of_a_running_job(self, runner: JobRunner) -> None:
        begun, stop, order = threading.Event(), threading.Event(), []

        def work(on_progress: Progress) -> str:
            begun.set()
            while not stop.is_set():
                on_progress(1, 2, "working")
                PAUSE.wait(0.001)
            order.append("job ended")
            return "finished"

        job = runner.submit("k", "long", work)
        queued = runner.submit("k", "waits", nothing)
        assert begun.wait(LIMIT_S)

        def question() -> tuple[str, list[str]]:
            order.append("answered")
            return threading.current_thread().name, [view.status for view in runner.list()]

        assert runner.ask(question, timeout_s=LIMIT_S) == ("strata-jobs", ["running", "queued"])
        stop.set()
        assert ended(runner, job).result == "finished"
        ended(runner, queued)
        assert order == ["answered", "job ended"]

    def test_what_the_question_raises_is_raised_to_the_asker_and_hurts_no_job(self, runner: JobRunner) -> None:
        stop = threading.Event()

        def work(on_progress: Progress) -> str:
            while not stop.is_set():
                on_progress(1, 2, "")
                PAUSE.wait(0.001)
            return "finished"

        def exits() -> None:
            raise SystemExit(4)

        def stops() -> None:
            raise Cancelled

        job = runner.submit("k", "long", work)
        with pytest.raises(ZeroDivisionError):
            runner.ask(lambda: 1 // 0, timeout_s=LIMIT_S)
        with pytest.raises(SystemExit):
            runner.ask(exits, timeout_s=LIMIT_S)
        with pytest.raises(Cancelled):
            runner.ask(stops, timeout_s=LIMIT_S)
        stop.set()
        assert ended(runner, job).result == "finished"
        assert runner.ask(lambda: "alive", timeout_s=LIMIT_S) == "alive"

    def test_a_question_that_had_to_wait_too_long_is_withdrawn(self, runner: JobRunner, held: Held) -> None:
        ran = threading.Event()
        with pytest.raises(TimeoutError, match="withdrawn"):
            runner.ask(ran.set, timeout_s=0.01)
        held.go.set()
        assert runner.ask(lambda: "next", timeout_s=LIMIT_S) == "next"
        assert not ran.is_set()

    def test_a_question_that_takes_too_long_is_given_up_and_runs_on(
        self, runner: JobRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        begun, go, ran = threading.Event(), threading.Event(), threading.Event()
        monkeypatch.setattr(jobs, "wait_for", lambda futures, timeout_s: begun.wait(LIMIT_S))  # time is up once it runs

        def slow() -> None:
            begun.set()
            assert go.wait(LIMIT_S)
            ran.set()

        with pytest.raises(TimeoutError, match="still running"):
            runner.ask(slow, timeout_s=0.2)
        go.set()
        assert ran.wait(LIMIT_S)

    def test_a_timeout_of_the_question_itself_is_told_from_waiting_in_vain(self, runner: JobRunner) -> None:
        def call() -> None:
            raise TimeoutError("the hub did not answer")

        with pytest.raises(TimeoutError, match="the hub did not answer"):
            runner.ask(call, timeout_s=LIMIT_S)

    def test_asking_on_the_worker_thread_simply_runs_the_question(self, runner: JobRunner) -> None:
        job = runner.submit("k", "asks", lambda on_progress: runner.ask(lambda: "answer", timeout_s=0.01))
        assert ended(runner, job).result == "answer"

    def test_a_report_from_another_thread_never_answers(self, runner: JobRunner) -> None:
        """A job may load its prompts in a helper thread; the model stays with the worker all the same."""
        begun, stop = threading.Event(), threading.Event()

        def work(on_progress: Progress) -> None:
            def helper() -> None:
                while not stop.is_set():
                    on_progress(1, 2, "helping")
                    PAUSE.wait(0.001)

            thread = threading.Thread(target=helper)
            thread.start()
            begun.set()
            thread.join(LIMIT_S)

        job = runner.submit("k", "with a helper", work)
        assert begun.wait(LIMIT_S)
        with pytest.raises(TimeoutError, match="withdrawn"):
            runner.ask(lambda: "wrong thread", timeout_s=0.05)
        stop.set()
        assert ended(runner, job).status == "done"

    def test_a_cancel_that_arrives_during_a_question_stops_the_job(self, runner: JobRunner) -> None:
        begun, asked = threading.Event(), threading.Event()
        reports_after: list[int] = []

        def work(on_progress: Progress) -> None:
            begun.set()
            while not asked.is_set():
                on_progress(0, 2, "")
                PAUSE.wait(0.001)
            reports_after.append(1)

        job = runner.submit("k", "long", work)
        assert begun.wait(LIMIT_S)

        def cancel_it() -> None:
            runner.cancel(job)
            asked.set()

        runner.ask(cancel_it, timeout_s=LIMIT_S)
        assert ended(runner, job).status == "cancelled"
        assert reports_after == []


class TestMemory:
    def test_only_the_last_fifty_finished_jobs_are_kept(self, runner: JobRunner) -> None:
        ids = [runner.submit("k", str(n), partial(returned, n)) for n in range(53)]
        ended(runner, ids[-1])
        assert [view.result for view in runner.list()] == list(range(3, 53))
        assert runner.get(ids[2]) is None

    def test_waiting_jobs_are_never_forgotten(self) -> None:
        runner, held = JobRunner(keep=1), Held()
        first = runner.submit("k", "first", held)
        ids = [runner.submit("k", str(n), nothing) for n in range(3)]
        assert [view.id for view in runner.list()] == [first, *ids]
        held.go.set()
        ended(runner, ids[-1])
        assert [view.id for view in runner.list()] == [ids[-1]]
        runner.close()

    def test_an_ended_job_holds_neither_its_work_nor_its_failure_nor_a_forgotten_result(self) -> None:
        class Big:
            pass

        runner = JobRunner(keep=1)
        alive: list[weakref.ref[Big]] = []

        def big() -> Big:
            made = Big()
            alive.append(weakref.ref(made))
            return made

        def fails(on_progress: Progress) -> None:
            made = big()
            raise ValueError(f"with {made} in its frame")

        def closure(made: Big) -> Callable[[Progress], str]:
            return lambda on_progress: type(made).__name__

        ids = [runner.submit("k", "result", lambda on_progress: big()), runner.submit("k", "fails", fails)]
        ids.append(runner.submit("k", "closure", closure(big())))
        ended(runner, ids[-1])
        runner.ask(lambda: None)  # the worker has left the job behind
        gc.collect()
        assert [ref() for ref in alive] == [None] * 3
        runner.close()


class TestClose:
    def test_closing_cancels_running_and_waiting_jobs_and_ends_the_worker(self) -> None:
        runner, begun = JobRunner(), threading.Event()

        def work(on_progress: Progress) -> None:
            begun.set()
            while True:
                on_progress(0, 1, "")
                PAUSE.wait(0.001)

        running, queued = runner.submit("k", "endless", work), runner.submit("k", "waits", nothing)
        assert begun.wait(LIMIT_S)
        runner.close()
        assert runner.join(0.0)
        assert [runner.get(job).status for job in (running, queued)] == ["cancelled"] * 2  # type: ignore[union-attr]
        assert not runner.busy

    def test_a_closed_runner_refuses_work_and_questions(self) -> None:
        runner = JobRunner()
        runner.close()
        runner.close()
        with pytest.raises(RuntimeError, match="'late' failed: expected an open job runner"):
            runner.submit("k", "late", nothing)
        with pytest.raises(RuntimeError, match="expected an open job runner"):
            runner.ask(lambda: 1)

    def test_closing_releases_those_who_wait_for_an_answer(self) -> None:
        runner, held = JobRunner(), Held()
        runner.submit("k", "holds", held)
        assert held.begun.wait(LIMIT_S)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(runner.ask, lambda: "too late", timeout_s=LIMIT_S)
            until(lambda: runner._calls)
            runner.close(timeout_s=0.01)
            with pytest.raises(Cancelled):
                answer.result(LIMIT_S)
        held.go.set()
        assert runner.join(LIMIT_S)

    def test_closing_from_within_a_job_does_not_wait_for_itself(self) -> None:
        runner = JobRunner()
        job = runner.submit("k", "closes", lambda on_progress: runner.close())
        assert runner.join(LIMIT_S)
        view = runner.get(job)
        assert view is not None
        assert (view.status, view.error) == ("done", "")

    def test_a_forgotten_runner_does_not_keep_the_process_alive(self) -> None:
        code = """
import threading
from vlm_analysis.workbench import jobs
from vlm_analysis.workbench.jobs import JobRunner
begun = threading.Event()
JobRunner().submit("k", "endless", lambda on_progress: (begun.set(), threading.Event().wait()))
assert begun.wait(200)
"""
        assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT_S, check=False).returncode == 0
