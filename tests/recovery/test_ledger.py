"""The ledger as a value: its numbers against a calculation of their own, its finding, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vlm_analysis import Adapt, Drop, Edit, Evaluation, Fold, Ledger, PruneMask, Tensors, open_ledger, save_ledger
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.figures.recovered import ledger_bars
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recovery.findings import best_row, fresh_words, headline, returned
from vlm_analysis.recovery.ledger import Row
from vlm_analysis.recovery.ways import check_options, passes_of, steps_of, tuning_in

MODEL = ModelInfo("m", "f" * 64, 8)
DOMAINS = ["math"] * 6 + ["general"] * 4
CUT = PruneMask(8, (2, 3), name="mine")
HELD = Tensors.of({"down_proj": np.eye(2, dtype=np.float32)})
REPAIRED = Edit(8, (Drop((2, 3)), Fold(1, HELD, learnt_on=CUT.key)))
DENSE_TUNED = Edit(8, (Adapt(HELD, ("mlp",), 1.0, learnt_on=Edit(8).key),))
TUNED = Edit(8, (Drop((2, 3)), Adapt(HELD, ("mlp",), 1.0, learnt_on=CUT.key)))
#                 math             general
RIGHT = {
    "dense": [1, 1, 1, 1, 1, 0, 1, 1, 1, 1],
    "cut": [1, 0, 0, 1, 0, 0, 1, 0, 1, 0],
    "ridge": [1, 1, 0, 1, 0, 1, 0, 1, 1, 1],
    "small": [1, 1, 1, 1, 0, 0, 1, 1, 1, 1],
    "dense small": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
}


def evaluation(edit: Edit, right: list[int], nll: float = 0.5) -> Evaluation:
    n = len(right)
    frame = pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(n)],
            "domain": DOMAINS[:n],
            "exact_match": np.array(right, bool),
            "answer_nll": nll + 0.1 * np.arange(n),
            "token_agreement": np.where(right, 1.0, 0.5),
            "kl_to_dense": 0.01 * np.arange(n),
            "answer": "four",
            "answer_source": "given",
            "answer_ids": [[1]] * n,
        }
    )
    return Evaluation(edit, MODEL, "r" * 64, frame)


@pytest.fixture
def ledger() -> Ledger:
    rows = (
        Row("", True, evaluation(Edit(8), RIGHT["dense"]), n_bytes=800),
        Row("", False, evaluation(CUT, RIGHT["cut"], 0.9), n_bytes=600),
        Row("ridge", False, evaluation(REPAIRED, RIGHT["ridge"], 0.7), 1.5, 600, 16),
        Row("small", False, evaluation(TUNED, RIGHT["small"], 0.6), 90.0, 600, 16),
        Row("small", True, evaluation(DENSE_TUNED, RIGHT["dense small"], 0.4), 80.0, 800, 16),
    )
    return Ledger(rows, "l" * 64, 90)


def test_its_numbers_are_those_of_a_calculation_of_their_own(ledger: Ledger) -> None:
    table = ledger.table().set_index(["row", "domain"])
    assert list(dict.fromkeys(table.index.get_level_values("row"))) == [
        "dense",
        "cut",
        "repaired (ridge)",
        "tuned (small)",
        "dense, tuned (small)",
    ]
    places = {"math": slice(0, 6), "general": slice(6, 10), "all domains": slice(0, 10)}
    names = {"cut": "cut", "repaired (ridge)": "ridge", "tuned (small)": "small", "dense": "dense"}
    for title, name in names.items():
        for domain, place in places.items():
            right, dense, tuned = (np.array(RIGHT[one][place], float) for one in (name, "dense", "dense small"))
            row = table.loc[title, domain]
            assert row["n"] == len(right)
            assert row["exact_match"] == pytest.approx(right.mean())
            assert row["retention_of_dense"] == pytest.approx(right.sum() / dense.sum())
            assert row["retention_of_tuned"] == pytest.approx(right.sum() / tuned.sum())
            assert row["kl_to_dense"] == pytest.approx(0.01 * np.arange(10)[place].mean())
            if len(right) < 5:
                assert np.isnan(row["low_of_dense"])
    assert table.loc["cut", "all domains"]["low_of_dense"] < 4 / 9 < table.loc["cut", "all domains"]["high_of_dense"]
    assert table["low_of_dense"]["dense"].isna().all()
    assert ledger.overall["seconds"].tolist() == [0, 0, 1.5, 90, 80]


def test_the_finding_names_the_best_way_and_what_the_same_tuning_makes_of_the_dense_model(ledger: Ledger) -> None:
    assert best_row(ledger) is ledger.rows[3]
    says = headline(ledger)
    assert says.startswith(
        "Without 2 layers of 8 the model keeps 44% of the dense model's answers. Tuned (small) it keeps 89%:"
    )
    assert "44 of 56 lost points come back (90 % interval +1" in says
    assert says.endswith("Of the dense model tuned alike it keeps 80%.")
    assert fresh_words(ledger) == "Measured on 10 prompts that nothing was learnt on; learnt on 90 others."
    assert "chosen on 3 of them" in fresh_words(replace(ledger, n_chosen_on=3))
    worse = replace(ledger, rows=(*ledger.rows[:2], Row("ridge", False, evaluation(REPAIRED, [0] * 10))))
    assert "Nothing that was tried gives more back: repaired (ridge) it keeps 0%." in headline(worse)
    whole = Row("", False, evaluation(ledger.edit, RIGHT["dense"]))
    spoilt = Row("ridge", False, evaluation(REPAIRED, [0] * 10))
    assert "It lost nothing that could come back: repaired (ridge) it keeps 0%." in headline(
        replace(ledger, rows=(ledger.rows[0], whole, spoilt))
    )
    even = replace(
        ledger, rows=(*ledger.rows[:2], Row("ridge", False, evaluation(REPAIRED, [1, 1, *RIGHT["cut"][2:]])))
    )
    assert "which may be no difference" in headline(even)


def test_what_became_of_each_answer(ledger: Ledger) -> None:
    found = returned(ledger, ledger.rows[2]).set_index("id")
    outcomes = [
        "kept",
        "came back",
        "still lost",
        "kept",
        "still lost",
        "gained",
        "broke",
        "came back",
        "kept",
        "came back",
    ]
    assert found.loc[[f"p{number}" for number in range(10)], "outcome"].tolist() == outcomes
    assert found["outcome"].iloc[0] == "came back"
    assert found.loc["p0", "cut_says"] == "four"
    assert found.loc["p1", "cut_says"] is None


def test_its_file_opens_as_it_was_and_others_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    path = save_ledger(ledger, tmp_path / "it.json")
    again = open_ledger(path)
    pd.testing.assert_frame_equal(again.table(), ledger.table())
    assert [row.evaluation.edit for row in again.rows] == [row.evaluation.edit for row in ledger.rows]
    content = json.loads(path.read_text())
    for change in (
        {"rows": content["rows"][:1]},
        {"rows": content["rows"][1:]},
        {"n_learnt_on": 0},
        {"kind": "strata-cost"},
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(EvaluationError):
            open_ledger(path)
    content["rows"][2]["way"] = "magic"
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match="no such recovery"):
        open_ledger(path)
    other = replace(ledger.rows[2], evaluation=replace(ledger.rows[2].evaluation, prompts="o" * 64))
    with pytest.raises(EvaluationError, match="different models or prompts"):
        Ledger((*ledger.rows[:2], other), "l" * 64, 90)


def test_rows_that_set_prompts_aside_are_compared_on_what_all_answered(ledger: Ledger) -> None:
    shorter = replace(ledger.rows[2], evaluation=evaluation(REPAIRED, RIGHT["ridge"][:7]))
    table = replace(ledger, rows=(*ledger.rows[:2], shorter)).table()
    assert table.loc[table["domain"] == "all domains", "n"].tolist() == [7, 7, 7]
    shortest = replace(ledger.rows[2], evaluation=evaluation(REPAIRED, RIGHT["ridge"][:6]))
    assert set(replace(ledger, rows=(*ledger.rows[:2], shortest)).table()["domain"]) == {"math"}
    moved = shortest.evaluation.by_prompt.assign(domain="other")
    with pytest.raises(EvaluationError, match="in other domains"):
        replace(
            ledger, rows=(*ledger.rows[:2], replace(shortest, evaluation=replace(shortest.evaluation, by_prompt=moved)))
        )


def test_the_chart_has_a_bar_for_each_model_and_domain_on_a_fixed_scale(ledger: Ledger) -> None:
    figure = ledger_bars(ledger.table())
    assert [bar.name for bar in figure.data] == ["cut", "repaired (ridge)", "tuned (small)", "dense, tuned (small)"]
    assert list(figure.data[0].x) == pytest.approx([2 / 5, 2 / 4, 4 / 9])
    assert tuple(figure.layout.xaxis.range) == (0, 1.16)
    assert len({bar.marker.color for bar in figure.data}) == 4


def test_ways_are_a_repair_a_tuning_or_both_in_turn() -> None:
    assert steps_of("subspace+partners") == ("subspace", "partners")
    for wrong in ("magic", "small+ridge", "ridge+scale", "", "ridge+", None):
        with pytest.raises(EditError, match="as how, got"):
            steps_of(wrong)  # type: ignore[arg-type]
    assert tuning_in(["ridge", "ridge+small", "small"]) == "small"
    assert tuning_in(["ridge"]) == ""
    with pytest.raises(EditError, match="got small and partners"):
        tuning_in(["small", "partners"])
    check_options(["ridge+small"], {"penalty": 0.1, "rank": 2})
    for ways, options in ((["small"], {"penalty": 0.1}), (["ridge"], {"rank": 2}), (["small"], {"magic": 1})):
        with pytest.raises(EditError, match="has no such setting"):
            check_options(ways, options)


def test_passes_are_counted_as_the_work_runs() -> None:
    assert passes_of("ridge", PruneMask(8, (2, 3, 5)), 90, {}) == 180
    assert passes_of("small", CUT, 90, {"most_steps": 10, "checks": 2}) == 10 * 16 * 3 + 3 * 18
