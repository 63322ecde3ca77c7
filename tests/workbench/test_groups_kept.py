"""Groups go with the prompts: into recordings, evaluations, damage, comparisons and their files, and newer ones replace older."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vlm_analysis import (
    Bench,
    Evaluation,
    LoadedModel,
    PromptSet,
    PruneMask,
    Recording,
    compare_masks,
    evaluate,
    many_masks,
    open_evaluation,
    open_recording,
    read_damage,
    record,
    retention_interval,
    save_evaluation,
    save_recording,
)
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture(scope="module")
def asked(few: PromptSet) -> PromptSet:
    """Six prompts with their own pictures, and two more questions on the first."""
    more = [replace(few[0], id=name, question=f"is there a {name}?", answer="yes") for name in ("circle", "square")]
    return few + PromptSet(more)


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, asked: PromptSet) -> Recording:
    return record(loaded, asked)


@pytest.fixture(scope="module")
def dense(loaded: LoadedModel, asked: PromptSet) -> Evaluation:
    return evaluate(loaded, asked)


def test_a_recording_keeps_them_in_its_file(recording: Recording, asked: PromptSet, tmp_path: Path) -> None:
    again = open_recording(save_recording(recording, tmp_path / "one.npz"))
    assert again.groups == recording.groups == asked.groups.names
    assert again.ties == recording.ties
    assert set(recording.ties) == asked.groups.known


def test_evaluations_and_damage_keep_them_and_their_file(loaded, asked, dense: Evaluation, tmp_path: Path) -> None:
    pruned = evaluate(loaded, asked, PruneMask(16, (5,)), reference=dense)
    again = open_evaluation(save_evaluation(pruned, tmp_path / "one.json"))
    for one in (dense, pruned, again):
        assert one.shared_groups == asked.groups.names
    assert (dense.n_groups, dense.groups_by_domain) == (6, {"math": 3, "general": 3})
    assert read_damage([pruned], loaded.info).groups == asked.groups.names
    assert all(end != end for end in retention_interval(pruned, dense, "math"))  # five prompts, three groups


def test_prompts_with_their_own_pictures_leave_no_trace_of_groups(loaded: LoadedModel, few: PromptSet) -> None:
    assert "group" not in evaluate(loaded, few[:2]).by_prompt
    assert record(loaded, few[:2]).groups == ()


def test_another_question_on_a_picture_is_no_fresh_prompt(loaded, few: PromptSet, asked: PromptSet) -> None:
    recording = record(loaded, PromptSet([few[0], few[3]]))
    ways, _ = many_masks(recording, [1], criteria=["block-influence"], strategies=["first-k"], locks=loaded.locks)
    comparison = compare_masks(loaded, PromptSet([asked[6], few[1]]), ways, recording=recording)
    assert comparison.n_shared == 1


def test_groups_that_are_given_later_replace_those_of_what_is_known(loaded, few: PromptSet, tmp_path: Path) -> None:
    bench, shelf = Bench(loaded, tmp_path), Workspace(tmp_path)
    assert bench.recording(few[:2]).groups == ()
    grouped = PromptSet(replace(prompt, group="all") for prompt in few[:2])
    assert bench.recording(grouped).groups == ("all", "all")
    bench.dense(few[:2])
    assert bench.scores(grouped, [PruneMask(16, (5,))])[0].shared_groups == ("all", "all")
    items = [keep_prompts(shelf, prompts, "mine") for prompts in (few[:2], grouped, grouped)]
    assert items[0] != items[1] == items[2]
