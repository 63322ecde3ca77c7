"""The contest as a value: its numbers against a calculation of their own, which kind it says keeps most, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import (
    Adapt,
    Contest,
    Drop,
    Edit,
    Entry,
    Evaluation,
    Narrow,
    PruneMask,
    Tensors,
    open_contest,
    save_contest,
)
from vlm_analysis.errors import EvaluationError
from vlm_analysis.model_info import LayerWidth, ModelInfo
from vlm_analysis.selection.contest.contest import chosen_score

N = 40
MODEL = ModelInfo(
    "m", "f" * 64, 4, layer_parameters=(40, 60, 60, 40), n_parameters=300, widths=(LayerWidth(4, 0, 5, 0),) * 4
)
DOMAINS = ["math"] * 24 + ["general"] * 16
DEPTH, WIDTH = PruneMask(4, (1,)), Edit(4, (Narrow({0: [0], 1: [0], 2: [0], 3: [0]}),))
HELD = Tensors.of({"down_proj": np.eye(2, dtype=np.float32)})
TUNED = Edit(4, (Drop((1,)), Adapt(HELD, ("mlp",), 1.0, learnt_on=DEPTH.key)))
RIGHT = {
    "dense": np.arange(N) % 8 > 0,
    "depth": np.arange(N) % 4 > 0,
    "width": np.arange(N) % 3 == 0,
    "tuned": np.arange(N) % 8 > 1,
}


def evaluation(edit: Edit, right: np.ndarray, kl: float = 0.1) -> Evaluation:
    frame = pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(N)],
            "domain": DOMAINS,
            "exact_match": right,
            "answer_nll": 0.5 + 0.01 * np.arange(N),
            "token_agreement": np.where(right, 1.0, 0.5),
            "kl_to_dense": kl + 0.01 * np.arange(N),
            "answer": "four",
            "answer_source": "given",
            "answer_ids": [[1]] * N,
        }
    )
    return Evaluation(edit, MODEL, "r" * 64, frame)


DENSE = evaluation(Edit(4), RIGHT["dense"], 0.0)
OF_DEPTH = Entry("depth", "greedy by KL", evaluation(DEPTH, RIGHT["depth"]), chosen_score=0.9, tried=7)
OF_WIDTH = Entry("width", "global", evaluation(WIDTH, RIGHT["width"]), speedup=(1.5, 1.4, 1.6))
OF_TUNED = Entry("depth", "greedy by KL", evaluation(TUNED, RIGHT["tuned"]), "small")


@pytest.fixture
def contest() -> Contest:
    entries = (OF_WIDTH, OF_DEPTH, OF_TUNED)
    told = {"missing": {"vision": "No parameters go."}, "recovery": {"small": {"seed": 0}}}
    return Contest(0.3, "parameters", DENSE, entries, "c" * 64, 45, **told)  # type: ignore[arg-type]


def test_its_numbers_are_those_of_a_calculation_of_their_own(contest: Contest) -> None:
    table = contest.table().set_index(["kind", "recovered", "domain"])
    places = {"math": slice(0, 24), "general": slice(24, 40), "all domains": slice(0, 40)}
    assert len(table) == 9
    for kind, recovered, name in (("depth", "", "depth"), ("width", "", "width"), ("depth", "small", "tuned")):
        for domain, place in places.items():
            row, right, base = table.loc[(kind, recovered, domain)], RIGHT[name][place], RIGHT["dense"][place]
            assert row["n"] == len(right)
            assert row["retention"] == pytest.approx(right.sum() / base.sum())
            assert row["exact_match"] == pytest.approx(right.mean())
            assert row["kl_to_dense"] == pytest.approx(np.mean(0.1 + 0.01 * np.arange(N)[place]))
            assert row["low"] < row["retention"] < row["high"]
    assert OF_DEPTH.saved == OF_TUNED.saved == pytest.approx(60 / 200)
    assert OF_WIDTH.saved == pytest.approx(4 * 3 * 5 / 200)
    assert table.loc[("width", "", "math"), "speedup"] == 1.5
    assert np.isnan(table.loc[("depth", "", "math"), "speedup"])
    per_domain = [RIGHT["depth"][one].sum() / RIGHT["dense"][one].sum() for one in (places["math"], places["general"])]
    assert chosen_score(OF_DEPTH.evaluation, DENSE) == pytest.approx(np.mean(per_domain))


def test_a_difference_is_told_where_the_paired_interval_is_above_0(contest: Contest) -> None:
    gap = RIGHT["depth"].astype(float) - RIGHT["width"]
    share = gap.sum() / RIGHT["dense"].sum()
    difference, low, high = contest.beside(OF_DEPTH, OF_WIDTH)
    rest = gap - share * RIGHT["dense"]  # the residual of a ratio of sums, each prompt its own group
    error = np.sqrt(N / (N - 1) * (rest**2).sum()) / RIGHT["dense"].sum()
    assert difference == pytest.approx(share)
    assert (high - low) / 2 == pytest.approx(1.6849 * error, rel=1e-4)  # Student's t at 95 % with 39 degrees of freedom
    assert contest.best() is OF_DEPTH
    assert contest.best("small") is OF_TUNED
    says = contest.verdict()
    assert says.startswith(
        "With 30% of the decoder layers' parameters gone, depth keeps most: 86% of the dense model's answers, against 40% by width (+46 "
        f"points, 90 % interval {100 * low:+.0f} to {100 * high:+.0f})."
    )
    assert "With the same fine-tuning (small), depth alone has an entry: it keeps 86%" in says
    assert says.endswith("Vision has no entry: No parameters go.")


def test_equal_answers_are_no_difference_and_less_kl_stands_first(contest: Contest) -> None:
    same = replace(OF_WIDTH, evaluation=evaluation(WIDTH, RIGHT["depth"], 0.05))
    even = replace(contest, entries=(OF_DEPTH, same))
    assert even.best() is same
    assert "no difference can be told: width keeps 86%" in even.verdict()
    assert "keeps most" not in even.verdict()
    close = RIGHT["depth"].copy()
    close[1] = False
    near = replace(contest, entries=(OF_DEPTH, replace(OF_WIDTH, evaluation=evaluation(WIDTH, close))))
    assert "no difference can be told: depth keeps 86%" in near.verdict()
    mixed = replace(contest, entries=(OF_DEPTH, replace(OF_DEPTH, kind="mix"), OF_WIDTH))
    assert "86% by mix, the same edit" in mixed.verdict()
    assert "depth keeps most" in mixed.verdict()


def test_reported_prompts_that_were_chosen_on_are_told(contest: Contest) -> None:
    assert contest.fresh_words() == "Measured on 40 prompts; chosen on 45 others."
    assert "3 of those measured on are among these" in replace(contest, n_shared=3).fresh_words()


@pytest.mark.parametrize(
    "change",
    [
        {"share": 1.5},
        {"of": "luck"},
        {"entries": ()},
        {"entries": (OF_DEPTH, OF_DEPTH)},
        {"entries": (OF_TUNED,)},
        {"entries": (replace(OF_DEPTH, kind="height"),)},
        {"missing": {"height": "why"}},
        {"dense": OF_DEPTH.evaluation},
        {"entries": (replace(OF_DEPTH, evaluation=replace(OF_DEPTH.evaluation, prompts="q" * 64)),)},
        {
            "entries": (
                replace(OF_DEPTH, evaluation=replace(OF_DEPTH.evaluation, model=replace(MODEL, fingerprint="e" * 64))),
            )
        },
    ],
)
def test_what_does_not_fit_together_is_refused(contest: Contest, change: dict[str, object]) -> None:
    with pytest.raises(EvaluationError):
        replace(contest, **change)  # type: ignore[arg-type]


def test_its_file_gives_back_the_same_contest(contest: Contest, tmp_path: Path) -> None:
    again = open_contest(save_contest(contest, tmp_path / "it.json"))
    pd.testing.assert_frame_equal(again.table(), contest.table())
    assert again.verdict() == contest.verdict()
    assert [one.edit.key for one in again.entries] == [one.edit.key for one in contest.entries]
    assert again.entries[0].speedup == (1.5, 1.4, 1.6)
    assert (again.chosen_on, again.n_chosen_on, again.recovery) == ("c" * 64, 45, {"small": {"seed": 0}})
    assert [one.cut for one in again.entries] == [WIDTH, DEPTH, DEPTH]


def test_a_mix_of_one_kind_alone_is_said_to_be_one(contest: Contest) -> None:
    both = Edit(4, (Drop((1,)), Narrow({0: [0]})))
    edits = {"depth": (DEPTH, "depth"), "width": (WIDTH, "width"), "a mix": (both, ""), "tuned": (TUNED, "depth")}
    for edit, alone in edits.values():
        mix = Entry("mix", "greedy", evaluation(edit, RIGHT["depth"]))
        assert mix.alone == alone
        said = replace(contest, entries=(*contest.entries, mix)).verdict()
        assert (f"The best mix found is {alone} alone." in said) == bool(alone)
        assert ("The best mix" in said) == bool(alone)
    assert OF_DEPTH.alone == OF_WIDTH.alone == ""
