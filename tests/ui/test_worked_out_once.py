"""A page runs again at every click: what it works out of saved work is worked out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from acting import OpenPage, put, ran, words
from compared import dense_of

from tools.made import made_recording
from vlm_analysis import Evaluation, PruneMask
from vlm_analysis.ui.common.session import workspace
from vlm_analysis.ui.evaluate import outcome
from vlm_analysis.ui.similarity import rankview
from vlm_analysis.workbench.shelf import keep_evaluation, keep_recording
from vlm_analysis.workbench.workspace import Workspace

DENSE = dense_of(np.arange(12) % 4 > 0, ["one"] * 6 + ["other"] * 6)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[str]]:
    """Note the calls of a function of a module: its name, once a call."""
    noted: list[str] = []

    def watch(module: Any, name: str) -> list[str]:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: (noted.append(name), real(*args, **more))[1])
        return noted

    return watch


def test_the_numbers_of_an_evaluation(open_page: OpenPage, calls: Callable[[Any, str], list[str]]) -> None:
    worked = ("answer_changes", "score_intervals", "telling_score_of", "retention_interval", "outcome_frame")
    for name in worked:
        noted = calls(outcome, name)
    edited = replace(DENSE, edit=PruneMask(8, [3]), by_prompt=DENSE.by_prompt.assign(exact_match=np.arange(12) % 3 > 0))
    keep_evaluation(workspace(), DENSE, "dense")
    keep_evaluation(workspace(), edited, "edited")
    at = open_page("pages/5_evaluate.py")
    first, said = sorted(noted), words(at)
    assert set(first) == set(worked)
    assert words(ran(at)) == said
    assert sorted(noted) == first
    keep_evaluation(workspace(), replace(edited, edit=PruneMask(8, [4])), "another")
    at.session_state["chosen:evaluations"] = workspace().items("evaluations")[0].id
    ran(at)
    assert sorted(noted) == sorted(first * 2)


def test_what_prompts_tell_of_an_order(open_page: OpenPage, calls: Callable[[Any, str], list[str]]) -> None:
    noted = calls(rankview, "rank_stability")
    noted = calls(rankview, "stability_words")
    keep_recording(workspace(), made_recording(8, ["one", "other"]), "made")
    at = put(open_page("pages/3_similarity.py"), similarity_tab="Explain")
    assert noted == ["rank_stability", "stability_words"]
    put(at, candidate_budget=2)
    assert noted == ["rank_stability", "stability_words", "stability_words"]
    put(at, score_criterion="mixed")
    assert noted.count("rank_stability") == 2


def test_the_means_of_an_evaluation_which_a_caller_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = replace(DENSE)
    means = evaluation.by_domain
    means["n"] = 0
    assert evaluation.by_domain["n"].tolist() == [6, 6]
    monkeypatch.setattr(type(evaluation.by_prompt), "groupby", None)
    assert evaluation.by_domain.loc["one", "exact_match"] == 4 / 6


def test_without_a_model_nobody_asks_whose_work_there_is(open_page: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, items = [], Workspace.items
    monkeypatch.setattr(Workspace, "items", lambda shelf, kind: (listed.append(kind), items(shelf, kind))[1])
    open_page("pages/1_model.py")
    assert not {"comparisons", "masks", "stories"} & set(listed)


def test_evaluations_are_told_apart_by_more_than_their_edit(open_page: OpenPage) -> None:
    open_page("app.py")
    found: list[Evaluation] = [outcome.outcome_of(one, DENSE)[0].dense for one in (DENSE, replace(DENSE))]
    assert found == [DENSE, DENSE]
    assert outcome.outcome_of(DENSE, DENSE)[0] is outcome.outcome_of(DENSE, DENSE)[0]
    assert outcome.outcome_of(DENSE, DENSE)[0] is not outcome.outcome_of(replace(DENSE), DENSE)[0]
