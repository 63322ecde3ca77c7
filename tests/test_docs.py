"""What the documentation shows runs as it stands."""

from __future__ import annotations

import copy
import doctest
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from fixtures import listed
from scored import n_scores
from typer.testing import CliRunner

import vlm_analysis
from vlm_analysis import PruneMask, cli, mask_table, open_prompts
from vlm_analysis.models import load
from vlm_analysis.prompts import opening
from vlm_analysis.workbench import exports
from vlm_analysis.workbench.kinds import KINDS

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("_short_timings", "_proved_here")


DOCTESTED = (
    "assets",
    "edits.edit",
    "edits.kinds.vision",
    "edits.skipping",
    "export.dialects",
    "models.memory",
    "models.fit",
    "prompts.cells",
    "recovery.finetune.targets",
    "prompts.hubsplits",
    "words",
    "workbench.terminal",
    "edits.shorthand",
    "cli.output",
)


@pytest.mark.parametrize("name", [f"vlm_analysis.{name}" for name in DOCTESTED])
def test_docstring_examples_are_true(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def blocks() -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(found) == 4
    return found


@pytest.mark.parametrize("most", [12, pytest.param(None, marks=pytest.mark.slow)])
def test_library_examples_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch, capsys, most):
    """As they stand, on the first prompts of each pack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vlm_analysis, "open_prompts", lambda source: open_prompts(source)[:most])
    names: dict[str, object] = {}
    for code in blocks()[:2]:
        exec(compile(code, "README.md", "exec"), names)
    said = capsys.readouterr().out
    assert "exact_match" in said
    assert "ranking-sensitive" in said or "converging" in said
    assert len(mask_table(names["comparison"])) > 20
    assert (tmp_path / "pruned" / "model.safetensors").exists()
    assert n_scores(tmp_path / "scores") > 0


@pytest.mark.usefixtures("_loaded_once")
def test_lines_of_the_readme_run_one_after_the_other(tmp_path, monkeypatch):
    """As they stand, but on one prompt of each pack, with fewer steps and rounds, and the model is loaded once."""
    (block,) = re.findall(r"```sh\n(strata record.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for module in (opening, exports):
        monkeypatch.setattr(
            module, "open_prompts", lambda source: open_prompts(source)[: 1 if isinstance(source, str) else None]
        )
    said = {}
    for line in block.replace("most_steps=20", "most_steps=2").replace("--rounds 3", "--rounds 1").splitlines():
        _, *words = shlex.split(line)
        done = CliRunner().invoke(cli.strata, words)
        assert done.exit_code == 0, (line, done.stderr, done.exception)
        said[words[0]] = done.stdout
    assert "drops 3 of 16 layers" in said["mask"]
    assert said["show"].splitlines()[0] == said["mask"].splitlines()[0]
    assert len(json.loads(said["cost"])["costs"]) == 1
    assert (tmp_path / "sweep.csv").read_text().startswith("edit,dropped,domain")
    assert (tmp_path / "pruned" / "model.safetensors").exists()
    assert (tmp_path / "task" / "prompts.parquet").exists()
    assert "Nothing saved is damaged" in said["doctor"]


def test_the_bench_of_the_readme_runs_on_what_came_before_it(packs, small, monkeypatch):
    """On one prompt, where the examples before it have all, and on half of the layers."""
    monkeypatch.setattr(load, "load_model", lambda source, **_: {"pocket-vl": copy.copy(small)}[source])
    one = packs[45:46]
    names = {"prompts": one, "choose": one, "report": one, "mask": PruneMask(8, (3, 5, 6))}
    exec(compile(blocks()[2], "README.md", "exec"), names)
    kept = names["bench"].workspace
    assert {kind for kind in KINDS if kept.items(kind)} >= {
        "recordings",
        "evaluations",
        "masks",
        "comparisons",
        "costs",
    }


def test_the_readme_opens_files_of_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    listed(tmp_path / "images" / "unused.json", [])  # with a.png and b.png beside it
    said = [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a house"}]
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.png", "conversations": said}]))
    (tmp_path / "mine.csv").write_text("file,prompt,subject\nimages/a.png,was?,Zeichnung\n")
    names = {}
    exec(compile(blocks()[3], "README.md", "exec"), names)
    assert capsys.readouterr().out == "LLaVA conversations: 'conversations' with 'from' and 'value'\n"
    assert [prompt.answer for prompt in names["prompts"]] == ["a house"]


def test_pictures_and_pages_the_readme_links_to_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target
