"""Sweeping equals evaluating each edit alone, on every class, with no, one and two pictures in the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checks import Inputs
from .images import image_model
from .rows import ONE_IMAGE, PRUNED
from .sweeping import check_sweep, prompts
from .test_conformance import model_of

# Whose layers take more than the stream, or more than their own images; the bundled model is a qwen3_vl, and `make slow` checks all others.
SAMPLE = ("granite4_vision", "mllama", "gemma4", "qwen3_5")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in SAMPLE else pytest.mark.slow) for kind in PRUNED]
)
def test_sweep_equals_evaluate(kind: str, tmp_path: Path) -> None:
    """With as many pictures as it takes; `make slow` asks those of the sample without and with one too."""
    check(kind, prompts(kind)[-1:] if kind in SAMPLE else prompts(kind), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAMPLE)
def test_sweep_equals_evaluate_with_fewer_pictures(kind: str, tmp_path: Path) -> None:
    check(kind, prompts(kind)[:-1], tmp_path)


def check(kind: str, asked: list[tuple[int, Inputs]], tmp_path: Path) -> None:
    for n_images, inputs in asked:
        check_sweep(kind, image_model(kind) if n_images else model_of(kind), n_images, inputs, tmp_path / str(n_images))


@pytest.mark.parametrize("kind", ONE_IMAGE)
def test_a_class_counts_as_one_for_single_pictures_only_while_it_takes_no_second(kind: str, tmp_path: Path) -> None:
    from .images import image_inputs

    with pytest.raises((ValueError, RuntimeError)):
        check_sweep(kind, image_model(kind), 2, image_inputs(kind, n_images=2), tmp_path)
