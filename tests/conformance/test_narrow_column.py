"""Which layers of a class can be made narrow, cut or zeroed; and, of some, a smaller checkpoint that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm_analysis import Edit, Narrow, apply_edit, export_checkpoint
from vlm_analysis.errors import EditError, ExportError
from vlm_analysis.export.narrow import masked_weights
from vlm_analysis.models.layers import layer_info

from .build import N_LAYERS
from .checks import loaded_as, logits, reloaded, text_inputs
from .images import processor_of
from .narrowing import NARROW, OF_ONE_SIZE, check_narrow
from .rows import EXCEPTIONS, PRUNED
from .test_conformance import model_of

QUICK = (
    "fuyu",
    "glm4v",
    "lfm2_vl",
)  # neurons alone; gate and up in one weight; a layer without attention, and other names


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in PRUNED]
)
def test_class_is_made_narrow_or_says_why_not(kind: str) -> None:
    check_narrow(kind, model_of(kind))


REASONS = {
    "blip": "has no projections of known names",
    "chameleon": "q_norm has numbers for all",
    "gemma4": "share keys and values",
    "kimi_k25": "packed",
    "kosmos-2": "inner_attn_ln has numbers",
    "mllama": "come from the image",
    "qwen3_5": "a state",
    "qwen3_vl_moe": "routes tokens to experts",
}


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind == "mllama" else pytest.mark.slow) for kind in REASONS],
)
def test_what_cannot_be_cut_is_refused_with_its_reason(kind: str) -> None:
    widths = layer_info(model_of(kind)).widths
    locked = [layer for layer, width in enumerate(widths) if width.attention_locked]
    change = Narrow({}, {locked[0]: [0]}) if locked else Narrow({0: [0]})
    with pytest.raises(EditError, match=f"cannot be made narrow: .*{REASONS[kind]}"):
        apply_edit(model_of(kind), Edit(N_LAYERS, (change,)))


def everywhere(kind: str) -> tuple[bool, bool]:
    """Return whether all layers of a class can lose neurons and export so, and whether they can lose groups and do."""
    neurons, groups = NARROW.get(kind, (N_LAYERS, N_LAYERS))
    return neurons == N_LAYERS and kind not in UNEVEN, groups == N_LAYERS and kind not in OF_ONE_SIZE


def uniform(neurons: bool, groups: bool) -> Edit:
    kept = {layer: range(layer % 2, 48, 2) for layer in range(N_LAYERS)} if neurons else {}
    return Edit(N_LAYERS, (Narrow(kept, {layer: [layer % 2] for layer in range(N_LAYERS)} if groups else {}),))


UNEVEN = ("gemma3n", "idefics2")  # layers of several widths; a connector as wide as the MLPs
EXPORTED = [kind for kind in PRUNED if any(everywhere(kind)) and (kind, "reload") not in EXCEPTIONS]


@pytest.mark.parametrize(
    "kind",  # tests/edits/test_narrow.py exports the bundled model
    [pytest.param(kind, marks=[] if kind == "lfm2_vl" else pytest.mark.slow) for kind in EXPORTED],
)
def test_a_uniform_edit_is_a_smaller_checkpoint_equal_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    loaded, edit = loaded_as(model_of(kind), processor_of(kind), tmp_path / "source"), uniform(*everywhere(kind))
    manifest = export_checkpoint(loaded, edit, tmp_path / "narrow", verify=False)
    fresh, view = reloaded(tmp_path / "narrow", loaded.model.config), apply_edit(loaded.model, edit)
    assert torch.equal(logits(fresh, text_inputs(kind)), logits(view, text_inputs(kind)))
    n_parameters = sum(parameter.numel() for parameter in fresh.parameters())
    saved = edit.saved_parameters(loaded.info)
    assert n_parameters == manifest.parameters_after == loaded.n_parameters - saved
    assert saved > 0


@pytest.mark.parametrize(
    ("kind", "edit", "units"),
    [
        *(
            pytest.param(
                kind,
                uniform(False, True),
                "attention groups",
                marks=[] if kind == "deepseek_ocr2" else pytest.mark.slow,
            )
            for kind in OF_ONE_SIZE
        ),
        pytest.param("idefics2", uniform(True, False), "MLP neurons", marks=pytest.mark.slow),
    ],
)
def test_a_class_that_builds_no_such_layers_is_refused_small_and_written_as_zeros(
    kind: str, edit: Edit, units: str, tmp_path: Path
) -> None:
    loaded = loaded_as(model_of(kind), processor_of(kind), tmp_path / "source")
    with pytest.raises(ExportError, match=f"expected .* got .*masked=True, --masked\\), or keep all {units}"):
        export_checkpoint(loaded, edit, tmp_path / "no", verify=False)
    assert not (tmp_path / "no").exists()
    export_checkpoint(loaded, edit, tmp_path / "zeros", masked=True, verify=False)
    fresh, view = reloaded(tmp_path / "zeros", loaded.model.config), apply_edit(loaded.model, masked_weights(edit))
    assert torch.equal(logits(fresh, text_inputs(kind)), logits(view, text_inputs(kind)))


def test_every_exception_is_of_a_class_that_is_pruned() -> None:
    assert {*NARROW, *OF_ONE_SIZE, *UNEVEN} <= set(PRUNED)
