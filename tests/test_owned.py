"""One owner a folder: processes that record or sweep into one folder at once lose nothing and mix nothing, and no killed one blocks it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from forked import Say, forked
from scored import n_scores

from vlm_analysis import Cancelled, LoadedModel, PromptSet, PruneMask, Recording, files, open_recording, record, sweep
from vlm_analysis.errors import RecordingError
from vlm_analysis.evaluation.run.sweep import score_header
from vlm_analysis.evaluation.scores import ScoreStore
from vlm_analysis.files import LOCK, NAMED, Owner, myself, owned, owner_of

ROOT = Path(__file__).resolve().parents[1]
MASKS = [PruneMask(16, (layer,)) for layer in (3, 4, 9)]
BEGIN = """
import os, signal, sys, time
from pathlib import Path
import vlm_analysis.recording.record
from vlm_analysis import PruneMask, load_model, open_prompts, record, save_recording, sweep
vlm_analysis.recording.record.FLUSH_S = 0
prompts = open_prompts("math")[:3] + open_prompts("general")[:3]
loaded, folder, out = load_model(), Path(sys.argv[1]), Path(sys.argv[2])
"""
RECORD = (
    BEGIN
    + """
def report(done, total, message):
    print(done, message, flush=True)
    time.sleep(0.05)
save_recording(record(loaded, prompts, folder=folder, on_progress=report), out)
"""
)
SWEEP = (
    BEGIN
    + """
masks = [PruneMask(16, (layer,)) for layer in (3, 4, 9)]
def report(done, total, message):
    print(done, message, flush=True)
for made in sweep(loaded, prompts, masks[::-1] if out.name == "turned" else masks, batch_size=2, folder=folder, on_progress=report):
    pass
"""
)


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(process: subprocess.Popen[str], line: str | tuple[str, ...]) -> None:
    """Wait until the process says a line that begins so."""
    assert process.stdout is not None
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None


def ended(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return out


def nobody_waits(owner: Owner | None) -> None:
    raise AssertionError(f"waited for {owner}")


class Waited(Exception):  # noqa: N818 - what ends the waiting
    pass


def give_up(owner: Owner | None) -> None:
    raise Waited(str(owner))


@pytest.fixture(params=["lock", "name"])
def _kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "name":  # as where the system has no such locks
        monkeypatch.setattr(files, "fcntl", None)


@pytest.mark.usefixtures("_kind")
class TestOwned:
    def test_another_waits_and_is_told_for_whom(self, tmp_path: Path) -> None:
        with owned(tmp_path, nobody_waits) as hold:
            assert hold.stands()
            assert owner_of(tmp_path) == myself()
            with pytest.raises(Waited, match="other work of this process"), owned(tmp_path, give_up):
                pass
        assert not list(tmp_path.iterdir())
        with owned(tmp_path, nobody_waits):
            pass

    def test_one_thread_at_a_time_is_inside(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "POLL_S", 0.0005)
        inside, seen = [0], []

        def work() -> None:
            for _ in range(20):
                with owned(tmp_path, lambda owner: None):
                    inside[0] += 1
                    seen.append(inside[0])
                    inside[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [1] * 80

    def test_who_is_killed_blocks_nobody(self, tmp_path: Path) -> None:
        named = "" if files.fcntl else "files.fcntl = None\n"
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom vlm_analysis import files\n"
            f"{named}with files.owned(Path(sys.argv[1]), print):\n    print('owns', flush=True)\n    time.sleep(100)\n"
        )
        process = started(code, tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "owns\n"
        found = owner_of(tmp_path)
        assert found is not None
        assert (found.pid, str(found)) == (process.pid, f"process {process.pid}")
        assert abs(found.started - time.time()) < 60
        with pytest.raises(Waited, match=f"process {process.pid}"), owned(tmp_path, give_up):
            pass
        process.kill()
        process.communicate()
        with owned(tmp_path, lambda owner: None) as hold:
            assert hold.stands()

    def test_a_hold_on_a_folder_that_is_made_anew_no_longer_stands(self, tmp_path: Path) -> None:
        with owned(tmp_path, nobody_waits) as old:
            for path in tmp_path.iterdir():
                path.unlink()
            assert not old.stands()
            with owned(tmp_path, nobody_waits) as new:
                assert new.stands()
                assert not old.stands()


def test_the_lock_by_name_of_another_host_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    (tmp_path / NAMED).write_text('{"pid": 1, "host": "elsewhere.invalid", "started": 0}')
    with pytest.raises(Waited, match=r"process 1 on elsewhere\.invalid"), owned(tmp_path, give_up):
        pass
    assert (tmp_path / NAMED).exists()


class TestRecordingAtOnce:
    def test_two_threads_give_what_one_gives_and_the_second_runs_nothing(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        begun, told = threading.Event(), list[str]()

        def first(done: int, total: int, message: str) -> None:
            if done == 1:
                begun.set()
                time.sleep(0.05)  # with its rows unfinished, so that the other one finds them owned

        made = list[Recording]()
        thread = threading.Thread(
            target=lambda: made.append(record(loaded, few, folder=tmp_path / "rows", on_progress=first))
        )
        thread.start()
        assert begun.wait(60)
        made.append(
            record(
                loaded, few, folder=tmp_path / "rows", on_progress=lambda done, _, said: told.append(f"{done} {said}")
            )
        )
        thread.join()
        alone = record(loaded, few)
        assert [one.rows.tobytes() for one in made] == [alone.rows.tobytes()] * 2
        assert told[0] == "0 waiting for other work of this process, which records the same prompts"
        assert told[-1] == "6 recording"
        assert "0 recording" not in told

    @pytest.mark.slow  # in two threads above; a process beside another below
    def test_two_processes_give_what_one_gives_to_the_last_bit(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        process = started(RECORD, tmp_path / "rows", tmp_path / "one.npz")
        begun(process, "1 ")
        told: list[str] = []
        here = record(
            loaded, few, folder=tmp_path / "rows", on_progress=lambda done, _, said: told.append(f"{done} {said}")
        )
        ended(process)
        alone = record(loaded, few)
        for made in (open_recording(tmp_path / "one.npz"), here):
            assert made.rows.tobytes() == alone.rows.tobytes()
            for domain, part in alone.activations.items():
                assert made.activations[domain].n_prompts == part.n_prompts
                np.testing.assert_allclose(made.activations[domain].sums, part.sums, rtol=1e-12)
        assert told[-1] == "6 recording"
        assert "0 recording" not in told  # the second ran nothing
        assert not (tmp_path / "rows" / LOCK).exists()

    def test_when_the_owner_is_killed_the_other_goes_on_with_its_rows(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vlm_analysis.recording.record.FLUSH_S", 0)

        def stops(say: Say) -> None:
            def report(done: int, total: int, message: str) -> None:
                say(done)
                if done == 3:
                    os.kill(os.getpid(), signal.SIGSTOP)

            record(loaded, few, folder=tmp_path, on_progress=report)

        told: list[tuple[int, str]] = []
        with forked(stops) as owner:
            owner.waits_to_say("3")

            def report(done: int, total: int, message: str) -> None:
                told.append((done, message))
                if len(told) == 3:
                    os.kill(owner.pid, signal.SIGKILL)
                    owner.ended()

            made = record(loaded, few, folder=tmp_path, on_progress=report)
            assert told[0] == (0, f"waiting for process {owner.pid}, which records the same prompts")
            assert next(done for done, message in told if message == "recording") in (3, 4)
            assert made.rows.tobytes() == record(loaded, few).rows.tobytes()

    def test_waiting_can_be_cancelled(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        def stop(done: int, total: int, message: str) -> None:
            assert message == "waiting for other work of this process, which records the same prompts"
            raise Cancelled

        with owned(tmp_path, nobody_waits), pytest.raises(Cancelled):
            record(loaded, few, folder=tmp_path, on_progress=stop)

    def test_rows_cut_under_a_finished_recording_are_an_error_and_no_signal(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path
    ) -> None:
        record(loaded, few[:2], folder=tmp_path)
        os.truncate(tmp_path / "rows.bin", 5000)
        with pytest.raises(RecordingError, match=r"is damaged .*Delete the folder and record again"):
            record(loaded, few[:2], folder=tmp_path)


class TestSweepsAtOnce:
    @pytest.mark.slow  # `make test` has the kill below, which ends in the same check
    def test_two_processes_lose_and_mix_nothing(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        for process in [started(SWEEP, tmp_path / "scores", tmp_path / name) for name in ("straight", "turned")]:
            ended(process)
        self.check(loaded, few, tmp_path)

    @pytest.mark.slow  # a recording is killed above
    def test_when_one_is_killed_the_other_goes_on(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        process = started(SWEEP, tmp_path / "scores", tmp_path / "straight")
        begun(process, ("1 part", "2 part", "3 part"))
        for _ in sweep(
            loaded, few, MASKS[::-1], batch_size=2, folder=tmp_path / "scores", on_progress=lambda *_: process.kill()
        ):
            pass
        process.communicate()
        self.check(loaded, few, tmp_path)

    def check(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
        """Assert that the folder holds what a sweep alone gives, each record once."""
        list(sweep(loaded, few, MASKS, batch_size=2, folder=tmp_path / "alone"))
        stores = [ScoreStore(16, 6, tmp_path / name, score_header(loaded, few, 2)) for name in ("scores", "alone")]
        for mask in MASKS:
            here, alone = (store.of(mask.key) for store in stores)
            assert len(here) == 6
            assert here == alone
        assert [n_scores(tmp_path / name) for name in ("scores", "alone")] == [3 * 6, 3 * 6]


@pytest.mark.slow
class TestManyTimes:
    @pytest.mark.parametrize("turn", range(10))
    def test_pairs(self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, turn: int) -> None:
        TestRecordingAtOnce().test_two_processes_give_what_one_gives_to_the_last_bit(loaded, few, tmp_path)
        TestSweepsAtOnce().test_two_processes_lose_and_mix_nothing(loaded, few, tmp_path)

    @pytest.mark.parametrize("turn", range(12))
    def test_kills_of_whoever_owns_the_folder(
        self, loaded: LoadedModel, few: PromptSet, tmp_path: Path, turn: int
    ) -> None:
        folder = tmp_path / "rows"
        pair = [started(RECORD, folder, tmp_path / f"{place}.npz") for place in range(2)]
        while (owner := owner_of(folder)) is None:
            time.sleep(0.001)
        time.sleep(0.05 * turn)
        os.kill(owner.pid, signal.SIGKILL)
        (left,) = (place for place, process in enumerate(pair) if process.pid != owner.pid)
        pair[1 - left].communicate()
        ended(pair[left])
        made, alone = open_recording(tmp_path / f"{left}.npz"), record(loaded, few)
        assert made.rows.tobytes() == alone.rows.tobytes()
        assert [part.n_prompts for part in made.activations.values()] == [3, 3]
