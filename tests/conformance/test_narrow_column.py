"""Which layers of a class can be made narrow, cut or zeroed; and, of some, a smaller checkpoint that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm_analysis import Edit, Narrow, apply_edit, export_checkpoint
from vlm_analysis.errors import EditError, ExportError
from vlm_analysis.models.layers import layer_info

from .build import N_LAYERS
from .checks import cached, loaded_as, logits, reloaded, text_inputs, uncached
from .images import processor_of
from .narrowing import NARROW, check_narrow, narrow_edits
from .rows import PRUNED
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


@pytest.mark.parametrize(
    "kind",
    [
        "glm4v",
        pytest.param("qwen3_vl", marks=pytest.mark.slow),
        pytest.param("lfm2_vl", marks=pytest.mark.slow),
    ],
)
def test_a_narrow_view_decodes_the_same_with_and_without_cache(kind: str) -> None:
    model, inputs = model_of(kind), text_inputs(kind)
    view = apply_edit(model, narrow_edits(model)[0])
    assert cached(view, inputs) == uncached(view, inputs)


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


def uniform(neurons: bool, groups: bool) -> Edit:
    kept = {layer: range(layer % 2, 48, 2) for layer in range(N_LAYERS)} if neurons else {}
    return Edit(N_LAYERS, (Narrow(kept, {layer: [layer % 2] for layer in range(N_LAYERS)} if groups else {}),))


@pytest.mark.slow  # tests/edits/test_narrow.py exports the bundled model
@pytest.mark.parametrize(
    "kind", ["aya_vision", "gemma3", "glm4v", "internvl", "llava", "mistral3", "paligemma", "smolvlm"]
)
def test_a_uniform_edit_is_a_smaller_checkpoint_equal_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    loaded, edit = loaded_as(model_of(kind), processor_of(kind), tmp_path / "source"), uniform(True, True)
    export_checkpoint(loaded, edit, tmp_path / "narrow", verify=False)
    fresh, view = reloaded(tmp_path / "narrow", loaded.model.config), apply_edit(loaded.model, edit)
    assert torch.equal(logits(fresh, text_inputs(kind)), logits(view, text_inputs(kind)))
    text = fresh.config.get_text_config()
    assert (text.intermediate_size, text.num_attention_heads, text.num_key_value_heads) == (24, 1, 1)


@pytest.mark.slow
def test_a_class_that_computes_its_head_size_is_refused_small_without_all_groups(tmp_path: Path) -> None:
    """Qwen2.5-VL: hidden size over heads. Its neurons alone make a smaller checkpoint."""
    kind = "qwen2_5_vl"
    loaded = loaded_as(model_of(kind), processor_of(kind), tmp_path / "source")
    with pytest.raises(ExportError, match=r"q_proj\.(weight|bias).*masked=True"):
        export_checkpoint(loaded, uniform(False, True), tmp_path / "no", verify=False)
    export_checkpoint(loaded, uniform(True, False), tmp_path / "narrow", verify=False)
    fresh, view = reloaded(tmp_path / "narrow", loaded.model.config), apply_edit(loaded.model, uniform(True, False))
    assert torch.equal(logits(fresh, text_inputs(kind)), logits(view, text_inputs(kind)))


def test_every_exception_is_of_a_class_that_is_pruned() -> None:
    assert NARROW.keys() <= set(PRUNED)
