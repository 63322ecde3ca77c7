"""Tasks, the level below domains: recorded with the prompts, kept in the file, and a mean of their own for each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlm_analysis import LoadedModel, PromptSet, Recording, open_recording, record, save_recording
from vlm_analysis.errors import RecordingError
from vlm_analysis.export.story import task_sections
from vlm_analysis.recording.tables import prompt_table
from vlm_analysis.recording.tasks import task_similarity, task_table, tasks_of
from vlm_analysis.words import TOKEN_GROUPS
from vlm_analysis.workbench.recordings import in_groups_of

TASKS = ("count", "read", "count", None, "read", None)


@pytest.fixture(scope="module")
def asked(few: PromptSet) -> PromptSet:
    return PromptSet(replace(prompt, task=task) for prompt, task in zip(few, TASKS, strict=True))


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, asked: PromptSet) -> Recording:
    return record(loaded, asked)


def test_a_task_has_the_mean_of_its_own_prompts(recording: Recording) -> None:
    assert list(tasks_of(recording)) == [("math", "count"), ("math", "read"), ("general", ""), ("general", "read")]
    found = task_similarity(recording, "text")
    cosines = recording.rows["cosine"][:, :, TOKEN_GROUPS.index("text")].astype(np.float64)
    for row, prompts in zip(found, ([0, 2], [1], [3, 5], [4]), strict=True):
        np.testing.assert_allclose(row, cosines[prompts].mean(axis=0), rtol=0, atol=1e-12)
    table = task_table(recording).set_index(["domain", "task", "token_group", "layer"])
    assert len(table) == 4 * 5 * 16
    assert table.loc[("math", "count", "text", 7)].tolist() == [2, found[0, 7]]


def test_tasks_of_a_domain_stand_together_wherever_its_prompts_do(recording: Recording) -> None:
    mixed = replace(recording, domains=("a", "b", "a", "b", "a", "b"), tasks=("x", "x", "y", "x", "x", "z"))
    assert {name: indices.tolist() for name, indices in tasks_of(mixed).items()} == {
        ("a", "x"): [0, 4],
        ("a", "y"): [2],
        ("b", "x"): [1, 3],
        ("b", "z"): [5],
    }


def test_they_are_kept_and_recordings_without_them_open(recording: Recording, tmp_path: Path) -> None:
    again = open_recording(save_recording(recording, tmp_path / "tasks.npz"))
    assert again.tasks == recording.tasks == ("count", "read", "count", "", "read", "")
    plain = open_recording(save_recording(replace(recording, tasks=()), tmp_path / "plain.npz"))
    assert (plain.tasks, tasks_of(plain), task_sections(plain)) == ((), {}, [])
    assert task_similarity(plain).shape == (0, 16)
    with pytest.raises(RecordingError, match="expected a task for each of 6 prompts, got 1"):
        replace(recording, tasks=("count",))


def test_a_known_recording_takes_the_tasks_that_its_prompts_have_now(
    recording: Recording, asked: PromptSet, few: PromptSet
) -> None:
    assert asked.fingerprint == few.fingerprint
    assert in_groups_of(recording, few).tasks == ()
    assert in_groups_of(replace(recording, tasks=()), asked).tasks == recording.tasks


def test_reports_and_tables_have_them(recording: Recording) -> None:
    (section,) = task_sections(recording)
    assert section.table is not None
    assert section.table["task"].tolist() == ["count", "read", "", "read"]
    assert section.table["n"].tolist() == [2, 1, 2, 1]
    assert prompt_table(recording)["task"].tolist() == list(recording.tasks)
