"""Contests with memory: entries meet one budget, are the best of what was tried, and are measured as the library measures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tuned import SHORT
from typer.testing import CliRunner

from vlm_analysis import (
    Bench,
    Cancelled,
    Contest,
    Cost,
    Evaluation,
    LoadedModel,
    PromptSet,
    cli,
    evaluate,
    make_narrow,
    score_width,
    speedup,
    sweep,
)
from vlm_analysis.errors import EditError, EvaluationError, PromptError
from vlm_analysis.selection.contest.candidates import WIDTHS
from vlm_analysis.selection.contest.contest import chosen_score
from vlm_analysis.workbench.costs import find_costs
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture
def bench(small: LoadedModel, tmp_path: Path) -> Bench:
    return Bench(small, Workspace(tmp_path / "home"))


@pytest.fixture
def choose(packs: PromptSet) -> PromptSet:
    return packs[:3] + packs[45:48]


@pytest.fixture
def report(packs: PromptSet) -> PromptSet:
    return packs[10:13] + packs[60:63]


def test_entries_meet_the_budget_are_the_best_of_their_kind_and_measured_as_by_the_library(
    bench: Bench, small: LoadedModel, choose: PromptSet, report: PromptSet
) -> None:
    seen: list[Contest] = []
    counts: list[tuple[int, int]] = []
    item = bench.contest(
        choose,
        report,
        0.3,
        recover=["small", "ridge"],
        on_partial=seen.append,
        on_progress=lambda done, total, message: counts.append((done, total)),
        **SHORT,
    )
    contest: Contest = bench.open(item)
    titles = ["depth", "width", "mix", "depth + small", "width + small", "mix + small", "depth + ridge"]
    assert [entry.title for entry in contest.entries] == titles
    assert [len(one.entries) for one in seen] == [3, 4, 5, 6, 7]
    assert counts == sorted(counts)
    assert {total for _, total in counts} == {counts[0][1]}
    assert (item.kind, item.details["share"], contest.n_chosen_on, contest.n_shared) == ("contests", 0.3, 6, 0)
    assert "weights stay" in contest.missing["vision"]
    assert contest.recovery["small"]["small"]["most_steps"] == 4

    depth, width, mix = contest.entries[:3]
    whole, unit = sum(small.info.layer_parameters), 2 * 48 * small.n_layers / sum(small.info.layer_parameters)
    assert depth.saved == pytest.approx(3 / 8)
    for entry in (width, mix):
        assert 3 / 8 - max(unit, 10_000 / whole) < entry.saved <= 3 / 8
    dense = evaluate(small, report)
    for entry in contest.entries[:3]:
        alone: Evaluation = evaluate(small, report, entry.edit, reference=dense)
        assert entry.evaluation.by_prompt["answer_nll"].tolist() == alone.by_prompt["answer_nll"].tolist()

    scores = score_width(small, choose)
    edits = [make_narrow(scores, 3 / 8, **{"mode": "global", **options}) for options in WIDTHS.values()]
    base = evaluate(small, choose)
    kept = [chosen_score(one, base) for one in sweep(small, choose, edits, reference=base)]
    assert width.chosen_score == pytest.approx(max(one for one in kept if one is not None))
    assert width.edit in edits
    on_choose = {entry.kind: evaluate(small, choose, entry.edit, reference=base) for entry in (depth, mix)}
    assert mix.edit.chosen_on == {choose.fingerprint}
    assert on_choose["mix"].by_prompt["kl_to_dense"].mean() <= on_choose["depth"].by_prompt["kl_to_dense"].mean() + 1e-6


def test_the_same_call_measures_nothing_again_and_a_stopped_one_goes_on(
    bench: Bench, choose: PromptSet, report: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"kinds": ("depth", "mix")}

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("searching mixes"):
            raise Cancelled

    with pytest.raises(Cancelled):
        bench.contest(choose, report, 0.25, on_progress=stop, **asked)
    assert bench.workspace.items("contests") == []
    first: Contest = bench.open(bench.contest(choose, report, 0.25, **asked))
    monkeypatch.setattr("vlm_analysis.evaluation.run.sharing.SharedRunner.run", None)
    again: Contest = bench.open(bench.contest(choose, report, 0.25, **asked))
    assert [one.edit for one in again.entries] == [one.edit for one in first.entries]
    assert again.verdict() == first.verdict()
    for kind in ("recordings", "widths"):
        assert len(bench.workspace.items(kind)) == 1


def test_a_mix_never_ends_below_a_kind_alone(bench: Bench, packs: PromptSet, report: PromptSet) -> None:
    choose = packs[3:6] + packs[48:51]  # here the search by KL goes on with layers, and keeps no answer
    contest: Contest = bench.open(bench.contest(choose, report[2:4], 0.6, kinds=["width", "mix"], fast=True))
    width, mix = contest.entries
    assert mix.chosen_score == width.chosen_score
    assert mix.chosen_score is not None
    assert mix.chosen_score > 0
    assert mix.edit == width.edit
    assert (mix.alone, mix.method) == ("width", f"width alone: {width.method}")
    assert "The best mix found is width alone." in contest.verdict()


def test_prefills_are_timed_once_and_a_cost_of_few_tokens_never_stands_for_a_whole_one(
    bench: Bench, choose: PromptSet, report: PromptSet
) -> None:
    asked: dict[str, Any] = {"kinds": ["depth"], "timed": True}
    contest: Contest = bench.open(bench.contest(choose[:1], report[:1], 0.3, **asked))
    (entry,) = contest.entries
    (item,) = bench.workspace.items("costs")
    short: Cost = bench.open(item)
    assert item.details["edit"] == entry.edit.key
    assert entry.speedup == speedup(short, "prefill")
    assert contest.timed.startswith("cpu, ")
    assert contest.timed.endswith(f"7 rounds of 1 prompt, {item.created[:10]}")
    assert short.new_tokens == 4

    (whole,) = bench.cost(report[:1], entry.edit, rounds=1)
    assert (whole.new_tokens, whole.rounds) == (32, 1)
    costs, problems = find_costs(bench.workspace, contest.model.fingerprint, None)
    assert ([cost.new_tokens for cost in costs], problems) == ([32], [])
    again: Contest = bench.open(bench.contest(choose[:1], report[:1], 0.3, **asked))
    assert len(bench.workspace.items("costs")) == 2, "nothing was timed again"
    assert (again.entries[0].speedup, again.timed) == (entry.speedup, contest.timed)


def test_what_cannot_be_compared_is_said_before_anything_runs(
    bench: Bench, choose: PromptSet, report: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_analysis.workbench.contests._Work.done", None)
    for error, share, options in (
        (EvaluationError, 1.5, {}),
        (EvaluationError, True, {}),
        (EvaluationError, 0.3, {"kinds": ("height",)}),
        (EvaluationError, 0.3, {"kinds": ()}),
        (EditError, 0.3, {"recover": ["magic"]}),
        (EditError, 0.3, {"rank": 3}),
    ):
        with pytest.raises(error):
            bench.contest(choose, report, share, **options)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="learnt on"):
        bench.contest(choose, choose, 0.3, recover=["small"])


def test_a_kind_without_an_entry_is_told_and_all_without_one_are_an_error(
    bench: Bench, choose: PromptSet, report: PromptSet
) -> None:
    with pytest.raises(EvaluationError, match="No kind has an entry: vision: where vision tokens skip layers"):
        bench.contest(choose, report, 0.2, kinds=["vision"])
    with pytest.raises(EvaluationError, match="So much cannot go"):
        bench.contest(choose, report, 0.9)


@pytest.mark.usefixtures("_no_bars", "_loaded_once")
def test_the_command_prints_the_contest_and_writes_it(choose: PromptSet, report: PromptSet, tmp_path: Path) -> None:
    for prompts, name in ((choose[:2], "choose"), (report[:2], "report")):
        keep_prompts(Workspace(), prompts, name)

    def strata(*words: object) -> Any:
        return CliRunner().invoke(cli.strata, [str(word) for word in words])

    line = ["contest", "choose", "--report", "report", "--share", "0.06", "--kind", "depth", "--kind", "width"]
    done = strata(*line, "--fast", "--limit", "5", "--json", "--out", tmp_path / "it.json")
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert re.search("^About .* on this machine", done.stderr, re.M)
    assert "About" not in strata(*line, "--fast", "--limit", "5", "--quiet").stderr
    told = json.loads(done.stdout)
    assert {row["kind"] for row in told["rows"]} == {"depth", "width"}
    shown = strata("show", told["id"], "--out", tmp_path / "it.csv").stdout
    assert shown.startswith(told["verdict"])
    assert "Measured on 2 prompts; chosen on 2 others." in shown
    assert (tmp_path / "it.csv").read_text().startswith("kind,recovered,domain,n,retention,low,high")
    assert json.loads(strata("show", tmp_path / "it.json", "--json").stdout)["rows"] == told["rows"]
    for wrong in (["--share", "0"], ["--kind", "height"], ["--recover", "magic"]):
        assert strata(*line, *wrong).exit_code == 2


@pytest.mark.slow
@pytest.mark.usefixtures("_short_timings")
def test_a_budget_of_time_is_measured_and_each_edit_says_what_it_saves(
    bench: Bench, choose: PromptSet, report: PromptSet
) -> None:
    contest: Contest = bench.open(bench.contest(choose, report, 0.1, of="time", kinds=["depth", "width", "vision"]))
    assert contest.of == "time"
    assert "of a prefill's time gone" in contest.verdict()
    assert {entry.kind for entry in contest.entries} | {*contest.missing} == {"depth", "width", "vision"}
    for entry in contest.entries:
        assert entry.speedup is not None
        saved = 1 - 1 / entry.speedup[0]
        assert (entry.note == "") == (saved >= 0.1)
        assert f"it saves {saved:.0%}" in entry.note or not entry.note
    with pytest.raises(EvaluationError, match="expected a budget of parameters or time, got 'money'"):
        bench.contest(choose, report, 0.1, of="money")
