"""What the documentation shows runs as it stands."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


DOCTESTED = ("masks.mask", "dialects", "memory", "fit", "ui.text")


@pytest.mark.parametrize("name", [f"vlm_analysis.{name}" for name in DOCTESTED])
def test_docstring_examples_are_true(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_library_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(code.group(1), "README.md", "exec"), {})
    assert "exact_match" in capsys.readouterr().out
    assert (tmp_path / "pruned" / "model.safetensors").exists()


def test_pictures_and_pages_the_readme_links_to_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target
