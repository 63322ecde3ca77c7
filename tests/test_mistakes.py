"""Mistakes in calls of the public functions are told in a sentence that says what to write, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from oracles import made_recording

from vlm_analysis import (
    LoadedModel,
    PromptSet,
    PruneMask,
    StrataError,
    evaluate,
    export_checkpoint,
    many_masks,
    record,
    sweep,
)

ONE = PruneMask(16, (3,))
RECORDING = made_recording([("math", [0.5, 0.9, 0.8]), ("general", [0.5, 0.9, 0.8])])

CALLS: dict[str, tuple[Callable[[LoadedModel, PromptSet, Path], object], str]] = {
    "record, swapped": (lambda loaded, few, _: record(few, loaded), "expected prompts, got a LoadedModel"),  # type: ignore[arg-type]
    "evaluate, swapped": (lambda loaded, few, _: evaluate(few, loaded), "expected prompts, got a LoadedModel"),  # type: ignore[arg-type]
    "sweep of one edit": (lambda loaded, few, _: list(sweep(loaded, few, ONE)), r"Write \[edit\], or evaluate it"),  # type: ignore[arg-type]
    "sweep of layers": (lambda loaded, few, _: list(sweep(loaded, few, [(3,)])), r"Write PruneMask\(16, layers\)"),  # type: ignore[list-item]
    "export of layers": (lambda loaded, _, to: export_checkpoint(loaded, (3,), to), r"Write PruneMask\(16, layers\)"),  # type: ignore[arg-type]
    "one layer": (lambda *_: PruneMask(16, 5), r"expected several whole numbers, as in \[5, 3\], got '5'"),  # type: ignore[arg-type]
    "a layer in words": (lambda *_: PruneMask(16, ["5"]), r"whole numbers 0\.\.15, got '5'"),  # type: ignore[list-item]
    "criterion": (lambda *_: many_masks(RECORDING, [1], criteria=["nope"]), r"Unknown criteria: .*got \['nope'\]"),
    "one criterion": (lambda *_: many_masks(RECORDING, [1], criteria="random"), r"expected a list of some of \['block"),
    "strategy": (lambda *_: many_masks(RECORDING, [1], strategies=["nope"]), r"Unknown strategies: .*got \['nope'\]"),
    "one budget": (lambda *_: many_masks(RECORDING, 3), r"expected numbers of layers, as in range\(1, 5\), got '3'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CALLS)
def test_the_message_says_what_to_write(name: str, loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    call, expected = CALLS[name]
    with pytest.raises(StrataError, match=expected):
        call(loaded, few, tmp_path / "out")
    assert not (tmp_path / "out").exists()
