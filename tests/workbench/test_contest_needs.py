"""What a contest takes: counted here edit by edit, and its progress, in which a stage that is left out counts as done."""

from __future__ import annotations

from math import ceil

import pytest

from vlm_analysis.model_info import ModelInfo
from vlm_analysis.workbench.budgets import Asked
from vlm_analysis.workbench.contestneeds import ContestNeeds, Stages, stages_of

MODEL = ModelInfo("m", "f" * 64, 8, protected={0: "first", 7: "last"}, layer_parameters=(10,) * 8, n_parameters=90)


def test_a_greedy_search_tries_each_layer_that_is_left_in_each_step() -> None:
    passes = stages_of(MODEL, Asked(0.3, kinds=("depth",)), 10, 20)
    tried = sum(
        len([layer for layer in range(1, 7) if layer > step]) for step in range(3)
    )  # 3 of 8 layers are 30 % and more
    assert tried == 6 + 5 + 4
    assert passes["search depth"] == ceil(tried * 10 * 0.2)
    assert passes["report"] == ceil(20 * (1 + 0.2))
    assert {stage for stage, n in passes.items() if not n} == {"scores", "timing", "search mix"} | {
        f"try {kind}" for kind in ("width", "vision", "mix")
    } | {"search width", "search vision"}


def test_each_more_that_is_asked_takes_longer_and_fast_scores_less() -> None:
    def seconds(share: float = 0.3, **asked: object) -> float:
        question = Asked(share, **asked)  # type: ignore[arg-type]
        return ContestNeeds(stages_of(MODEL, question, 40, 40), 0.5, question.most_s).seconds

    plain = seconds()
    assert seconds(0.5) > plain
    assert seconds(timed=True) > plain
    assert seconds(of="time") > seconds(timed=True)
    assert seconds(recover=("small",)) > seconds(recover=("ridge",)) > plain
    assert seconds(fast=True) < plain
    assert seconds(kinds=("depth", "mix"), most_s=1.0) < seconds(kinds=("depth", "mix"))
    assert seconds(kinds=("depth", "width", "mix")) == plain, "vision saves no parameters"


def test_the_time_is_told_in_a_sentence() -> None:
    assert (
        ContestNeeds({"search mix": 300, "report": 60}, 0.5, 30.0).words().startswith("About 1 min 0 s on this machine")
    )


def test_a_stage_that_is_left_out_counts_as_done() -> None:
    seen: list[tuple[int, int, str]] = []
    stages = Stages(lambda *one: seen.append(one), {"a": 10, "b": 20, "c": 70})
    stages.begin("a", "first")(1, 2, "half")
    stages.begin("c", "last")(3, 7, "on")
    assert seen == [(5, 100, "first: half"), (60, 100, "last: on")]
    with pytest.raises(ValueError, match="is not in list"):
        stages.begin("d", "none")
