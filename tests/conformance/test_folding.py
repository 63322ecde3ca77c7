"""Into which classes a repair can fold a map, and the reason for all others."""

from __future__ import annotations

import pytest

from .folding import NO_FOLD, check_fold
from .rows import PRUNED
from .test_conformance import model_of

QUICK = (
    "blip-2",
    "gemma3n",
    "granite_docling",
    "qwen3_vl_moe",
)  # all tokens in one row, several streams, a factor, experts


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in PRUNED]
)
def test_class_takes_a_map_or_says_why_not(kind: str) -> None:
    check_fold(kind, model_of(kind))


def test_every_reason_is_of_a_class_that_is_pruned() -> None:
    assert NO_FOLD.keys() <= set(PRUNED)
