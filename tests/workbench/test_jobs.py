"""The job runner: real threads, held and released by events."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
from holding import LIMIT_S, Held, ended

from vlm_analysis import Cancelled
from vlm_analysis.errors import RecordingError
from vlm_analysis.progress import Pace, Progress
from vlm_analysis.workbench.jobs import JobRunner


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def nothing(on_progress: Progress) -> None:
    on_progress(0, 1, "")


class TestJobs:
    def test_jobs_run_one_after_another_in_the_order_they_were_submitted(self, runner: JobRunner) -> None:
        seen: list[str] = []

        def work(name: str) -> Callable[[Progress], None]:
            return lambda on_progress: seen.extend([f"{name} begins", f"{name} ends"])

        ids = [runner.submit("k", name, work(name)) for name in "abc"]
        ended(runner, ids[-1])
        assert seen == ["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]
        assert [view.id for view in runner.list()] == ids

    def test_a_finished_job_shows_its_result_and_last_report(self, runner: JobRunner) -> None:
        def work(on_progress: Progress) -> dict[str, int]:
            on_progress(3, 4, "prompt 'chart-03'")
            return {"layers": 4}

        view = ended(runner, runner.submit("record", "Recording 4 prompts", work))
        assert (view.status, view.result, view.error, view.traceback) == ("done", {"layers": 4}, "", "")
        assert (view.kind, view.label, view.done, view.total) == ("record", "Recording 4 prompts", 3, 4)
        assert view.message == "prompt 'chart-03'"
        assert view.fraction == 1.0
        assert view.started is not None
        assert view.finished is not None
        assert view.created <= view.started <= view.finished

    def test_waiting_jobs_know_their_place_in_the_queue(self, runner: JobRunner, held: Held) -> None:
        first, second = runner.submit("k", "first", nothing), runner.submit("k", "second", nothing)
        places = {view.label: (view.status, view.position) for view in runner.list()}
        assert places == {"Holding": ("running", 0), "first": ("queued", 1), "second": ("queued", 2)}
        runner.cancel(first)
        moved = runner.get(second)
        assert moved is not None
        assert moved.position == 1

    def test_a_snapshot_does_not_change_afterwards(self, runner: JobRunner, held: Held) -> None:
        before = runner.latest("hold")
        assert before is not None
        held.go.set()
        ended(runner, before.id)
        assert (before.status, before.done, before.active) == ("running", 0, True)
        with pytest.raises(AttributeError):
            before.done = 5  # type: ignore[misc]

    def test_list_tells_kinds_and_active_jobs_apart(self, runner: JobRunner) -> None:
        over = runner.submit("record", "over", nothing)
        ended(runner, over)
        held = Held()
        running, queued = runner.submit("record", "runs", held), runner.submit("sweep", "waits", nothing)
        assert held.begun.wait(LIMIT_S)
        assert [v.id for v in runner.list(active=True)] == [running, queued]
        assert [v.id for v in runner.list(active=False)] == [over]
        assert [v.id for v in runner.list("record")] == [over, running]
        assert [v.id for v in runner.list("record", active=True)] == [running]
        held.go.set()

    def test_latest_prefers_the_running_job_and_else_the_one_that_ended_last(self, runner: JobRunner) -> None:
        assert runner.latest("k") is None
        held = Held()
        running = runner.submit("k", "runs", held)
        dropped = runner.submit("k", "waits, then dropped", nothing)
        assert held.begun.wait(LIMIT_S)
        runner.cancel(dropped)
        runner.submit("other", "another kind", nothing)
        latest = runner.latest("k")
        assert latest is not None
        assert latest.id == running
        held.go.set()
        ended(runner, running)
        latest = runner.latest("k")
        assert latest is not None
        assert latest.id == running  # submitted first, ended last

    def test_runner_is_busy_from_submission_to_the_end(self, runner: JobRunner) -> None:
        assert not runner.busy
        held = Held()
        job = runner.submit("k", "work", held)
        assert runner.busy
        held.go.set()
        ended(runner, job)
        assert not runner.busy

    def test_unknown_jobs_are_none_and_cannot_be_cancelled(self, runner: JobRunner) -> None:
        assert runner.get("nobody") is None
        assert runner.wait("nobody") is None
        assert runner.cancel("nobody") is False

    def test_waiting_for_a_running_job_returns_it_as_it_is_when_time_is_up(self, runner: JobRunner, held: Held) -> None:
        view = runner.wait(runner.list()[0].id, 0.01)
        assert view is not None
        assert view.status == "running"

    def test_a_job_may_submit_the_next_one(self, runner: JobRunner) -> None:
        first = runner.submit("k", "first", lambda on_progress: runner.submit("k", "second", lambda _: "second ran"))
        assert ended(runner, ended(runner, first).result).result == "second ran"


class TestDedupe:
    def test_the_same_work_is_queued_once_while_it_is_active(self, runner: JobRunner, held: Held) -> None:
        first = runner.submit("k", "once", nothing, dedupe="x")
        assert runner.submit("k", "again", nothing, dedupe="x") == first
        assert runner.submit("k", "other work", nothing, dedupe="y") != first
        assert runner.submit("other kind", "same key", nothing, dedupe="x") != first
        assert runner.submit("k", "no key", nothing) != runner.submit("k", "no key", nothing)

    def test_finished_work_can_be_started_again(self, runner: JobRunner) -> None:
        first = runner.submit("k", "once", nothing, dedupe="x")
        ended(runner, first)
        assert runner.submit("k", "again", nothing, dedupe="x") != first

    def test_work_that_is_being_cancelled_can_be_started_again_at_once(self, runner: JobRunner) -> None:
        held = Held()
        first = runner.submit("k", "once", held, dedupe="x")
        assert held.begun.wait(LIMIT_S)
        runner.cancel(first)
        second = runner.submit("k", "again", nothing, dedupe="x")
        held.go.set()
        assert (ended(runner, first).status, ended(runner, second).status) == ("cancelled", "done")

    def test_many_threads_submitting_the_same_work_start_one_job(self, runner: JobRunner, held: Held) -> None:
        together = threading.Barrier(8)

        def click(_: int) -> str:
            together.wait(LIMIT_S)
            return runner.submit("k", "once", nothing, dedupe="x")

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(click, range(8)))) == 1


class TestCancel:
    def test_a_waiting_job_is_cancelled_at_once_and_never_runs(self, runner: JobRunner, held: Held) -> None:
        ran = threading.Event()
        job = runner.submit("k", "never", lambda on_progress: ran.set())
        assert runner.cancel(job) is True
        view = runner.get(job)
        assert view is not None
        assert (view.status, view.started, view.elapsed_s, view.position) == ("cancelled", None, 0.0, 0)
        held.go.set()
        ended(runner, runner.submit("k", "after", nothing))
        assert not ran.is_set()

    def test_a_running_job_is_cancelled_at_its_next_report(self, runner: JobRunner) -> None:
        held, after = Held(), threading.Event()

        def work(on_progress: Progress) -> None:
            held(on_progress)
            after.set()

        job = runner.submit("k", "stop me", work)
        assert held.begun.wait(LIMIT_S)
        assert runner.cancel(job) is True
        view = runner.get(job)
        assert view is not None
        assert (view.status, view.cancelling) == ("running", True)
        held.go.set()
        view = ended(runner, job)
        assert (view.status, view.cancelling, view.error, view.done) == ("cancelled", False, "", 1)
        assert not after.is_set()

    def test_a_job_that_ends_before_it_notices_is_done(self, runner: JobRunner) -> None:
        begun, go = threading.Event(), threading.Event()

        def work(on_progress: Progress) -> str:
            begun.set()
            assert go.wait(LIMIT_S)
            return "kept"

        job = runner.submit("k", "too late", work)
        assert begun.wait(LIMIT_S)
        runner.cancel(job)
        go.set()
        view = ended(runner, job)
        assert (view.status, view.result) == ("done", "kept")

    def test_a_finished_job_cannot_be_cancelled(self, runner: JobRunner) -> None:
        job = runner.submit("k", "done", nothing)
        ended(runner, job)
        assert runner.cancel(job) is False

    def test_a_report_after_the_end_is_refused_and_changes_nothing(self, runner: JobRunner) -> None:
        kept: list[Progress] = []
        job = runner.submit("k", "leaks its callback", kept.append)
        ended(runner, job)
        with pytest.raises(Cancelled):
            kept[0](7, 9, "late")
        view = runner.get(job)
        assert view is not None
        assert (view.done, view.message, view.status) == (0, "", "done")


class BrokenTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class TestFailure:
    @pytest.mark.parametrize(
        "failure",
        [
            ZeroDivisionError("by zero"),
            SystemExit(3),
            KeyboardInterrupt(),
            GeneratorExit(),
            MemoryError(),
            BrokenTextError(),
        ],
        ids=lambda failure: type(failure).__name__,
    )
    def test_no_exception_ends_the_worker(self, runner: JobRunner, failure: BaseException) -> None:
        def work(on_progress: Progress) -> None:
            raise failure

        bad, good = runner.submit("k", "bad", work), runner.submit("k", "good", lambda on_progress: "fine")
        view = ended(runner, bad)
        assert view.status == "failed"
        assert view.error.startswith(f"Unexpected {type(failure).__name__}")
        assert "in work" in view.traceback
        assert ended(runner, good).result == "fine"

    def test_an_unexpected_failure_names_its_type_and_text(self, runner: JobRunner) -> None:
        view = ended(runner, runner.submit("k", "bad", lambda on_progress: [][1]))
        assert view.error == "Unexpected IndexError: list index out of range"

    def test_a_user_error_is_shown_as_it_stands_and_without_traceback(self, runner: JobRunner) -> None:
        def work(on_progress: Progress) -> None:
            raise RecordingError("Recording failed: expected 2 prompts, got 0. Add some.")

        view = ended(runner, runner.submit("k", "bad", work))
        assert (view.status, view.traceback) == ("failed", "")
        assert view.error == "Recording failed: expected 2 prompts, got 0. Add some."

    @pytest.mark.parametrize(
        ("number", "says_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, True), (errno.EIO, False)]
    )
    def test_a_full_disk_is_called_so(self, runner: JobRunner, number: int, says_full: bool) -> None:
        def work(on_progress: Progress) -> None:
            raise OSError(number, "text of the system")

        view = ended(runner, runner.submit("k", "bad", work))
        assert view.status == "failed"
        assert ("full disk" in view.error and "Nothing already saved is lost" in view.error) is says_full
        assert view.error.startswith("Unexpected OSError") is not says_full


class TestPace:
    def seen(self, *step_times: float) -> Pace:
        pace, now = Pace(), 0.0
        pace.advance(now, 0)
        for done, seconds in enumerate(step_times, 1):
            now += seconds
            pace.advance(now, done)
        return pace

    def test_a_slow_first_step_moves_nothing(self) -> None:
        pace = self.seen(60.0, 2.0, 2.0, 2.0)
        assert pace.seconds_left(66.0, 10) == 12.0
        assert self.seen(60.0, 2.0).seconds_left(62.0, 4) == 4.0

    def test_the_estimate_is_the_median_of_all_steps_seen(self) -> None:
        step_times = (9.0, 1.0, 5.0, 30.0, 4.0)
        assert self.seen(*step_times).seconds_left(sum(step_times), 7) == 2 * median(step_times)

    def test_the_step_at_work_is_counted_down_to_its_end_and_no_further(self) -> None:
        pace = self.seen(2.0, 2.0)
        assert [pace.seconds_left(4.0 + later, 4) for later in (0.0, 0.5, 2.0, 60.0)] == [4.0, 3.5, 2.0, 2.0]

    def test_work_that_goes_on_where_it_stopped_counts_what_it_found_as_one_step(self) -> None:
        pace = Pace()
        for now, done in ((0.0, 0), (1.0, 500), (4.0, 501), (7.0, 502)):
            pace.advance(now, done)
        assert pace.seconds_left(7.0, 504) == 6.0


class TestTime:
    def test_time_left_is_the_rest_at_the_median_step_and_says_nothing_of_a_first_step_alone(self) -> None:
        clock, seen = Clock(), []
        runner = JobRunner(clock=clock)

        def work(on_progress: Progress) -> None:
            for done in (0, 1, 2, 4):
                clock.now += 5.0
                on_progress(done, 4, "")
                seen.append(runner.list()[0])

        view = ended(runner, runner.submit("k", "timed", work))
        runner.close()
        assert [v.elapsed_s for v in seen] == [5.0, 10.0, 15.0, 20.0]
        assert [v.seconds_left for v in seen] == [None, None, 10.0, 0.0]
        assert [v.fraction for v in seen] == [0.0, 0.25, 0.5, 1.0]
        clock.now += 100.0
        assert (view.elapsed_s, view.seconds_left) == (20.0, None)
        assert (view.created, view.started, view.finished) == (1000.0, 1000.0, 1020.0)

    def test_the_clock_runs_on_between_reports(self) -> None:
        clock, held = Clock(), Held()
        runner = JobRunner(clock=clock)
        job = runner.submit("k", "quiet", held)
        assert held.begun.wait(LIMIT_S)
        clock.now += 7.0
        view = runner.get(job)
        held.go.set()
        runner.close()
        assert view is not None
        assert (view.elapsed_s, view.seconds_left) == (7.0, None)

    def test_a_second_stage_is_measured_by_its_own_pace(self) -> None:
        clock, seen = Clock(), []
        runner = JobRunner(clock=clock)

        def work(on_progress: Progress) -> None:
            for done, total, step in ((8, 10, 100.0), (9, 10, 50.0), (1, 5, 2.0), (2, 5, 2.0), (3, 5, 2.0)):
                clock.now += step
                on_progress(done, total, "")
                seen.append(runner.list()[0].seconds_left)

        ended(runner, runner.submit("k", "two stages", work))
        runner.close()
        assert seen == [None, 12.5, None, None, 4.0]

    def test_an_unknown_or_wrong_total_gives_no_estimate_and_a_fraction_in_range(self) -> None:
        clock, seen = Clock(), []
        runner = JobRunner(clock=clock)

        def work(on_progress: Progress) -> None:
            for done, total in ((3, 0), (9, 4), (-1, 4)):
                clock.now += 1.0
                on_progress(done, total, "")
                seen.append((runner.list()[0].fraction, runner.list()[0].seconds_left))

        ended(runner, runner.submit("k", "odd", work))
        runner.close()
        assert seen == [(0.0, None), (1.0, None), (0.0, None)]


def test_jobs_need_neither_torch_nor_streamlit() -> None:
    code = "import sys, vlm_analysis.workbench.jobs; sys.exit(bool({'torch', 'streamlit', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT_S, check=False).returncode == 0
