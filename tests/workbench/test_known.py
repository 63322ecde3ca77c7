"""What is known of edits is opened without the model: from kept scores and from saved evaluations, and as they were measured."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vlm_analysis import Bench, Edit, LoadedModel, PromptSet, PruneMask, evaluate
from vlm_analysis.evaluation.scores import FILE
from vlm_analysis.workbench.known import Known, find_known
from vlm_analysis.workbench.shelf import keep_evaluation, keep_prompts
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

MASK = PruneMask(16, (5, 9))
METRICS = ["exact_match", "answer_nll", "token_agreement", "kl_to_dense"]


@pytest.fixture(scope="module")
def bench(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(ModelSlot.holding(loaded), Workspace(tmp_path_factory.mktemp("known")))


@pytest.fixture(scope="module")
def item(bench: Bench, few: PromptSet) -> Item:
    """Four saved prompts; one has further accepted answers, of which the last is right."""
    first = replace(few[0], answer="none of it", answers=("at the top", str(few[0].answer)))
    return keep_prompts(bench.workspace, PromptSet([few[3], first, *few[1:3]]), "four")


@pytest.fixture(scope="module")
def known(bench: Bench, item: Item, loaded: LoadedModel) -> Known:
    """What a new reader finds after the mask was evaluated."""
    bench.scores(item, [MASK])
    found = find_known(bench.workspace, loaded.fingerprint, item)
    assert found is not None
    return found


def test_kept_scores_are_opened_as_they_were_measured(bench: Bench, item: Item, known: Known) -> None:
    measured, opened = bench.scores(item, [MASK])[0], known.evaluation(MASK)
    assert opened is not None
    columns = ["id", "domain", *METRICS, "answer", "answer_source"]
    pd.testing.assert_frame_equal(opened.by_prompt[columns], measured.by_prompt[columns])
    assert (opened.edit, opened.prompts, opened.model) == (MASK, measured.prompts, measured.model)
    assert known.evaluation(Edit(16)) is known.dense


def test_what_was_not_measured_is_not_known(bench: Bench, item: Item, known: Known, loaded: LoadedModel) -> None:
    assert known.evaluation(PruneMask(16, (3,))) is None
    assert find_known(bench.workspace, "0" * 64, item) is None
    assert find_known(Workspace(bench.workspace.root / "other"), loaded.fingerprint, item) is None


def test_an_evaluation_that_was_only_saved_is_known_too(loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    shelf, dense = Workspace(tmp_path), evaluate(loaded, few[:2])
    prompts = keep_prompts(shelf, few[:2], "two")
    mask = evaluate(loaded, few[:2], MASK, reference=dense)
    keep_evaluation(shelf, dense, "dense")
    keep_evaluation(shelf, mask, "mask")
    found = find_known(shelf, loaded.fingerprint, prompts)
    assert found is not None
    opened = found.evaluation(MASK)
    assert opened is not None
    assert opened.by_prompt[METRICS].equals(mask.by_prompt[METRICS])


@pytest.mark.parametrize(
    "change", ["UPDATE scores SET kl_to_dense = 7", "DELETE FROM scores WHERE row = 0", "DROP TABLE belongs"]
)
def test_scores_that_were_changed_cut_or_replaced_are_not_believed(known: Known, tmp_path: Path, change: str) -> None:
    copy = tmp_path / FILE
    with sqlite3.connect(known.folders[0] / FILE) as base:
        base.execute("VACUUM INTO ?", (str(copy),))
    there = replace(known, folders=(tmp_path,), saved={})
    assert there.evaluation(MASK) is not None
    with sqlite3.connect(copy) as base:
        base.execute(change)
    assert there.evaluation(MASK) is None


def test_the_time_of_an_evaluation_is_that_of_what_was_seen(bench: Bench, item: Item, known: Known) -> None:
    seen, before = bench._slot.seen, len(bench._slot.seen.took)
    assert before == 2  # the dense model's and the mask's
    bench.scores(item, [MASK])  # known: nothing ran
    bench.scores(item, [PruneMask(16, (3,)), PruneMask(16, (4,))])  # together: of neither alone
    assert len(seen.took) == before
    assert {(prompts, n) for prompts, n, _ in seen.took} == {(item.prompts, 4)}
