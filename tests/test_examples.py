"""The examples run as they stand, from another folder, and say something."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import vlm_analysis
from vlm_analysis import KINDS, open_prompts

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
ALIKE_IN_README = ("prune_for_math", "compare_masks")  # which tests/test_docs.py runs
SAID = {
    "prune_for_math": "gave the same logits: True",
    "compare_masks": "masks.csv holds all",
    "own_kind_of_change": "scales the MLP of layer 12 by 0.5",
}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in ALIKE_IN_README)) for path in EXAMPLES],
)
def test_an_example_runs_as_it_stands(path, tmp_path, monkeypatch, capsys):
    """On the first prompts of each pack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vlm_analysis, "open_prompts", lambda source: open_prompts(source)[:6])
    monkeypatch.setattr(sys, "argv", [str(path)])
    kinds = dict(KINDS)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        KINDS.clear()
        KINDS.update(kinds)
    assert SAID[path.stem] in capsys.readouterr().out
