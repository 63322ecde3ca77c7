"""`strata export-task`: prompts become a task of a harness, without a model."""

from __future__ import annotations

import json
from pathlib import Path

from tables import RED
from typer.testing import CliRunner, Result

from vlm_analysis import Prompt, PromptSet, cli, write_prompts

PROMPTS = PromptSet([Prompt((RED,), "which?", id="a", answer="red"), Prompt((RED,), "no answer", id="b")])


def strata(*words: object) -> Result:
    return CliRunner().invoke(cli.strata, ["export-task", *map(str, words)])


def test_the_task_is_written_and_its_commands_are_told(tmp_path: Path) -> None:
    table = write_prompts(PROMPTS, tmp_path / "own")
    done = strata(table, tmp_path / "task", "--name", "mine", "--dense", "pocket-vl", "--matches", "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["name"], told["n_prompts"], told["left_out"]) == ("mine", 1, ["b"])
    assert len(told["commands"]) == 4
    assert "pocket-vl,dtype=auto" in told["commands"][0]
    assert (tmp_path / "task" / "lm-evaluation-harness" / "strata_matches.py").exists()


def test_a_folder_that_holds_something_is_refused_before_the_prompts_are_read(tmp_path: Path) -> None:
    (tmp_path / "full").write_text("mine")
    done = strata("no such prompts", tmp_path / "full")
    assert done.exit_code == 2
    assert "expected a new or empty folder" in done.stderr
