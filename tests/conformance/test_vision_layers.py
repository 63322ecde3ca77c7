"""Layers through which a picture comes in: what happens when one is dropped, with a picture in the prompt.

DeepStack adds vision features after the first places of the layer list, whichever layers stand there. Dropping one of those layers
is the documented exception to "pruned equals skipped": the features move to the next layer that is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_analysis import PruneMask
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import MaskError
from vlm_analysis.models.layers import (
    cross_attention_layers,
    find_decoder_layers,
    locked_layers,
    protected_layers,
    text_config,
)

from .build import N_LAYERS, tiny_model
from .checks import Inputs, cached, logits, skipped, text_inputs, uncached
from .image_rows import IMAGES, TOKENS
from .images import image_inputs
from .rows import CHANGES
from .sample import sampled
from .test_conformance import check_decode, check_reload
from .test_images import made

DEEPSTACK = (
    "cohere_compass",
    "cosmos3_omni",
    "granite_docling",
    "qwen3_vl",
    "qwen3_vl_moe",
)  # features after two places
CROSS = [(1,), (4,), (1, 4), (0, 1), (2, 3, 4), (1, 3)]


@contextlib.contextmanager
def moved_last(model: Any, dropped: Sequence[int]) -> Iterator[None]:
    """Inside, the dropped layers stand at the end of the dense list, where they hand on what they are given."""
    layers, text = find_decoder_layers(model), text_config(model)
    before, kinds = dict(layers._modules), getattr(text, "layer_types", None)
    order = [*(index for index in range(len(layers)) if index not in dropped), *dropped]
    with skipped(layers, dropped):
        layers._modules = {str(place): before[str(index)] for place, index in enumerate(order)}
        if kinds:
            text.layer_types = [kinds[index] for index in order]
        try:
            yield
        finally:
            layers._modules = before
            if kinds:
                text.layer_types = kinds


def identity(model: Any, inputs: Inputs, dropped: Sequence[int]) -> torch.Tensor:
    with skipped(find_decoder_layers(model), dropped):
        return logits(model, inputs)


class TestDeepStack:
    @pytest.mark.parametrize("dropped", [(0,), (1,), (0, 1), (1, 4)], ids=str)
    @pytest.mark.parametrize("kind", sampled(DEEPSTACK))
    def test_the_features_move_to_the_next_kept_layer(self, kind: str, dropped: tuple[int, ...]) -> None:
        model, inputs = made(kind)
        view = logits(apply_edit(model, PruneMask(N_LAYERS, dropped)), inputs)
        with moved_last(model, dropped):
            assert torch.equal(view, logits(model, inputs))
        assert not torch.equal(view, identity(model, inputs, dropped))

    @pytest.mark.parametrize("kind", sampled(DEEPSTACK))
    def test_without_a_picture_the_view_equals_skipping(self, kind: str) -> None:
        model, inputs = made(kind)[0], text_inputs(kind)
        view = apply_edit(model, PruneMask(N_LAYERS, (0, 1)))
        assert torch.equal(logits(view, inputs), identity(model, inputs, (0, 1)))

    @pytest.mark.parametrize("dropped", [(2,), (4,), (2, 3)], ids=str)
    @pytest.mark.parametrize("kind", sampled(DEEPSTACK))
    def test_a_later_layer_is_skipped_to_the_last_bit(self, kind: str, dropped: tuple[int, ...]) -> None:
        model, inputs = made(kind)
        view = apply_edit(model, PruneMask(N_LAYERS, dropped))
        assert torch.equal(logits(view, inputs), identity(model, inputs, dropped))

    @pytest.mark.parametrize("kind", sampled(DEEPSTACK))
    def test_what_is_evaluated_is_what_is_exported(self, kind: str, tmp_path: Path) -> None:
        model, inputs = made(kind)
        chosen = [PruneMask(N_LAYERS, dropped) for dropped in ((0,), (1,), (0, 1))]
        check_reload(model, inputs, tmp_path, kind, chosen)
        check_decode(model, inputs, tmp_path, kind, chosen)

    @pytest.mark.parametrize("kind", sampled(DEEPSTACK))
    def test_the_layers_are_protected_with_the_reason(self, kind: str) -> None:
        reasons = protected_layers(made(kind)[0])
        assert [layer for layer, reason in reasons.items() if "DeepStack" in reason] == [0, 1]


class TestCrossAttention:
    """Mllama, whose layers 1 and 4 attend to the picture."""

    @pytest.mark.parametrize("picture", [True, False], ids=["picture", "text"])
    @pytest.mark.parametrize("dropped", CROSS, ids=str)
    def test_dropping_them_is_skipping_them(self, dropped: tuple[int, ...], picture: bool, tmp_path: Path) -> None:
        model, shown = made("mllama")
        inputs = shown if picture else text_inputs()
        mask = PruneMask(N_LAYERS, dropped)
        assert torch.equal(logits(apply_edit(model, mask), inputs), identity(model, inputs, dropped))
        if dropped in ((1, 4), (0, 1)):  # none is left; those that are get other numbers
            check_decode(model, inputs, tmp_path, "mllama", [mask])
            check_reload(model, inputs, tmp_path, "mllama", [mask])

    def test_the_configuration_counts_the_kept_ones_anew(self) -> None:
        view = apply_edit(made("mllama")[0], PruneMask(N_LAYERS, (0, 1)))
        assert cross_attention_layers(view) == [2]

    def test_numbers_beyond_the_last_layer_mean_nothing(self) -> None:
        """As Llama 3.2's list in a checkpoint of fewer layers: they are no layers, and leave the list with the dropped ones."""
        settings = CHANGES.get("mllama", {}) | TOKENS | {"vocab_size": 320} | IMAGES["mllama"][4]
        model = tiny_model("mllama", settings | {"text_config.cross_attention_layers": [1, 4, 9, 12]})
        assert cross_attention_layers(model) == [1, 4]
        inputs = image_inputs("mllama")
        for dropped in ((2,), (1, 2), (5,)):
            view = apply_edit(model, PruneMask(N_LAYERS, dropped))
            assert torch.equal(logits(view, inputs), identity(model, inputs, dropped))
        assert cross_attention_layers(apply_edit(model, PruneMask(N_LAYERS, (2,)))) == [1, 3]

    def test_they_are_protected_and_not_locked(self) -> None:
        model = made("mllama")[0]
        assert [layer for layer, reason in protected_layers(model).items() if "cross-attention" in reason] == [1, 4]
        assert locked_layers(model) == {}

    @pytest.mark.parametrize("dropped", [(0,), (0, 4), (0, 1, 2, 3), (0, 2, 3, 5)], ids=str)
    def test_a_mask_that_leaves_one_first_is_refused(self, dropped: tuple[int, ...]) -> None:
        with pytest.raises(
            MaskError, match=r"leaves layer \d first, a cross-attention layer: .* Take an earlier layer"
        ):
            apply_edit(made("mllama")[0], PruneMask(N_LAYERS, dropped))

    def test_left_first_it_would_break_decoding_with_a_picture(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vlm_analysis.edits.apply._check", lambda *_: None)
        model, inputs = made("mllama")
        view = apply_edit(model, PruneMask(N_LAYERS, (0,)))
        uncached(view, inputs)
        with pytest.raises(RuntimeError, match="size of tensor"):
            cached(view, inputs)


class TestKindsOfLayers:
    """Every layer of one kind may go, but not those in which a hybrid stack's cache counts its tokens."""

    @pytest.mark.parametrize(
        "kind", sampled(["qwen3_5", "lfm3_vl", "gemma3", "aya_vision", "cohere2_vision", "llama4"])
    )
    def test_all_layers_of_a_kind(self, kind: str, tmp_path: Path) -> None:
        model, inputs = made(kind)
        kinds = model.config.get_text_config().layer_types
        for one in sorted(set(kinds)):
            mask = PruneMask(N_LAYERS, tuple(layer for layer, other in enumerate(kinds) if other == one))
            if (kind, one) == ("qwen3_5", "full_attention"):
                with pytest.raises(MaskError, match="drops every attention layer"):
                    apply_edit(model, mask)
                continue
            assert torch.equal(logits(apply_edit(model, mask), inputs), identity(model, inputs, mask.dropped))
            check_decode(model, inputs, tmp_path, kind, [mask])
            check_reload(model, inputs, tmp_path / one, kind, [mask])

    def test_without_attention_layers_a_hybrid_stack_could_not_decode(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vlm_analysis.edits.apply._check", lambda *_: None)
        model, inputs = made("qwen3_5")
        with pytest.raises(ValueError, match="get_seq_length"):
            cached(apply_edit(model, PruneMask(N_LAYERS, (1, 3, 5))), inputs)
