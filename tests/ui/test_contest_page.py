"""The page "Depth or width?": empty, stored and running contests, its question, and what becomes of an entry."""

from __future__ import annotations

import pytest
from acting import OpenPage, chart, ended, hold_bundled, press, put, ran, strip, words
from typer.testing import CliRunner

from vlm_analysis import (
    Contest,
    Edit,
    Entry,
    LoadedModel,
    Narrow,
    PromptSet,
    PruneMask,
    cli,
    evaluate,
    make_narrow,
    score_width,
)
from vlm_analysis.figures.contested import COLOURS, contest_bars
from vlm_analysis.ui.common.session import last_choices, live, runner, workspace
from vlm_analysis.ui.contest.contestform import PAIR
from vlm_analysis.workbench.jobs import JobView
from vlm_analysis.workbench.shelf import keep, keep_prompts, open_item

PAGE = "pages/6_depth_or_width.py"
FOUND = "With 1% of the decoder layers' parameters gone"


@pytest.fixture(scope="session")
def contest(loaded: LoadedModel, few: PromptSet) -> Contest:
    """Dropped layers against width on a few prompts, of which the recovery of one is made up: its edit is another mask."""
    narrow = make_narrow(score_width(loaded, few, fast=True), 0.2, "uniform")
    dense = evaluate(loaded, few)
    depth, width, other = (
        evaluate(loaded, few, one, reference=dense) for one in (PruneMask(16, [5, 9]), narrow, PruneMask(16, [5]))
    )
    entries = (
        Entry("depth", "greedy by KL", depth, chosen_score=0.9, tried=7),
        Entry("width", "uniform", width),
        Entry("depth", "greedy by KL", other, "small"),
    )
    told = {"missing": {"vision": "no parameters go."}, "n_shared": 3, "recovery": {"small": {}}}
    return Contest(0.2, "parameters", dense, entries, "c" * 64, 12, **told)  # type: ignore[arg-type]


def test_an_entry_that_no_stock_class_loads_says_so(stocked: OpenPage, loaded: LoadedModel, few: PromptSet) -> None:
    dense = evaluate(loaded, few)
    uneven = evaluate(loaded, few, Edit(16, (Narrow({4: range(9)}),)), reference=dense)
    stocked(PAGE)
    keep(
        workspace(),
        "contests",
        Contest(0.2, "parameters", dense, (Entry("width", "global", uneven),), "c" * 64, 12),
        "one",
    )
    assert "no smaller checkpoint" in words(stocked(PAGE))


def newest_job() -> JobView:
    job = runner().latest("contest")
    assert job is not None
    return job


def line_of_page(at: object) -> str:
    return next(one.value for one in at.code if one.value.startswith("strata contest"))  # type: ignore[attr-defined]


def test_without_a_model_or_prompts_the_next_step_is_said(open_page: OpenPage) -> None:
    assert "No model is loaded. Saved contests open without one." in words(open_page(PAGE))
    hold_bundled()
    assert "There are no prompts to choose and report on." in words(open_page(PAGE))


def test_a_stored_contest_is_drawn_at_once_without_the_model(stocked: OpenPage, contest: Contest) -> None:
    stocked(PAGE)
    keep(workspace(), "contests", contest, "a contest")
    at = stocked(PAGE)
    said = words(at).replace("\\", "")
    assert contest.verdict() in said
    assert "vision has no entry: no parameters go." in said.replace("Vision", "vision")
    assert contest.fresh_words() in [one.value.replace("\\", "") for one in at.warning]
    table = at.dataframe[0].value
    assert table["retention"].tolist() == pytest.approx((100 * contest.table()["retention"]).tolist(), nan_ok=True)
    assert table["entry"].drop_duplicates().tolist() == ["depth", "width", "depth + small"]
    assert table["saved"].iloc[0] == pytest.approx(100 * contest.entries[0].saved)
    assert chart(at, 0)["layout"]["xaxis"]["range"] == [0, 1.16]


def test_an_entry_is_taken_into_the_editor_or_saved_and_then_exported(stocked: OpenPage, contest: Contest) -> None:
    stocked(PAGE)
    keep(workspace(), "contests", contest, "a contest")
    at = stocked(PAGE)
    width = contest.entry("width")
    assert width is not None
    edits = [button for button in at.button if button.label == "Edit this mask"]
    assert len(edits) == len(contest.entries)
    place = [one.title for way in contest.ways for one in contest.ranked(way)].index("width")
    edits[place].click().run()
    assert not at.exception
    assert strip(stocked("pages/4_masks.py"))["narrow"]
    n_saved = len(workspace().items("masks"))
    saves = [button for button in at.button if button.label == "Save as a mask"]
    saves[-1].click().run()
    assert not at.exception
    kept = open_item(workspace().items("masks")[0])
    assert len(workspace().items("masks")) == n_saved + 1
    assert kept.chosen_on >= {contest.chosen_on}
    assert len([button for button in at.button if button.label == "Save as a mask"]) == len(saves) - 1


def test_the_bars_have_one_scale_and_a_recovered_entry_is_hatched_beside_its_plain_one(contest: Contest) -> None:
    figure = contest_bars(contest.table())
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars] == ["depth", "depth + small", "width"]
    assert [bar.marker.color for bar in bars] == [COLOURS["depth"], COLOURS["depth"], COLOURS["width"]]
    assert [bar.marker.pattern.shape for bar in bars] == [None, "/", None]
    overall = contest.table().set_index(["kind", "recovered", "domain"])["retention"]
    assert bars[1].x[0] == pytest.approx(min(overall["depth", "small", contest.domains[0]], 1.1))


class TestForm:
    def test_the_saved_halves_are_chosen_and_one_set_for_both_is_warned_of(
        self, stocked: OpenPage, few: PromptSet
    ) -> None:
        hold_bundled()
        at = stocked(PAGE)
        assert "Edits are chosen and reported on the same prompts" in words(at)
        assert next(one for one in at.multiselect if one.key == "contest_recover").disabled
        press(at, "Split in halves")
        chosen = [at.session_state[key] for key in PAIR]
        assert "the same prompts" not in words(at)
        other = keep_prompts(workspace(), few[:2], "others")
        again = stocked(PAGE)
        assert [again.session_state[key] for key in PAIR] == chosen
        assert put(again, contest_report=other.id).session_state[PAIR[1]] == other.id

    def test_packs_are_chosen_on_and_their_fellows_reported_on(self, stocked: OpenPage, few: PromptSet) -> None:
        hold_bundled()
        stocked(PAGE)
        for first in ("", ", the first 2 of each"):
            chosen, reported = (
                keep_prompts(workspace(), part, f"Bundled packs: {names}{first}")
                for part, names in ((few[:2], "general, math"), (few[2:], "general-report, math-report"))
            )
            for used in (reported, chosen):
                last_choices()["prompts"] = used.id
                at = stocked(PAGE)
                assert [at.session_state[key] for key in PAIR] == [chosen.id, reported.id]
                assert "the same prompts" not in words(at)

    def test_the_line_asks_the_same_and_no_kind_asks_nothing(self, stocked: OpenPage) -> None:
        hold_bundled()
        at = put(stocked(PAGE), contest_share=30, contest_kinds=["width", "depth"], contest_minutes=2)
        assert "on this machine, less what is known already. Edits are tried on" in words(at)
        line = line_of_page(at)
        assert "--share 0.3" in line
        assert "--kind depth --kind width" in line
        assert "--limit 2.0" in line
        told = CliRunner().invoke(cli.strata, ["contest", "--help"]).stdout
        assert [word for word in line.split() if word.startswith("--") and word not in told] == []
        at = put(at, contest_kinds=[])
        assert next(button for button in at.button if button.label == "Depth or width?").disabled

    def test_what_was_measured_so_far_is_drawn_while_it_runs(self, stocked: OpenPage, contest: Contest) -> None:
        hold_bundled()
        stocked(PAGE)
        go = []

        def work(progress):
            live()["contest"] = (contest,)
            while not go:
                progress(1, 2, "at work")

        job = runner().submit("contest", "A contest of kinds", work)
        while "contest" not in live():
            pass
        at = stocked(PAGE)
        assert contest.verdict() in words(at).replace("\\", "")
        go.append(True)
        runner().wait(job.id if hasattr(job, "id") else job, 60)

    def test_a_cancelled_contest_keeps_what_was_done_and_a_later_start_goes_on(self, stocked: OpenPage) -> None:
        hold_bundled()
        at = put(stocked(PAGE), contest_share=1, contest_kinds=["depth"])
        press(at, "Split in halves")
        assert "No contest was held to its end yet." in words(at)
        press(at, "Depth or width?")
        while not (job := newest_job()).message.startswith("searching depth"):
            assert job.active, "it ended before it searched"
        at = ran(at)
        assert "No contest was held" not in words(at)
        press(at, "Cancel")
        assert ended("contest").status == "cancelled"
        assert "What was measured is kept: the same button goes on from there." in words(ran(at))
        assert not workspace().items("contests")
        recorded = [item.id for item in workspace().items("recordings")]
        press(at, "Depth or width?")
        assert ended("contest").status == "done"
        assert FOUND in words(ran(at))
        assert [item.id for item in workspace().items("recordings")] == recorded
