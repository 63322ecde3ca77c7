"""A model whose weights are partly on disk is the whole one to the last bit: dense, edited, recorded, swept and exported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vlm_analysis import (
    Adapt,
    Cancelled,
    Edit,
    Fold,
    LoadedModel,
    Narrow,
    PromptSet,
    PruneMask,
    Tensors,
    Tower,
    apply_edit,
    evaluate,
    export_checkpoint,
    finetune,
    load_model,
    record,
    score_width,
    stream_both,
    sweep,
)
from vlm_analysis.errors import EditError, ModelError
from vlm_analysis.evaluation.run.timing import count_weights
from vlm_analysis.models.offload import is_offloaded, value_of
from vlm_analysis.models.spread import size_of, spread_of

IN_MEMORY = {"cpu": "3 MB"}  # of 8.7 MB: the vision tower, the embeddings and no layer, or few
DRAW = np.random.default_rng(0)
UP, DOWN = "mlp.up_proj", "mlp.down_proj"
HIDDEN, NEURONS = 96, 288


@pytest.fixture(scope="module")
def spread() -> LoadedModel:
    return load_model(device_map="auto", max_memory=IN_MEMORY)


def some(n: int) -> list[int]:
    return sorted(DRAW.choice(NEURONS, n, replace=False).tolist())


def adapted() -> Adapt:
    name = f"13.{UP}"
    factors = {f"{name}.A": DRAW.normal(size=(2, HIDDEN)), f"{name}.B": 0.1 * DRAW.normal(size=(NEURONS, 2))}
    return Adapt(Tensors.of(factors), (name,), 0.5)


EDITS = {
    "dense": Edit(16),
    "drop": PruneMask(16, (4, 12)),
    "narrow": Edit(16, (Narrow({0: some(100), 14: some(9)}, {9: [1]}),)),
    "zeroed": Edit(16, (Narrow({14: some(9)}, {9: [1]}, form="zeroed"),)),
    "fold": Edit(16, (Fold(12, Tensors.of({DOWN: np.eye(HIDDEN) + 0.01 * DRAW.normal(size=(HIDDEN, HIDDEN))})),)),
    "adapt": Edit(16, (adapted(),)),
}
EDITS["all"] = EDITS["drop"] + Edit(16, (Narrow({13: some(50)}),))


def hashes(model: Any) -> dict[str, str]:
    """Return a hash of each parameter, wherever it is kept."""
    return {
        f"{name}.{inner}": hashlib.sha256(value_of(module, inner).detach().numpy().tobytes()).hexdigest()
        for name, module in model.named_modules()
        for inner, _ in module.named_parameters(recurse=False)
    }


def test_weights_are_where_they_may_be_and_it_is_the_same_model(loaded: LoadedModel, spread: LoadedModel) -> None:
    places = spread.places
    assert set(places) == {"cpu", "disk"}
    assert places["cpu"] <= 3_000_000
    assert places["cpu"] == spread.n_bytes
    assert sum(places.values()) == sum(loaded.places.values()) == loaded.n_bytes
    assert spread.fingerprint == loaded.fingerprint
    assert spread.device.type == "cpu"
    assert spread.n_parameters == loaded.n_parameters
    assert hashes(spread.model) == hashes(loaded.model)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_gives_the_numbers_of_the_whole_model(
    loaded: LoadedModel, spread: LoadedModel, few: PromptSet, name: str
) -> None:
    before = hashes(spread.model)
    pd.testing.assert_frame_equal(
        evaluate(spread, few, EDITS[name]).by_prompt, evaluate(loaded, few, EDITS[name]).by_prompt, check_exact=True
    )
    assert hashes(spread.model) == before
    assert is_offloaded(spread.model)


def test_changed_weights_are_those_of_the_edit_of_the_whole_model(loaded: LoadedModel, spread: LoadedModel) -> None:
    for name, edit in EDITS.items():
        assert hashes(apply_edit(spread.model, edit)) == hashes(apply_edit(loaded.model, edit)), name
    twice = apply_edit(apply_edit(spread.model, EDITS["narrow"]), Edit(16, (Narrow({14: range(4)}),)))
    once = apply_edit(apply_edit(loaded.model, EDITS["narrow"]), Edit(16, (Narrow({14: range(4)}),)))
    assert hashes(twice) == hashes(once)


def test_recording_and_sweeps_are_those_of_the_whole_model(
    loaded: LoadedModel, spread: LoadedModel, few: PromptSet
) -> None:
    ours, theirs = record(spread, few, attention=True), record(loaded, few, attention=True)
    for name in ("cosine", "output_rms", "attention_cosine", "mlp_cosine"):
        np.testing.assert_array_equal(ours.layer_values(name), theirs.layer_values(name))
    edits = [EDITS["drop"], EDITS["all"], PruneMask(16, (4, 5))]
    for one, other in zip(sweep(spread, few, edits), sweep(loaded, few, edits), strict=True):
        pd.testing.assert_frame_equal(one.by_prompt, other.by_prompt, check_exact=True)


def test_both_models_answer_as_the_whole_ones_do(loaded: LoadedModel, spread: LoadedModel, few: PromptSet) -> None:
    texts = []
    for model in (spread, loaded):
        *_, last = stream_both(model, few[0], EDITS["drop"])
        texts.append((last.dense, last.edited) if hasattr(last, "edited") else last)
    assert texts[0] == texts[1]


@pytest.mark.usefixtures("_proved_here")
def test_an_export_is_the_one_of_the_whole_model(loaded: LoadedModel, spread: LoadedModel, tmp_path: Path) -> None:
    edit = PruneMask(16, (4,)) + Edit(16, (Narrow({layer: range(200) for layer in range(16)}),))
    manifests = [export_checkpoint(model, edit, tmp_path / str(n)) for n, model in enumerate((spread, loaded))]
    assert all(manifest.verified for manifest in manifests)
    weights = [(tmp_path / str(n) / "model.safetensors").read_bytes() for n in range(2)]
    assert weights[0] == weights[1]
    configs = [json.loads((tmp_path / str(n) / "config.json").read_text()) for n in range(2)]
    assert configs[0] == configs[1]


def test_a_vision_encoder_that_is_partly_on_disk_answers_and_records_as_the_whole_one(
    loaded: LoadedModel, few: PromptSet
) -> None:
    spread = load_model(device_map="auto", max_memory={"cpu": "0.8 MB"})
    kept = {part.device.type for part in spread.model.model.visual.parameters()}
    assert kept == {"cpu", "meta"}
    ours, theirs = (record(one, few, attention=True, token_maps=True) for one in (spread, loaded))
    assert ours.rows.tobytes() == theirs.rows.tobytes()
    assert np.isfinite(ours.rows["tower_cosine"]).all()
    for edit in (Edit(16), Edit(16, (Tower(3, (2,)),)), EDITS["drop"]):
        scores = [evaluate(one, few, edit, responses=True).by_prompt for one in (spread, loaded)]
        pd.testing.assert_frame_equal(*scores, check_exact=True)
        assert "response" in scores[0]


def test_weights_that_share_numbers_count_once_on_disk_too_and_after_a_pass(
    loaded: LoadedModel, few: PromptSet
) -> None:
    spread = load_model(device_map={"": "disk"})
    for _ in range(2):  # before a pass and after it
        assert spread.places == {"disk": loaded.n_bytes}
        assert count_weights(spread.model) == count_weights(loaded.model)
        masked = [apply_edit(model, EDITS["drop"]) for model in (spread.model, loaded.model)]
        assert count_weights(masked[0]) == count_weights(masked[1])
        evaluate(spread, few[:1])
    assert spread.n_parameters == loaded.n_parameters


@pytest.mark.slow
def test_a_fresh_process_proves_the_export_of_a_spread_model(spread: LoadedModel, tmp_path: Path) -> None:
    manifest = export_checkpoint(spread, EDITS["drop"], tmp_path / "out")
    assert manifest.verified
    assert manifest.fresh_process


def test_what_needs_gradients_is_refused(spread: LoadedModel, few: PromptSet) -> None:
    with pytest.raises(EditError, match="expected all weights in memory"):
        score_width(spread, few)
    with pytest.raises(EditError, match="in memory"):
        finetune(spread, PruneMask(16, (4,)), few)


def test_each_weight_is_told_and_loading_can_be_stopped() -> None:
    told: list[str] = []

    def progress(done: int, total: int, message: str) -> None:
        told.append(message)
        if message.endswith("weights: 100 of 235"):
            raise Cancelled

    with pytest.raises(Cancelled):
        load_model(on_progress=progress)
    assert [one for one in told if "weights: " in one] == [f"reading the weights: {n} of 235" for n in range(101)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_memory": {"cpu": 1}}, "expected device_map='auto' beside it"),
        ({"device_map": "auto", "device": "cpu"}, "expected device 'auto' beside device_map"),
        ({"device_map": "balanced"}, "expected 'auto' or a device for each module"),
        ({"device_map": {"": "cpu"}, "max_memory": {"cpu": 1}}, "expected no max_memory beside it"),
        ({"device_map": "auto", "max_memory": {"cuda:7": 1}}, "No such device in max_memory: expected cpu"),
        ({"device_map": "auto", "max_memory": f"cuda:{'7' * 5000}=1"}, "No such device in max_memory: expected cpu"),
        ({"device_map": "auto", "max_memory": "cpu=8GiB, cpu=9GiB"}, "expected each device once"),
        ({"device_map": "auto", "max_memory": " ,"}, "expected each device once"),
        ({"device_map": "auto", "max_memory": {"cpu": "much"}}, "expected one like '8GiB'"),
        ({"device_map": "auto", "max_memory": {"cpu": True}}, "expected one like '8GiB'"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(**given)


def test_sizes_are_read_as_they_are_written() -> None:
    assert [size_of(text) for text in ("8GiB", "1.5 MB", "7 kb", 100, "0")] == [8 << 30, 1_500_000, 7000, 100, 0]
    bounded = spread_of("auto", {"cpu": "1MB"})
    assert bounded is not None
    assert bounded.max_memory["cpu"] == 1_000_000
    assert spread_of(None, None) is None


def test_a_map_by_hand_is_followed() -> None:
    loaded = load_model(device_map={"model.visual": "cpu", "model.language_model": "disk", "lm_head": "disk"})
    assert loaded.model.model.language_model.layers[0].mlp.up_proj.weight.device == torch.device("meta")
    assert loaded.places["disk"] > loaded.places["cpu"] > 0
