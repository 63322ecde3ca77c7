"""Kill a real server and its workers while they work, and let pairs of processes share a workspace; nothing may be lost or mixed.

    python -m tests.hostile.kills [SERVERS] [WORKERS] [PAIRS]

A worker is a process that makes the calls of a job (`Bench`), a server the dashboard with a browser that pressed "Try the demo". Each is
ended by SIGKILL at a moment drawn by chance. After each kill every listed item must open, and no fewer rows and scores may be there than
before. At the end the work is done once more, without a kill: its numbers must equal, to the last bit, those of work that was never killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis import Bench, LoadedModel, PromptSet, PruneMask, StrataError, load_model, open_prompts
from vlm_analysis.evaluation.scores import FILE
from vlm_analysis.workbench.checkup import check_up
from vlm_analysis.workbench.workspace import Workspace

MASKS = [PruneMask(16, (layer,)) for layer in range(4, 12)]
SERVERS, WORKERS, PAIRS = 12, 52, 10
DEMO_S = 40.0  # a demo's time, about, on a busy machine


@dataclass(frozen=True)
class Work:
    """The model, prompts and masks that every worker works on, and what comes of it without a kill."""

    loaded: LoadedModel
    prompts: PromptSet
    expected: dict[str, Any]

    @classmethod
    def made(cls, folder: Path) -> Work:
        loaded, prompts = load_model(), open_prompts("math")[:12] + open_prompts("general")[:12]
        work = cls(loaded, prompts, {})
        began = time.monotonic()
        work.run(folder)
        work.expected.update(work.results(folder), seconds=time.monotonic() - began)
        return work

    def run(self, folder: Path) -> None:
        """Make the calls of a job: record, evaluate the dense model, score masks, keep a mask's evaluation."""
        bench = Bench(self.loaded, folder)
        bench.record(self.prompts, "made")
        bench.scores(self.prompts, MASKS)
        bench.evaluate(self.prompts, MASKS[0])

    def results(self, folder: Path) -> dict[str, Any]:
        """Return the numbers that are found in a workspace, measuring what is missing."""
        bench = Bench(self.loaded, folder)
        scores = bench.scores(self.prompts, MASKS)
        numbers = [one.by_prompt[["answer_nll", "kl_to_dense", "token_agreement"]].to_numpy(float) for one in scores]
        return {"rows": bench.recording(self.prompts).rows.tobytes(), "scores": np.stack(numbers).tobytes()}

    def check(self, folder: Path) -> None:
        """Assert that a workspace holds what work without a kill gives."""
        found = self.results(folder)
        for name, value in found.items():
            assert value == self.expected[name], f"other {name} than without a kill"


def check_whole(folder: Path) -> None:
    """Assert that every saved item opens, and none is damaged."""
    damaged = check_up(Workspace(folder)).damaged
    assert not damaged, damaged


def n_kept(folder: Path) -> int:
    """Return how many rows and scores lie in the unfinished work of a workspace, and how many items it has."""
    from scored import n_scores

    rows = 0
    for sums in folder.glob("unfinished/*/sums.npz"):
        with suppress(FileNotFoundError), np.load(sums) as stored:
            rows += json.loads(stored["meta"].tobytes())["n_rows"]
    items = sum(len(list(folder.glob(f"{kind}/*.item.json"))) for kind in ("recordings", "evaluations"))
    return rows + (n_scores(folder) if list(folder.rglob(FILE)) else 0) + 1000 * items


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a forked process of its own group; returns its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        work()
        code = 0
    except StrataError as error:
        print(error, file=sys.stderr)
    finally:
        os._exit(code)


def kill_workers(work: Work, folder: Path, count: int, draw: random.Random) -> None:
    """Kill workers that go on with each other's work, in one workspace after the other."""
    kept, home = 0, folder / "0"
    for turn in range(count):
        number = forked(lambda home=home: work.run(home))  # type: ignore[misc]
        time.sleep(draw.uniform(0.02, 0.9 * work.expected["seconds"]))
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        assert code in (0, -signal.SIGKILL), f"kill {turn}: the worker ended with {code}"
        check_whole(home)
        now = n_kept(home)
        assert now >= kept, f"kill {turn}: {kept} rows, scores and items before, {now} after"
        kept = now
        if code == 0 or turn % 6 == 5:  # it ended before, or was killed often enough
            work.check(home)
            kept, home = 0, folder / str(turn + 1)
    work.check(home)


def run_pairs(work: Work, folder: Path, count: int, draw: random.Random) -> None:
    """Let two workers share a workspace; in every other pair one of them is killed."""
    for turn in range(count):
        home = folder / f"pair-{turn}"
        numbers = [forked(lambda home=home: work.run(home)) for _ in range(2)]  # type: ignore[misc]
        if turn % 2:
            time.sleep(draw.uniform(0.05, work.expected["seconds"]))
            with suppress(ProcessLookupError):
                os.kill(numbers[0], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) for number in numbers]
        assert codes[1] == 0, f"pair {turn}: the worker left over ended with {codes[1]}"
        assert codes[0] in (0, -signal.SIGKILL), f"pair {turn}: {codes[0]}"
        check_whole(home)
        work.check(home)


def kill_servers(folder: Path, count: int, draw: random.Random) -> None:
    """Kill servers that go on with the same demo, then let it end, and compare it with a demo that was never killed."""
    from tools import serving

    home = folder / "home"
    home.mkdir(parents=True)
    with serving.chromium() as browser:
        for turn in range(count + 1):
            process, url = serving.started_server(home)
            try:
                page = browser.new_page()
                page.set_default_timeout(300_000)
                page.goto(url)
                serving.idle(page)
                page.get_by_role("button", name="Try the demo").click()
                page.get_by_role("button", name="Cancel", exact=True).first.wait_for()
                if turn == count:
                    page.get_by_role("button", name="Present", exact=True).wait_for()
                else:
                    time.sleep(draw.uniform(0, DEMO_S * (turn + 1) / count))
                page.close()
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            check_whole(home / ".strata")
    alone = Bench(load_model(), folder / "alone")
    told = [alone.open(alone.demo()), Bench(load_model(), home / ".strata").open(_newest(home / ".strata"))]
    for name in told[0].scores:
        assert told[0].scores[name].tobytes() == told[1].scores[name].tobytes(), f"other {name} than without a kill"


def _newest(folder: Path) -> Any:
    item = Workspace(folder).newest("comparisons")
    assert item is not None
    return item


def main(servers: int = SERVERS, workers: int = WORKERS, pairs: int = PAIRS) -> None:
    """Kill and count; raises AssertionError where something was lost or mixed."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = Work.made(folder / "alone-too")
        run_pairs(work, folder / "pairs", pairs, draw)
        print(f"{pairs} pairs of processes on one workspace: nothing lost or mixed", flush=True)
        kill_workers(work, folder / "workers", workers, draw)
        print(f"{workers} kills of workers: nothing lost or mixed", flush=True)
        if servers:
            kill_servers(folder / "servers", servers, draw)
            print(f"{servers} kills of servers: nothing lost or mixed", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own helpers
    main(*map(int, sys.argv[1:]))
