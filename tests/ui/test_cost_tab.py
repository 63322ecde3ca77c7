"""The Cost tab of the Evaluate page: weights at once, times once they are measured, kept for this model, mask and prompts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import streamlit as st
from acting import OpenPage, hold, hold_bundled, ran, wait_for, words
from streamlit.testing.v1 import AppTest

from vlm_analysis import Cancelled, Cost, LoadedModel, PromptSet, PruneMask, speedup
from vlm_analysis.ui.common.session import bench, choose, model_slot, runner, workspace
from vlm_analysis.ui.common.work import job
from vlm_analysis.workbench.costs import alike, find_costs
from vlm_analysis.workbench.details import edit_details
from vlm_analysis.workbench.shelf import keep_cost, keep_prompts, open_item

PAGE = "pages/5_evaluate.py"
MASK = PruneMask(16, (5, 9))
pytestmark = pytest.mark.usefixtures("_short_timings")
BUTTON = "Measure cost"


def cost_tab(at: AppTest) -> AppTest:
    at.session_state["evaluate_tab"] = "Cost"
    return ran(at)


def button(at: AppTest) -> AppTest:
    return next(button for button in at.button if button.label == BUTTON)


def said(at: AppTest) -> str:
    return words(at).replace("\\", "").replace("\u2060", "")


@pytest.fixture(scope="module")
def quick(loaded: LoadedModel) -> Cost:
    """A cost of given times, with the weights of the bundled model."""
    gone = loaded.layer_parameters[5] + loaded.layer_parameters[9]
    counts = loaded.n_parameters, loaded.n_parameters - gone
    bytes_of = loaded.n_bytes, loaded.n_bytes - 4 * gone
    prefill, tokens = [[4.0, 4.2], [3.0, 3.3]], [[90.0, 92.0], [120.0, 118.0]]
    return Cost(MASK, loaded.info, "cpu", 1, 1, 30.0, 3, counts, bytes_of, prefill, tokens, [[0.05] * 16] * 2)


def test_without_a_mask_the_tab_names_the_next_step_and_nothing_more(open_page: OpenPage) -> None:
    at = cost_tab(open_page(PAGE))
    assert "There is no mask to evaluate" in words(at)
    assert BUTTON not in [button.label for button in at.button]
    assert not at.metric


def test_weights_are_exact_and_shown_before_anything_is_measured(stocked: OpenPage, loaded: LoadedModel) -> None:
    hold_bundled()
    at = cost_tab(stocked(PAGE))
    dense, gone = loaded.n_parameters, loaded.layer_parameters[5] + loaded.layer_parameters[9]
    assert [metric.value for metric in at.metric[:2]] == ["14", f"{(dense - gone) / 1e6:.2f} M"]
    assert f"{gone:,} fewer ({gone / dense:.1%})" in said(at)
    assert at.metric[3].value == f"{2 * (sum(loaded.layer_parameters) - gone) / 1e6:.2f} M"
    assert f"weights {loaded.n_bytes:,} → {loaded.n_bytes - 4 * gone:,} bytes in float32" in said(at)
    assert "No time was measured for this mask" in said(at)
    assert not button(at).disabled
    assert not at.get("plotly_chart")


def test_without_a_model_a_saved_cost_opens_and_nothing_can_be_measured(
    stocked: OpenPage, quick: Cost, few: PromptSet
) -> None:
    at = cost_tab(stocked(PAGE))
    assert button(at).disabled
    assert not at.error
    keep_cost(workspace(), quick, "two layers", few.fingerprint)
    at = cost_tab(stocked(PAGE))
    assert button(at).disabled
    assert "fewer (10.1%)" in said(at)
    value, low, high = speedup(quick, "decode")
    assert f"{value:.2f} × as fast (90 % interval {low:.2f} to {high:.2f})" in said(at)


def test_times_of_a_disturbed_machine_are_warned_of(stocked: OpenPage, quick: Cost, few: PromptSet) -> None:
    slowed = np.array([[14.0, 14, 14, 28, 42, 42, 42], [10.0, 10, 10, 26, 30, 30, 30]])
    calm = np.array([[100.0] * 7, [120.0] * 7])
    keep_cost(workspace(), replace(quick, prefill_ms=slowed, tokens_per_s=calm), "two layers", few.fingerprint)
    at = cost_tab(stocked(PAGE))
    assert [warning.value.replace("\\", "") for warning in at.warning] == [
        "A prompt's pass (prefill): by the medians of all rounds the pruned model is 1.08 × as fast, by the rounds' own ratios 1.40 ×. "
        "Other work disturbed the machine: measure again when it is idle."
    ]
    assert "not the ratio of the two medians beside it" in said(at)


def test_measuring_keeps_the_cost_which_a_refresh_finds_again(stocked: OpenPage, few: PromptSet) -> None:
    hold_bundled()
    choose("prompts", keep_prompts(workspace(), few[:1], "one"))
    at = cost_tab(stocked(PAGE))
    assert next(box for box in at.number_input if box.label == "Rounds").value == 7
    at.session_state["cost_rounds"] = 1
    button(ran(at)).click()
    wait_for(ran(at), "as fast")
    (kept,) = workspace().items("costs")
    assert kept.details == edit_details(PruneMask(16, (5, 9)))
    assert (kept.model, kept.prompts) == (model_slot().fingerprint, few[:1].fingerprint)
    assert open_item(kept).rounds == 1
    at = cost_tab(stocked(PAGE))
    assert list(at.dataframe[0].value["phase"]) == ["A prompt's pass (prefill), ms", "Writing (decode), tokens/s"]
    assert "of 1 round over 1 prompt of" in said(at)
    assert "other work on this machine" in said(at)
    assert len(at.get("plotly_chart")) == 1


def test_a_line_keeps_a_cost_of_each_budget(stocked: OpenPage, few: PromptSet) -> None:
    hold_bundled()
    item = keep_prompts(workspace(), few[:1], "one")
    said_so: list[int] = []

    def soon(done: int, total: int, message: str) -> None:
        said_so.append(total)
        raise Cancelled

    with pytest.raises(Cancelled):
        job(bench().measure_cost, item, MASK, line=True)(soon)
    with pytest.raises(Cancelled):
        job(bench().measure_cost, item, MASK)(soon)
    assert said_so == [8 * 6 + 3, 8 * 2 + 3]
    assert not workspace().items("costs")


def test_the_newest_whole_cost_of_a_mask_wins_and_a_damaged_one_is_named(
    stocked: OpenPage, quick: Cost, few: PromptSet, loaded: LoadedModel
) -> None:
    keep_cost(workspace(), quick, "older", few.fingerprint)
    newer = replace(quick, prefill_ms=quick.prefill_ms * 2)
    keep_cost(workspace(), newer, "newer", few.fingerprint)
    other = replace(quick, edit=PruneMask(16, (3,)), threads=quick.threads + 1)
    keep_cost(workspace(), other, "another mask", few.fingerprint)
    keep_cost(workspace(), quick, "other prompts", "0" * 64)
    costs, problems = find_costs(workspace(), loaded.fingerprint, few.fingerprint)
    assert [cost.edit.dropped for cost in costs] == [(3,), (5, 9)]
    np.testing.assert_array_equal(costs[1].prefill_ms, newer.prefill_ms)
    assert not problems
    assert alike(costs, costs[1]) == [costs[1]]
    workspace().items("costs")[2].path.write_text("{")
    st.cache_resource.clear()
    at = cost_tab(stocked(PAGE))
    assert "newer: " in said(at)
    assert "Measure again" in said(at)
    assert "as fast" in said(at)


def test_a_job_for_a_model_that_is_gone_fails_with_one_clear_message(stocked: OpenPage) -> None:
    hold_bundled()
    at = cost_tab(stocked(PAGE))
    prompts = workspace().newest("prompts")
    assert prompts is not None
    work = job(bench().measure_cost, prompts, MASK)
    model_slot().unload()
    runner().submit("cost", "Timing it", work)
    wait_for(at, "no longer loaded")
    assert len(at.main.error) == 1
    assert not workspace().items("costs")


@pytest.mark.slow
def test_a_first_look_shows_numbers_and_a_cancel_keeps_the_finished_rounds(
    stocked: OpenPage, small: LoadedModel, few: PromptSet
) -> None:
    hold(small)
    mask = PruneMask(8, (3, 5))
    item = keep_prompts(workspace(), few[:1], "one")
    seen: list[Cost] = []

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("round 3"):
            raise Cancelled

    with pytest.raises(Cancelled):
        bench().measure_cost(item, mask, rounds=3, on_partial=seen.append, on_progress=stop)
    assert [(cost.rounds, cost.new_tokens) for cost in seen] == [(1, 8), (2, 8), (3, 8), (1, 4), (2, 4)]
    (kept,) = workspace().items("costs")
    assert open_item(kept).rounds == 2
    with pytest.raises(Cancelled):
        bench().measure_cost(item, mask, rounds=3, on_progress=stop)
    assert workspace().items("costs") == [kept]  # it has as many


def test_cancelling_before_a_round_has_ended_leaves_nothing(stocked: OpenPage) -> None:
    hold_bundled()
    at = cost_tab(stocked(PAGE))
    button(at).click()
    ran(at)
    runner().cancel(runner().latest("cost").id)
    wait_for(at, "The rounds that were finished are kept")
    assert not workspace().items("costs")
    assert not button(at).disabled
