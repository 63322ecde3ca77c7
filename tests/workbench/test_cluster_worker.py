"""A worker of a cluster, asked here by its messages: what it measures of a part is what one process measures of the whole, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Bench, LoadedModel, Prompt, PromptSet, PruneMask, evaluate, record, sweep
from vlm_analysis.workbench.cluster.crew import Crew, Part
from vlm_analysis.workbench.cluster.messages import unpacked
from vlm_analysis.workbench.cluster.worker import ANSWER, MODEL, Worker, packed
from vlm_analysis.workbench.workspace import Workspace

EDITS = (PruneMask(8, (3,)), PruneMask(8, (4, 5)))


class Here(Crew):
    """Two workers in this process, which take turns; every third part runs twice, as one whose worker died after its answer."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.workers, self.n_asked = [Worker(), Worker()], 0
        for worker in self.workers:
            worker._loaded = loaded

    @property
    def n_ready(self) -> int:
        return len(self.workers)

    def shared(self, data: bytes) -> bytes:
        return data

    def hand_out(self, loaded: object, model: object, parts: list[Part], waiting: object) -> None:  # type: ignore[override]
        for number, part in enumerate(parts[::-1]):  # in no order
            for _ in range(1 + (number % 3 == 0)):
                message = part.message()
                if message is None:
                    continue
                name, arguments = message
                self.n_asked += 1
                for data in getattr(self.workers[number % 2], name)(*arguments):
                    answer = unpacked(data, ANSWER)
                    assert not answer.get("bug"), answer
                    part.take(answer, data)


@pytest.fixture
def asked(few: PromptSet) -> PromptSet:
    one, two = few[0], few[1]
    choosing = Prompt(one.images, "Which?", answer="red", choices=("red", "blue", "green"), domain="choices", task="x")
    several = Prompt(two.images, "How many?", answers=("2", "two", "3"), domain="answers", task="count")
    return PromptSet([*few, choosing, several, replace(few[0], id="again")])


@pytest.mark.parametrize("batch_size", [1, 2])
def test_rows_and_scores_of_workers_are_those_of_one_process_to_the_last_bit(
    small: LoadedModel, asked: PromptSet, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("evaluation.run.evaluate", "evaluation.run.sweep"):
        monkeypatch.setattr(f"vlm_analysis.{name}.batch_for", lambda loaded: 2)
    monkeypatch.setattr("vlm_analysis.recording.record.CHUNK", 4)
    bench, crew = Bench(small, Workspace()), Here(small)
    bench._crew = crew
    options = {"batch_size": batch_size, "token_maps": True}
    got, whole = bench.recording(asked, **options), record(small, asked, **options)  # type: ignore[arg-type]
    assert got.rows.tobytes() == whole.rows.tobytes()
    assert (got.prompt_ids, got.groups, got.tasks) == (whole.prompt_ids, whole.groups, whole.tasks)
    for domain, part in whole.activations.items():
        np.testing.assert_allclose(got.activations[domain].sums, part.sums, rtol=1e-12)
    n_recorded = crew.n_asked
    assert n_recorded > 2
    dense = evaluate(small, asked)
    for one, expected in zip(bench.scores(asked, EDITS), sweep(small, asked, EDITS, reference=dense), strict=True):
        pd.testing.assert_frame_equal(one.by_prompt, expected.by_prompt, check_exact=True)
    pd.testing.assert_frame_equal(bench.dense(asked).by_prompt, dense.by_prompt, check_exact=True)
    assert crew.n_asked > n_recorded
    n_scored = crew.n_asked
    bench.scores(asked, EDITS)
    assert crew.n_asked == n_scored, "what is known was measured again"


def test_a_worker_tells_what_it_cannot_load_and_what_failed_in_words() -> None:
    worker = Worker()
    (data,) = worker.load(packed({"source": "/nowhere/at/all", "options": {}, "threads": 1}))
    assert "No model at" in unpacked(data, ANSWER)["error"]
    assert unpacked(packed({"source": "x", "options": {}, "threads": 1}), MODEL)
    (data,) = worker.score(b"", b"")
    assert "AssertionError" in unpacked(data, ANSWER)["bug"]
