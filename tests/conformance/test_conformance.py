"""Every vision-language class of the installed transformers, made tiny: pruned, decoded, saved, loaded, or refused with a reason."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_analysis import Edit, PruneMask, export_checkpoint
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import MaskError, ModelError
from vlm_analysis.models.layers import (
    attention_layers,
    cross_attention_layers,
    find_decoder_layers,
    locked_layers,
    protected_layers,
)

from .build import N_LAYERS, tiny_model
from .checks import Inputs, cached, loaded_as, logits, masks, reloaded, skipped, text_inputs, uncached
from .images import processor_of
from .rows import ALONE, CHANGES, EXCEPTIONS, KINDS, LOCKS, NOT_BUILT, PRUNED, REFUSED
from .sample import SAMPLE, sampled

Masks = Sequence[Edit]


@functools.lru_cache(maxsize=1)
def model_of(kind: str) -> Any:
    return tiny_model(kind, CHANGES.get(kind), alone=kind in ALONE)


def check_layers(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """The layers found are those that run, in order, once each."""
    layers, ran = find_decoder_layers(model), []
    assert len(layers) == N_LAYERS
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index)) for index, layer in enumerate(layers)
    ]
    logits(model, inputs)
    for hook in hooks:
        hook.remove()
    asleep = cross_attention_layers(model)  # without an image
    assert ran == [index for index in range(N_LAYERS) if index not in asleep]


def check_prune(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """The view's logits are those of the dense model with the layers skipped, to the last bit, and not the dense ones."""
    dense = logits(model, inputs)
    for mask in chosen:
        with skipped(find_decoder_layers(model), mask.dropped):
            expected = logits(model, inputs)
        assert torch.equal(logits(apply_edit(model, mask), inputs), expected), mask.dropped
        assert not torch.equal(expected, dense), mask.dropped


def check_dense(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """Making and running a view leaves the dense model's logits and configuration as they were."""
    config, dense = model.config.to_dict(), logits(model, inputs)
    for mask in chosen:
        logits(apply_edit(model, mask), inputs)
    assert model.config.to_dict() == config
    assert torch.equal(logits(model, inputs), dense)
    assert len(find_decoder_layers(model)) == N_LAYERS


def check_decode(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """The view writes the same tokens with its cache and without."""
    for mask in chosen:
        assert cached(apply_edit(model, mask), inputs) == uncached(apply_edit(model, mask), inputs), mask.dropped


def check_reload(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """The exported view, loaded by plain transformers, has the view's logits to the last bit, its layers and its processor."""
    source = folder / "source"
    loaded = loaded_as(model, processor_of(kind), source)
    for number, mask in enumerate(chosen):
        target = folder / f"pruned-{number}"
        export_checkpoint(loaded, mask, target, verify=False)
        fresh, view = reloaded(target, model.config), apply_edit(model, mask)
        assert torch.equal(logits(fresh, inputs), logits(view, inputs)), mask.dropped
        assert len(find_decoder_layers(fresh)) == len(mask.kept)
        for file in source.rglob("*.*"):
            copy = target / file.relative_to(source)
            assert copy.is_file(), file.name
            assert copy.read_bytes() == file.read_bytes(), file.name


def check_locks(model: Any, inputs: Inputs, folder: Path, kind: str, chosen: Masks) -> None:
    """Exactly the expected layers are locked; each is refused with its reason; the last attention layer of a hybrid stays."""
    expected = LOCKS.get(kind, {})
    assert locked_layers(model).keys() == expected.keys()
    for layer, reason in expected.items():
        with pytest.raises(MaskError, match=f"Layer {layer} cannot be dropped: .*{reason}"):
            apply_edit(model, PruneMask(N_LAYERS, (layer,)))
    assert {0, N_LAYERS - 1} <= protected_layers(model).keys()
    if attention := attention_layers(model):
        with pytest.raises(MaskError, match=r"every attention layer|cannot be dropped"):
            apply_edit(model, PruneMask(N_LAYERS, tuple(attention)))


CHECKS = {
    "layers": check_layers,
    "prune": check_prune,
    "dense": check_dense,
    "decode": check_decode,
    "reload": check_reload,
    "locks": check_locks,
}


def hold(kind: str, check: str, model: Any, inputs: Inputs, folder: Path) -> None:
    """Run a check; one that a class cannot pass must fail on the dense model too. What takes long is done with one mask of a sample."""
    if (kind, check) in EXCEPTIONS:
        with pytest.raises(AssertionError):
            CHECKS[check](model, inputs, folder, kind, [PruneMask(N_LAYERS)])
    else:
        chosen = masks(model)[-1:] if kind in SAMPLE and check in ("decode", "reload") else masks(model)
        CHECKS[check](model, inputs, folder, kind, chosen)


@pytest.mark.parametrize(("kind", "check"), sampled(PRUNED, CHECKS))
def test_class(kind: str, check: str, tmp_path: Path) -> None:
    hold(kind, check, model_of(kind), text_inputs(kind), tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind != "udop" and REFUSED[kind] == REFUSED["udop"] else [])
        for kind in REFUSED
    ],
)
def test_class_is_refused_with_its_reason(kind: str) -> None:
    with pytest.raises(ModelError, match=REFUSED[kind]):
        find_decoder_layers(tiny_model(kind, CHANGES.get(kind)))


@pytest.mark.parametrize("kind", [*NOT_BUILT, *ALONE])
def test_class_that_cannot_be_built_here_still_cannot(kind: str) -> None:
    with pytest.raises((ImportError, ValueError)):
        tiny_model(kind, CHANGES.get(kind))


def test_every_class_of_the_installed_transformers_has_a_row() -> None:
    assert set(KINDS) == set(PRUNED) | REFUSED.keys() | NOT_BUILT.keys()
    assert len(PRUNED) - len({kind for kind, _ in EXCEPTIONS}) >= 50


def test_the_sample_has_every_class_with_locked_layers_or_an_exception() -> None:
    assert LOCKS.keys() | {kind for kind, _ in EXCEPTIONS} <= SAMPLE.keys() <= set(PRUNED)


def test_the_remark_on_nemotron_holds_for_the_dense_model_too() -> None:
    """With the least time step that its configuration has by default, cached logits leave those of the whole pass; without, not."""
    differences = []
    for least in (0.001, 1e-9):
        model = tiny_model("nemotron_h_omni", CHANGES["nemotron_h_omni"] | {"text_config.time_step_min": least})
        ids = text_inputs()["input_ids"]
        with torch.no_grad():
            cache = model(input_ids=ids, use_cache=True).past_key_values
            for token in range(3, 9):
                step = model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True).logits[:, -1]
        whole = logits(model, {"input_ids": torch.cat([ids, torch.arange(3, 9)[None]], dim=1)})[:, -1]
        differences.append(float((step - whole).abs().max()))
    assert differences[0] > 1e-3 > 1e-4 > differences[1]
