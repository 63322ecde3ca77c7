"""Pooled states of tasks: those of a plain walk through the layers, kept with the rows and in the file, and missing in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import ask, walk

from vlm_analysis import Cancelled, LoadedModel, PromptSet, Recording, open_recording, record, save_recording
from vlm_analysis.errors import RecordingError
from vlm_analysis.recording.extending import extendable
from vlm_analysis.recording.pooled import MOST_TASKS, is_pooled, pooled_of
from vlm_analysis.recording.tasks import lacks_pooled, pooled_rows

TASKS = ("count", "read", "count", "name", "read", "name")


@pytest.fixture(scope="module")
def asked(few: PromptSet) -> PromptSet:
    return PromptSet(replace(prompt, task=task) for prompt, task in zip(few, TASKS, strict=True))


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, asked: PromptSet) -> Recording:
    return record(loaded, asked)


def test_they_are_the_means_over_tokens_then_over_prompts_of_a_plain_walk(recording, loaded, asked) -> None:
    assert list(recording.pooled) == [("math", "count"), ("math", "read"), ("general", "name"), ("general", "read")]
    inputs, outputs = walk(loaded, ask(loaded, asked[1]))
    rows = pooled_rows(recording)
    assert rows.shape == (4, 17, inputs[0].shape[-1])
    for layer, states in enumerate([*inputs, outputs[-1]]):
        np.testing.assert_allclose(rows[1, layer], np.asarray(states).mean(axis=0), rtol=1e-4, atol=1e-5)
    alone = [pooled_rows_of(loaded, asked, place) for place in (0, 2)]
    np.testing.assert_allclose(rows[0], np.mean(alone, axis=0), rtol=1e-4, atol=1e-5)


def pooled_rows_of(loaded: LoadedModel, asked: PromptSet, place: int) -> np.ndarray:
    inputs, outputs = walk(loaded, ask(loaded, asked[place]))
    return np.stack([np.asarray(states).mean(axis=0) for states in (*inputs, outputs[-1])])


def test_they_are_in_the_file_and_opened_again(recording: Recording, tmp_path: Path) -> None:
    again = open_recording(save_recording(recording, tmp_path / "one.npz"))
    np.testing.assert_array_equal(pooled_rows(again), pooled_rows(recording))
    assert not lacks_pooled(again)


def test_a_recording_taken_up_holds_the_same(loaded, asked, recording, tmp_path: Path) -> None:
    def stop(done: int, total: int, message: str) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        record(loaded, asked, folder=tmp_path, on_progress=stop)
    np.testing.assert_allclose(pooled_rows(record(loaded, asked, folder=tmp_path)), pooled_rows(recording), rtol=1e-12)


def test_one_without_them_is_not_extended_where_they_can_be_had(loaded, asked, recording) -> None:
    without = replace(recording, pooled={})
    assert lacks_pooled(without)
    assert extendable([without], loaded, asked) is None
    assert extendable([without, recording], loaded, asked) is recording
    plain = PromptSet(replace(prompt, task=None) for prompt in asked)
    assert extendable([without], loaded, plain) is without
    with pytest.raises(RecordingError, match="the mean states of tasks"):
        record(loaded, asked, known=without)


def test_few_tasks_many_tasks_and_none_are_not_pooled() -> None:
    full = {"full": True}
    assert not is_pooled([("a", ""), ("b", ""), ("c", "")], full)
    assert not is_pooled([("a", "x"), ("a", "y")], full)
    assert is_pooled([("a", "x"), ("a", "y"), ("a", "")], full)
    assert not is_pooled([("a", "x"), ("a", "y"), ("a", "")], {"full": False})
    assert not is_pooled([("a", str(number)) for number in range(MOST_TASKS + 1)], full)


def test_a_file_with_a_task_twice_is_damaged() -> None:
    with pytest.raises(ValueError, match="that differ, got one twice"):
        pooled_of([["a", "x", 1], ["a", "x", 1]], None, 3)  # type: ignore[arg-type]
