"""The similarity of layers of the vision encoder: an independent float64 reference, batches, files, and the choice by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conformance.images import image_inputs
from conformance.towers import tower_model, tower_of

from vlm_analysis import (
    LoadedModel,
    PromptSet,
    Recording,
    Tower,
    make_tower,
    open_recording,
    record,
    save_recording,
    score_tower,
    tower_similarity,
)
from vlm_analysis.errors import MaskError
from vlm_analysis.model_info import TowerInfo
from vlm_analysis.models.inputs import encode
from vlm_analysis.recording.measures import empty_rows
from vlm_analysis.recording.towers import TowerWatch


@torch.no_grad()
def by_hand(model: Any, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the mean cosine of each layer of the tower in float64, from whole states."""
    layers, states = tower_of(model).layers, []
    handles = [
        layer.register_forward_hook(
            lambda _, args, kwargs, output: states.append(
                (
                    (args[0] if args else kwargs["hidden_states"]).double().numpy().copy(),
                    (output[0] if isinstance(output, tuple) else output).double().numpy().copy(),
                )
            ),
            with_kwargs=True,
        )
        for layer in layers
    ]
    model(**inputs)
    for handle in handles:
        handle.remove()
    cosines = [(x * y).sum(-1) / np.sqrt((x**2).sum(-1) * (y**2).sum(-1)) for x, y in states]
    return np.array([one.mean() for one in cosines])


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, few: PromptSet) -> Recording:
    return record(loaded, few[:4], full=False)


def test_it_is_the_mean_cosine_over_tokens_of_the_encoder(loaded: LoadedModel, few: PromptSet, recording: Recording):
    for index, prompt in enumerate(few[:4]):
        expected = by_hand(loaded.model, encode(loaded, prompt).tensors)
        np.testing.assert_allclose(recording.rows["tower_cosine"][index], expected, atol=1e-6)
    every = recording.rows["tower_cosine"]
    np.testing.assert_allclose(tower_similarity(recording), every.mean(axis=0), atol=1e-15)
    first = recording.domain_names[0]
    of_first = every[[domain == first for domain in recording.domains]]
    np.testing.assert_allclose(tower_similarity(recording, first), of_first.mean(axis=0), atol=1e-15)


def test_prompts_of_a_batch_have_the_numbers_that_each_has_alone(
    loaded: LoadedModel, few: PromptSet, recording: Recording
):
    batched = record(loaded, few[:4], full=False, batch_size=4)
    np.testing.assert_allclose(batched.rows["tower_cosine"], recording.rows["tower_cosine"], atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["llava", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("got_ocr2", "internvl", "qwen2_5_vl"))]
)
def test_other_classes_have_it_too(kind: str):
    model, inputs = tower_model(kind), image_inputs(kind)
    watch, expected = TowerWatch(model), by_hand(model, inputs)
    hooks = [(len(layer._forward_hooks), len(layer._forward_pre_hooks)) for layer in watch.layers]
    with watch.watching(), torch.no_grad():
        model(**inputs)
    item: Any = type("Item", (), {"tensors": inputs})
    np.testing.assert_allclose(watch.means([item])[0], expected, atol=1e-6)
    assert hooks == [(len(layer._forward_hooks), len(layer._forward_pre_hooks)) for layer in watch.layers]


def test_padding_does_not_count():
    model, inputs = tower_model("lfm2_vl"), image_inputs("lfm2_vl")
    watch = TowerWatch(model)
    with watch.watching(), torch.no_grad():
        model(**inputs)
    whole: Any = type("Item", (), {"tensors": inputs})
    mask = inputs["pixel_attention_mask"].clone()
    mask[:, 9:] = 0
    part: Any = type("Item", (), {"tensors": inputs | {"pixel_attention_mask": mask}})
    expected = [float(layer[0].double().flatten()[:9].mean()) for layer in watch._cosines]
    np.testing.assert_allclose(watch.means([part])[0], expected, atol=1e-15)
    assert not np.allclose(watch.means([part]), watch.means([whole]))


def test_it_is_kept_in_the_file_and_an_older_one_opens_without(recording: Recording, tmp_path: Path):
    again = open_recording(save_recording(recording, tmp_path / "one.npz"))
    np.testing.assert_array_equal(again.rows["tower_cosine"], recording.rows["tower_cosine"])
    old = open_recording(save_recording(replace(recording, lacks=("tower_cosine",)), tmp_path / "old.npz"))
    assert np.isnan(tower_similarity(old)).all()
    assert old.lacks == ("tower_cosine",)
    with pytest.raises(MaskError, match="cannot be scored: expected its similarity in the recording, got none"):
        score_tower(old)


def scored(recording: Recording, values: list[float], tower: TowerInfo) -> Recording:
    """Return a recording of two prompts with these cosines of the tower."""
    model = replace(recording.model, tower=tower)
    rows = empty_rows(2, model.n_layers, len(values))
    rows["key"], rows["tower_cosine"] = [b"a", b"b"], [values, values]
    return Recording(model, recording.prompts, recording.prompt_ids[:2], recording.domains[:2], rows)


COSINES = [0.99, 0.5, 0.9, 0.8, 0.1]


def test_layers_that_change_least_go_first_and_locked_ones_stay(recording: Recording):
    tower = TowerInfo(5, protected={0: "first"}, locked={2: "read"}, unread=(4,))
    made = scored(recording, COSINES, tower)
    np.testing.assert_allclose(score_tower(made), [0.01, 0.5, 0.1, 0.2, 0.0], atol=1e-12)
    assert make_tower(made, 2).changes == (Tower(5, (3, 4)),)
    assert make_tower(made, 3, unprotect=True).changes == (Tower(5, (0, 3, 4)),)
    assert make_tower(made, 0).is_dense


@pytest.mark.parametrize("budget", [4, -1, 1.5])
def test_a_budget_that_does_not_fit_is_refused(recording: Recording, budget: Any):
    made = scored(recording, COSINES, TowerInfo(5, protected={0: "first"}, locked={2: "read"}))
    with pytest.raises(MaskError, match="3 layers of 5 may go"):
        make_tower(made, budget)
