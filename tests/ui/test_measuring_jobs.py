"""The jobs behind the Masks page: damage of each layer, the search for masks, and times of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from acting import OpenPage, hold, hold_bundled
from outside import outside_prompts, save_outside_model

from vlm_analysis import (
    Cancelled,
    LoadedModel,
    Objective,
    PromptSet,
    PruneMask,
    evaluate,
    read_damage,
    record,
    score_layers,
)
from vlm_analysis.edits.apply import why_not
from vlm_analysis.progress import no_progress
from vlm_analysis.ui.common.session import bench, live, model_slot, workspace
from vlm_analysis.ui.common.work import job, watched
from vlm_analysis.workbench.damages import find_damage
from vlm_analysis.workbench.shelf import find_dense, keep_prompts, open_item


def test_damage_of_each_layer_is_measured_kept_and_ranks_layers(
    stocked: OpenPage, small: LoadedModel, few: PromptSet
) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    model = model_slot().fingerprint
    assert find_damage(workspace(), model, few.fingerprint) == []
    assert job(bench().measure_damage, prompts)(no_progress).details["n"] == 1 + 8
    found = find_damage(workspace(), model, few.fingerprint)
    assert [evaluation.mask.dropped for evaluation in found] == [(), *((layer,) for layer in range(8))]
    alone = evaluate(small, few, PruneMask(8, (5,)), reference=evaluate(small, few), batch_size=32)
    assert found[6].by_prompt["kl_to_dense"].tolist() == pytest.approx(alone.by_prompt["kl_to_dense"].tolist())
    recording = record(small, few)
    scores = score_layers(recording, "damage-kl", damage=read_damage(found, recording.model))
    assert len(scores.order) == 8
    assert not list((workspace().root / "unfinished").glob("*"))
    assert not workspace().items("evaluations")[0].name.startswith("each layer")


def test_a_cancelled_measurement_goes_on_where_it_stopped(stocked: OpenPage, small: LoadedModel) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    left: list[int] = []

    def stop(done: int, total: int, message: str) -> None:
        left.append(total)
        if done == 3 and total == 8:
            raise Cancelled

    with pytest.raises(Cancelled):
        job(bench().measure_damage, prompts)(stop)
    left.clear()
    item = job(bench().measure_damage, prompts)(lambda done, total, message: left.append(total))
    assert item.details["n"] == 1 + 8
    assert left[-1] == 5


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("greedy", {}),
        pytest.param("beam", {"width": 2}, marks=pytest.mark.slow),  # tests/ui/test_search_page.py runs each once
        pytest.param("evolutionary", {"population": 4, "generations": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_search_keeps_the_mask_it_found_and_says_how_far_it_is(
    stocked: OpenPage, small: LoadedModel, few: PromptSet, strategy: str, settings: dict[str, int]
) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    reports: list[tuple[int, int, str]] = []
    work = job(bench().search, prompts, strategy, 2, Objective("token_agreement", worst=True), **settings)
    item = work(lambda *report: reports.append(report))
    assert item.name == f"{strategy} by Token agreement of the worst domain, 2 layers, on a few"
    mask = open_item(item)
    assert mask.budget == 2
    assert not set(small.protected_layers) & set(mask.dropped)
    assert mask.provenance["prompts"] == few.fingerprint
    by_domain = evaluate(small, few, mask, reference=evaluate(small, few), batch_size=32).by_domain
    last = mask.provenance["steps"][-1]
    assert last["harm"] == pytest.approx(1 - by_domain["token_agreement"].min())
    searching = [report for report in reports if " of 2" in report[2] and report[2].startswith(("step", "round"))]
    assert [done for done, _, _ in searching] == sorted(done for done, _, _ in searching)
    assert any("2 of 2, best so far" in message and ": part " in message for _, _, message in searching)
    assert not list((workspace().root / "unfinished").glob("*"))


def test_a_search_takes_up_what_another_one_measured(stocked: OpenPage, small: LoadedModel) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    said: list[str] = []

    def stop_at_the_second_step(done: int, total: int, message: str) -> None:
        said.append(message)
        if message.startswith("step 2"):
            raise Cancelled

    with pytest.raises(Cancelled):
        job(bench().search, prompts, "greedy", 2, Objective())(stop_at_the_second_step)
    assert any(message.startswith("step 1 of 2: part 1") for message in said)
    said.clear()
    job(bench().search, prompts, "beam", 2, Objective("answer_nll"), width=2)(
        lambda done, total, message: said.append(message)
    )
    assert not any(message.startswith("step 1 of 2: part") for message in said)
    assert any("5 masks" not in message and ": part 1" in message for message in said)


@pytest.mark.slow  # tests/workbench/test_pipeline.py leaves them out of a comparison
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, in transformers
def test_a_search_leaves_out_masks_that_the_model_cannot_run(open_page: OpenPage, tmp_path: Path) -> None:
    prompts = keep_prompts(workspace(), outside_prompts(), "four")
    slot = model_slot()
    slot.load(str(save_outside_model("mllama", tmp_path / "mllama")), {}, no_progress)
    assert "first, a cross-attention layer" in why_not(slot.loaded.model, PruneMask(6, (0,)))
    mask = open_item(job(bench().search, prompts, "greedy", 2, Objective(), unprotect=True)(no_progress))
    assert mask.budget == 2
    assert not why_not(slot.loaded.model, mask)


def test_layers_are_timed_for_the_loaded_model_only(stocked: OpenPage, small: LoadedModel) -> None:
    hold(small)
    (prompts,) = workspace().items("prompts")
    found = job(bench().latency, prompts)(no_progress)
    assert model_slot().latency is found
    model_slot().unload()
    assert model_slot().latency is None


def test_scores_are_on_the_board_before_the_responses_are_written(stocked: OpenPage) -> None:
    hold_bundled()
    (prompts,) = workspace().items("prompts")
    seen: list[tuple[str, object]] = []
    item = watched("evaluate", bench().evaluate, prompts, PruneMask(16, (4, 9, 11)), responses=True)(
        lambda done, total, message: seen.append((message, live().get("evaluate")))
    )
    written = [found for message, found in seen if message == "writing the responses" and found is not None]
    assert written
    pruned, dense = written[0]  # type: ignore[misc]
    assert dense.is_dense
    kept = open_item(item).by_prompt
    assert pruned.by_prompt["exact_match"].tolist() == kept["exact_match"].tolist()
    assert "response" not in pruned.by_prompt
    assert kept["response"].notna().all()
    assert not live()


@pytest.mark.parametrize("swapped", [False, True])
def test_a_dense_evaluation_that_is_gone_or_anothers_is_saved_again_by_the_next_evaluation(
    stocked: OpenPage, few: PromptSet, swapped: bool
) -> None:
    hold_bundled()
    (prompts,) = workspace().items("prompts")
    bench().evaluate(prompts, PruneMask(16, (4,)))
    pruned = workspace().items("evaluations")[0]
    while (dense := find_dense(workspace(), model_slot().fingerprint, few.fingerprint)) is not None and not swapped:
        workspace().delete(dense)
    if dense is not None:
        dense.path.write_bytes(pruned.path.read_bytes())
    bench().evaluate(prompts, PruneMask(16, (5,)))
    again = find_dense(workspace(), model_slot().fingerprint, few.fingerprint)
    assert again is not None
    assert open_item(again).is_dense
