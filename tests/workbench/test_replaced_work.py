"""A replaced window is trained once for each recipe, by the Bench and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_analysis import Bench, Cancelled, LoadedModel, PromptSet, Replace, cli, replace_window
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace

SHORT = {"most_steps": 2, "checks": 2, "learning_rate": 1e-3}


def test_a_stopped_training_keeps_its_best_and_goes_on_and_is_made_once(
    small: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bench, few = Bench(small, tmp_path), few[:2]

    def stop(done: int, total: int, message: str) -> None:
        if message.startswith("training: ") and done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        bench.replace(few, 1, window=3, on_progress=stop, **SHORT)
    (unfinished,) = bench.workspace.items("masks")
    assert unfinished.name == "replaces layers 3 and 4 by one, unfinished"
    item = bench.replace(few, 1, window=3, **SHORT)
    assert bench.open(item) == replace_window(small, few, 1, window=3, **SHORT)
    assert bench.workspace.items("masks") == [item]
    monkeypatch.setattr("vlm_analysis.recovery.replacing.replace_window", None)
    assert Bench(small, tmp_path).replace(few, 1, window=3, **SHORT) == item


@pytest.mark.usefixtures("_no_bars")
def test_the_command_replaces_and_evaluates(few: PromptSet):
    keep_prompts(Workspace(), few[:2], "few")

    def strata(*words: str) -> str:
        done = CliRunner().invoke(cli.strata, list(words))
        assert done.exit_code == 0, (done.stderr, done.exception)
        return done.stdout

    options = [part for name, value in SHORT.items() for part in ("--set", f"{name}={value}")]
    said = strata("replace", "few", "2", "--window", "5", "--name", "one", *options)
    assert "Layers 5, 6 and 7 became one" in said
    assert "of what the window changes before" in said
    scored = json.loads(strata("evaluate", "few", "one", "--no-responses", "--json"))
    (item,) = Workspace().items("masks")
    (change,) = open_item(item).changes
    assert (type(change), change.window, scored["key"]) == (Replace, (5, 6, 7), open_item(item).key)
    assert {row["domain"] for row in scored["stability"]} == {"math"}
