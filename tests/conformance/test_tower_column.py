"""Which classes can lose layers of the vision encoder, and that what is evaluated is the checkpoint that plain transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_analysis import Edit, Tower, apply_edit, export_checkpoint
from vlm_analysis.errors import EditError
from vlm_analysis.models.layers import layer_info

from .build import N_LAYERS
from .checks import loaded_as, logits, masks, reloaded
from .images import image_inputs, processor_of
from .rows import EXCEPTIONS
from .test_conformance import model_of
from .towers import LOSING, check_tower, droppable, tower_model, without

EXPORTED = [kind for kind in LOSING if (kind, "reload") not in EXCEPTIONS]
SAMPLE = ("llava", "mllama", "qwen2_5_vl")  # a state read by number, outputs read by number, layers of two kinds


def sampled(kinds: list[str]) -> list[Any]:
    return [pytest.param(kind, marks=[] if kind in SAMPLE else pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize("kind", sampled(LOSING))
def test_a_tower_without_layers_is_one_in_which_they_hand_on_what_they_are_given(kind: str) -> None:
    check_tower(kind)


@pytest.mark.parametrize("kind", sampled(EXPORTED))
def test_what_is_evaluated_is_what_is_exported(kind: str, tmp_path: Path) -> None:
    loaded = loaded_as(tower_model(kind), processor_of(kind), tmp_path / "source")
    free = droppable(loaded.model, kind)
    edit = without(*free[-2:] if len(free) > 2 else free[-1:]) + masks(loaded.model)[0]
    view, inputs = apply_edit(loaded.model, edit), image_inputs(kind)
    manifest = export_checkpoint(loaded, edit, tmp_path / "cut", verify=False)
    fresh = reloaded(tmp_path / "cut", loaded.model.config)
    assert torch.equal(logits(fresh, inputs), logits(view, inputs))
    n_parameters = sum(parameter.numel() for parameter in fresh.parameters())
    assert n_parameters == manifest.parameters_after == loaded.n_parameters - edit.saved_parameters(loaded.info)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("llava", {"vision_feature_layer": -2}),  # CLIP
        pytest.param("aya_vision", {"vision_feature_layer": -2}, marks=pytest.mark.slow),  # SigLIP
        pytest.param("aria", {"vision_feature_layer": -2}, marks=pytest.mark.slow),  # of Idefics3
        pytest.param("llava", {"vision_feature_layer": [1, 3]}, marks=pytest.mark.slow),
    ],
)
def test_layers_that_nothing_reads_go_without_changing_a_bit(kind: str, read: dict[str, Any], tmp_path: Path) -> None:
    model, inputs = tower_model(kind, read), image_inputs(kind)
    tower = layer_info(model).tower
    assert tower is not None
    assert tower.unread == (3,)
    loaded, dense = loaded_as(model, processor_of(kind), tmp_path / "source"), logits(model, inputs)
    export_checkpoint(loaded, without(3), tmp_path / "cut", verify=False)
    assert torch.equal(logits(reloaded(tmp_path / "cut", model.config), inputs), dense)


REASONS = {
    "chameleon": "no vision encoder with a list",
    "fuyu": "no vision encoder with a list",
    "unlimited_ocr": "several vision encoders",
    "video_llava": "several vision encoders",
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "fuyu" else pytest.mark.slow) for kind in REASONS]
)
def test_what_has_no_tower_to_cut_is_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(EditError, match=f"No layer of the vision encoder can be dropped: .*{REASONS[kind]}"):
        apply_edit(model_of(kind), Edit(N_LAYERS, (Tower(2, (1,)),)))


def test_a_layer_that_the_decoder_reads_by_itself_is_locked() -> None:
    model = tower_model("qwen3_vl")
    assert droppable(model, "qwen3_vl") == [1, 3]
    with pytest.raises(EditError, match="Layer 2 of the vision encoder cannot be dropped: DeepStack"):
        apply_edit(model, without(2))
    view: Any = apply_edit(model, without(1))
    assert view.config.vision_config.deepstack_visual_indexes == [0, 1]
    assert view.config.vision_config.depth == len(view.model.visual.blocks) == 3
    assert model.config.vision_config.deepstack_visual_indexes == [0, 2]


def test_at_least_thirty_classes_are_exported() -> None:
    assert len(EXPORTED) >= 30
