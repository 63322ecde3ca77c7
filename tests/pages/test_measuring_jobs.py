"""The jobs behind the Masks page: damage of each layer, greedy pruning, and times of layers."""

from __future__ import annotations

import pytest
from acting import OpenPage, load_bundled

import vlm_analysis.ui.work
from vlm_analysis.evaluate import evaluate
from vlm_analysis.masks import PruneMask
from vlm_analysis.models import LoadedModel
from vlm_analysis.progress import Cancelled, no_progress
from vlm_analysis.prompts import PromptSet
from vlm_analysis.rank import read_damage, score_layers
from vlm_analysis.stored import open_item
from vlm_analysis.ui.session import model_slot, workspace
from vlm_analysis.ui.work import damage_work, find_damage, greedy_work, latency_work


def test_damage_of_each_layer_is_measured_kept_and_ranks_layers(
    stocked: OpenPage, loaded: LoadedModel, few: PromptSet
) -> None:
    load_bundled(stocked)
    (prompts,) = workspace().items("prompts")
    model = model_slot().fingerprint
    assert find_damage(model, few.fingerprint) == []
    assert damage_work(prompts)(no_progress) == 16
    found = find_damage(model, few.fingerprint)
    assert [evaluation.mask.dropped for evaluation in found] == [(), *((layer,) for layer in range(16))]
    alone = evaluate(loaded, few, PruneMask(16, (5,)), reference=evaluate(loaded, few), batch_size=32)
    assert found[6].by_prompt["kl_to_dense"].tolist() == pytest.approx(alone.by_prompt["kl_to_dense"].tolist())
    recording = open_item(workspace().items("recordings")[0])
    scores = score_layers(recording, "damage-kl", damage=read_damage(found, recording.model))
    assert len(scores.order) == 16
    assert not list((workspace().root / "unfinished").glob("*"))
    assert not workspace().items("evaluations")[0].name.startswith("each layer")


def test_a_cancelled_measurement_goes_on_where_it_stopped(stocked: OpenPage, monkeypatch: pytest.MonkeyPatch) -> None:
    load_bundled(stocked)
    (prompts,) = workspace().items("prompts")

    monkeypatch.setattr(vlm_analysis.ui.work, "SWEEP_MASKS", 5)

    def stop(done: int, total: int, message: str) -> None:
        if done > 6 and total == 17:
            raise Cancelled

    with pytest.raises(Cancelled):
        damage_work(prompts)(stop)
    kept = [path.name for path in (workspace().root / "unfinished").rglob("*.json")]
    assert sorted(kept) == ["0.json", "1.json", "2.json", "3.json", "4.json"]
    assert damage_work(prompts)(no_progress) == 16


def test_greedy_drops_what_harms_least_and_keeps_its_mask(stocked: OpenPage) -> None:
    load_bundled(stocked)
    (prompts,) = workspace().items("prompts")
    mask = open_item(greedy_work(prompts, 2, "kl_to_dense", "math")(no_progress))
    assert mask.budget == 2
    assert not {0, 1, 15} & set(mask.dropped)
    assert mask.provenance["target"] == "math"


def test_layers_are_timed_for_the_loaded_model_only(stocked: OpenPage) -> None:
    load_bundled(stocked)
    (prompts,) = workspace().items("prompts")
    found = latency_work(prompts)(no_progress)
    assert model_slot().latency is found
    model_slot().unload()
    assert model_slot().latency is None
