"""Ledgers of recovery with memory: rows are what was asked for, measured as the library measures, on prompts nothing was learnt on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tuned import SHORT, noting
from typer.testing import CliRunner

from vlm_analysis import Bench, Cancelled, Edit, Evaluation, Ledger, LoadedModel, PromptSet, PruneMask, cli, evaluate
from vlm_analysis.errors import EditError, NothingLearntError, PromptError
from vlm_analysis.workbench.ledgers import stages_of
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace

CUT = PruneMask(8, (4, 5), name="four and five")


@pytest.fixture
def bench(small: LoadedModel, tmp_path: Path) -> Bench:
    return Bench(small, Workspace(tmp_path / "home"))


@pytest.fixture
def learn(packs: PromptSet) -> PromptSet:
    return packs[:3] + packs[45:48]


@pytest.fixture
def report(packs: PromptSet) -> PromptSet:
    return packs[10:12] + packs[60:62]


def test_rows_are_the_ways_asked_for_and_their_scores_those_of_the_library(
    bench: Bench, small: LoadedModel, learn: PromptSet, report: PromptSet
) -> None:
    seen: list[Ledger] = []
    counts: list[tuple[int, int]] = []
    item = bench.measure_recovery(
        CUT,
        learn,
        report,
        ["scale", "small"],
        responses=True,
        on_partial=seen.append,
        on_progress=lambda done, total, message: counts.append((done, total)),
        **SHORT,
    )
    ledger: Ledger = bench.open(item)
    assert [row.title for row in ledger.rows] == [
        "dense",
        "cut",
        "repaired (scale)",
        "tuned (small)",
        "dense, tuned (small)",
    ]
    assert [len(one.rows) for one in seen] == [2, 3, 4]
    total = sum(passes for _, passes in stages_of(CUT, ["scale", "small"], 6, 4, SHORT))
    assert {one for _, one in counts} == {total}
    assert total - 4 <= max(done for done, _ in counts) <= total
    assert (item.name, item.details["edit"]) == ("four and five on 4 prompts: math, general", CUT.key)
    saved = {one.details["edit"]: bench.open(one) for one in bench.workspace.items("masks")}
    dense = evaluate(small, report)
    for row in ledger.rows:
        edit = saved.get(row.evaluation.edit.key, row.evaluation.edit)
        alone: Evaluation = dense if edit.is_dense else evaluate(small, report, edit, reference=dense)
        assert row.evaluation.by_prompt["answer_nll"].tolist() == alone.by_prompt["answer_nll"].tolist()
        assert ("response" in row.evaluation.by_prompt) == (row.title != "dense, tuned (small)")
        assert row.n_bytes == small.n_bytes - 4 * edit.saved_parameters(small.info)
    assert [row.learnt_bytes > 0 for row in ledger.rows[:4]] == [False, False, True, True]
    assert ("Nothing was learnt" in ledger.rows[4].note) == (ledger.rows[4].learnt_bytes == 0)
    spent = [row.seconds or 0 for row in ledger.rows]
    assert min(spent[2:4]) > 0 == max(spent[:2])
    assert (ledger.n_learnt_on, ledger.n_chosen_on) == (6, 0)

    begun: list[int] = []
    again: Ledger = bench.open(
        bench.measure_recovery(CUT, learn, report, ["scale", "small"], on_progress=noting(begun), **SHORT)
    )
    assert begun == [], "what was learnt is not learnt again"
    assert [row.seconds for row in again.rows] == [row.seconds for row in ledger.rows]


def test_prompts_that_are_learnt_on_are_no_report(bench: Bench, learn: PromptSet, report: PromptSet) -> None:
    with pytest.raises(PromptError, match=r"got 1 of 5 prompts that are learnt on, or share a picture"):
        bench.measure_recovery(CUT, learn, report + learn[:1], ["scale"])
    assert bench.workspace.items("masks") == bench.workspace.items("ledgers") == []


def test_a_cut_that_was_chosen_on_the_reported_prompts_says_so(
    bench: Bench, learn: PromptSet, report: PromptSet
) -> None:
    chosen = PruneMask(8, (4, 5), provenance={"prompts": report.fingerprint})
    ledger = bench.open(bench.measure_recovery(chosen, learn, report, ["scale"]))
    assert ledger.n_chosen_on == 4


def test_what_cannot_be_measured_is_said_before_anything_runs(
    bench: Bench, small: LoadedModel, learn: PromptSet, report: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_analysis.workbench.ledgers.scorer", None)
    learnt = bench.open(bench.recover(CUT, learn, "scale"))
    cases: list[tuple[Edit, PromptSet, list[str], str]] = [
        (Edit(8), learn, ["ridge"], "nothing to get back"),
        (CUT, learn, [], "got none"),
        (learnt, learn, ["small"], "nothing learnt yet"),
        (CUT, learn[:1], ["small"], "two groups or more"),
        (CUT, learn, ["small", "partners"], "one tuning"),
        (CUT, learn, ["magic"], "no such recovery"),
    ]
    for edit, prompts, ways, message in cases:
        with pytest.raises(EditError, match=message):
            bench.measure_recovery(edit, prompts, report, ways)
    monkeypatch.setattr(type(small), "quantiser", "torchao")
    with pytest.raises(EditError, match="quantised with torchao"):
        bench.measure_recovery(CUT, learn, report, ["small"])


def test_a_way_that_changes_nothing_is_noted_and_all_of_them_are_an_error(
    bench: Bench, learn: PromptSet, report: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = PruneMask(8, (0,))
    with pytest.raises(NothingLearntError, match="no layer before it is kept"):
        bench.measure_recovery(first, learn, report, ["scale"])
    assert bench.workspace.items("ledgers") == []
    monkeypatch.setattr("vlm_analysis.recovery.finetune.trainer.mean_nll", lambda *_: 1.0)
    ledger: Ledger = bench.open(bench.measure_recovery(CUT, learn, report, ["scale", "scale+small"], **SHORT))
    assert "Nothing was learnt" in ledger.rows[3].note
    assert "Nothing was learnt" in ledger.rows[4].note
    assert ledger.rows[4].evaluation.edit.is_dense
    assert ledger.rows[3].evaluation.edit == ledger.rows[2].evaluation.edit


def test_stopped_work_keeps_what_was_learnt(bench: Bench, learn: PromptSet, report: PromptSet) -> None:
    with pytest.raises(Cancelled):
        bench.measure_recovery(CUT, learn, report, ["scale", "small"], on_progress=_stop_in("tuning the cut"), **SHORT)
    kept = [one.name for one in bench.workspace.items("masks")]
    assert "four and five, repaired (scale)" in kept
    assert bench.workspace.items("ledgers") == []


def _stop_in(stage: str) -> Any:
    def progress(done: int, total: int, message: str) -> None:
        if message.startswith(stage):
            raise Cancelled

    return progress


def test_what_it_takes_is_measured_before_it_begins(bench: Bench, learn: PromptSet, report: PromptSet) -> None:
    needs = bench.recovery_needs(CUT, learn, report, ["ridge", "small"])
    assert needs.memory is not None
    assert needs.memory.batch == 16
    assert 0 < needs.memory.needed < needs.memory.free
    assert needs.passes > 3 * 4 + 2 * 6
    assert "About " in needs.words()
    assert bench.recovery_needs(CUT, learn, report).memory is None
    with pytest.raises(PromptError, match="learnt on"):
        bench.recovery_needs(CUT, learn, learn)
    assert bench.workspace.items("prompts") == []


@pytest.mark.usefixtures("_no_bars", "_loaded_once")
def test_the_command_prints_the_ledger_and_writes_it(learn: PromptSet, report: PromptSet, tmp_path: Path) -> None:
    for prompts, name in ((learn, "learn"), (report, "report")):
        keep_prompts(Workspace(), prompts, name)

    def strata(*words: object) -> Any:
        return CliRunner().invoke(cli.strata, [str(word) for word in words])

    line = ["recover", "learn", "5,9", "--how", "scale", "--how", "ridge", "--report", "report", "--no-responses"]
    done = strata(*line, "--json", "--out", tmp_path / "it.json")
    assert done.exit_code == 0, (done.stderr, done.exception)
    told = json.loads(done.stdout)
    assert {row["row"] for row in told["rows"]} == {"dense", "cut", "repaired (scale)", "repaired (ridge)"}
    shown = strata("show", told["id"], "--out", tmp_path / "it.csv").stdout
    assert shown.startswith(told["headline"])
    assert "Measured on 4 prompts that nothing was learnt on; learnt on 6 others." in shown
    assert "repaired (ridge)" in shown
    assert (
        (tmp_path / "it.csv")
        .read_text()
        .startswith("row,domain,n,exact_match,answer_nll,kl_to_dense,retention_of_dense")
    )
    shown = strata("show", tmp_path / "it.json", "--json", "--out", tmp_path / "it.html")
    assert json.loads(shown.stdout)["rows"] == told["rows"]
    assert "What comes back" in (tmp_path / "it.html").read_text()
    for wrong in (["--how", "scale", "--how", "ridge"], ["--how", "ridge+scale"], ["--report", "learn"]):
        assert strata("recover", "learn", "5,9", *wrong).exit_code == 2
