"""A worker of a cluster, asked here by its messages: what it measures of a part is what one process measures of the whole, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import (
    Bench,
    Cancelled,
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    evaluate,
    record,
    scan_vision,
    sweep,
)
from vlm_analysis.evaluation.run.scan import prepare_scan
from vlm_analysis.evaluation.scanfile import save_scan
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

    def hand_out(  # type: ignore[override]
        self, loaded: object, model: object, parts: list[Part], waiting: Callable[[], object]
    ) -> None:
        for number, part in enumerate(parts[::-1]):  # in no order
            for _ in range(1 + (number % 3 == 0)):
                message = part.message()
                if message is None:
                    continue
                name, arguments = message
                assert {type(one) for one in arguments} == {bytes}, "nothing is left for Ray to pickle"
                self.n_asked += 1
                for data in getattr(self.workers[number % 2], name)(*arguments):
                    answer = unpacked(data, ANSWER)
                    assert not answer.get("bug"), answer
                    part.take(answer, data)
                    waiting()


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


@pytest.fixture
def seven_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vision tokens can skip the first three layers alone, and batches are of two."""
    monkeypatch.setattr("vlm_analysis.evaluation.run.scan.batch_for", lambda loaded: 2)
    monkeypatch.setattr("vlm_analysis.models.layers.vision_locked", lambda model: dict.fromkeys(range(3, 8), "odd"))


@pytest.mark.usefixtures("seven_ways")
def test_a_scan_of_workers_is_that_of_one_process_and_goes_on_where_it_was_stopped(
    small: LoadedModel, asked: PromptSet
) -> None:
    asked = asked[:1] + asked[-2:-1]  # and one with three accepted answers
    bench, crew, stop = Bench(small, Workspace()), Here(small), [True]
    bench._crew = crew

    def cancel(done: int, total: int, message: str) -> None:
        if stop and "edits" in message and done > total // 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        bench.scan(asked, on_progress=cancel)
    (folder,) = (bench.workspace.root / "unfinished").iterdir()
    n_kept, crew.n_asked, said = len(list(folder.iterdir())), 0, list[tuple[int, int]]()
    stop.clear()
    item = bench.measure_scan(asked, on_progress=lambda done, total, message: said.append((done, total)))
    expected = save_scan(scan_vision(small, asked), bench.workspace.root / "here.npz")
    assert item.path.read_bytes() == expected.read_bytes()
    n_parts = len(prepare_scan(small, asked).parts)
    assert 1 <= n_kept < n_parts
    assert crew.n_asked == n_parts - n_kept, "what was kept was measured again"
    assert said[-1] == (7 * n_parts, 7 * n_parts)


def test_damage_of_workers_is_that_of_one_process(small: LoadedModel, few: PromptSet) -> None:
    here, there = Bench(small, Workspace()), Bench(small, Workspace(), project="there")
    crew = there._crew = Here(small)
    found, expected = (one.damage(few[:2]) for one in (there, here))
    assert crew.n_asked
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    assert np.isfinite(expected.values["kl_to_dense"]).any()


def test_a_contest_of_workers_is_that_of_one_process(small: LoadedModel, few: PromptSet) -> None:
    asked: dict[str, Any] = {"kinds": ["depth", "width", "mix"], "fast": True}
    here, there = Bench(small, Workspace()), Bench(small, Workspace(), project="there")
    crew = there._crew = Here(small)
    found, expected = (one.open(one.contest(few[:2], few[2:4], 0.1, **asked)) for one in (there, here))
    assert crew.n_asked > 3
    crew.workers.clear()  # which closes their files
    assert [entry.title for entry in expected.entries] == asked["kinds"]
    for one, other in zip(found.entries, expected.entries, strict=True):
        assert (one.edit, one.method, one.chosen_score) == (other.edit, other.method, other.chosen_score)
        pd.testing.assert_frame_equal(one.evaluation.by_prompt, other.evaluation.by_prompt, check_exact=True)
    assert found.verdict() == expected.verdict()


@pytest.mark.usefixtures("seven_ways")
def test_a_prompt_that_the_model_refuses_there_is_set_aside_in_a_scan_too(small: LoadedModel, few: PromptSet) -> None:
    def check(module: Any, args: Any) -> None:
        if args[0].shape[1] > 300:
            raise ValueError("sequence length is too long")

    endless = Prompt(few[0].images, "how many circles? " * 100, "math", "endless", "1")
    bench = Bench(small, Workspace())
    bench._crew = Here(small)
    handle = small.model.get_decoder().rotary_emb.register_forward_pre_hook(check)
    try:
        found, expected = (work(PromptSet([few[0], endless])) for work in (bench.scan, partial(scan_vision, small)))
    finally:
        handle.remove()
    assert list(found.set_aside) == list(expected.set_aside) == ["endless"]
    assert "too long" in found.set_aside["endless"]
    pd.testing.assert_frame_equal(found.by_prompt[expected.by_prompt.columns], expected.by_prompt, check_exact=True)


def test_a_worker_tells_what_it_cannot_load_and_what_failed_in_words() -> None:
    worker = Worker()
    (data,) = worker.load(packed({"source": "/nowhere/at/all", "options": {}, "threads": 1}))
    assert "No model at" in unpacked(data, ANSWER)["error"]
    assert unpacked(packed({"source": "x", "options": {}, "threads": 1}), MODEL)
    (data,) = worker.score(b"", b"")
    assert "AssertionError" in unpacked(data, ANSWER)["bug"]
