"""What needs no model is refused before it is loaded, and a recovery that finds nothing is a finding."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_analysis import PromptSet, cli
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace


@pytest.fixture
def shelf(few: PromptSet) -> Workspace:
    made = Workspace()
    keep_prompts(made, few, "few")
    keep_prompts(made, few[:2], "two")
    return made


def strata(*words: str) -> Any:
    return CliRunner().invoke(cli.strata, [*words, "--quiet"])


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recover", "few", "3", "--how", "nosuch"), "There is no such recovery"),
        (("recover", "few", "3", "--how", "small", "--set", "rank=0"), "rank"),
        (("recover", "few", "dense", "--report", "few"), "got the dense model"),
        (("recover", "few", "3", "--report", "two"), "got 2 of 2 prompts that are learnt on"),
        (("sweep", "few", "--compare", "--criterion", "nosuch"), ", got nosuch. Choose again"),
        (("sweep", "few", "--compare", "--recover", "ridge"), "other prompts to report on"),
        (("sweep", "few", "--from", "two", "--recover", "nosuch"), "different ways to recover"),
        (("width", "few", "--share", "0.2", "--mode", "nosuch"), "Unknown mode of width"),
        (("width", "few", "--share", "0.2", "--form", "nosuch"), "Unknown form of narrow layers"),
        (("width", "few", "--share", "0.2", "--alpha", "nan"), "expected a number from 0 on as alpha"),
        (("width", "few", "--share", "0"), "expected a share of the parameters between 0 and 1"),
        (("width", "few", "--sides", "nosuch"), "expected one of each, all as sides"),
        (("width", "few", "--window", "1000001"), "expected a whole number in 1..1,000,000 as window"),
        (("width", "few", "--seed", str(2**53 + 1)), "expected a whole number from 0 to 2^53 as seed"),
    ],
)
def test_before_the_model_is_loaded(words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("vlm_analysis.models.load.load_model", loaded)
    done = strata(*words)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.stderr.split())


@pytest.mark.usefixtures("_loaded_once")
def test_a_recovery_that_finds_nothing_better_is_told_and_keeps_no_edit(shelf: Workspace) -> None:
    done = strata("recover", "two", "0", "--how", "ridge")
    assert done.exit_code == 0, done.output
    assert "Nothing was repaired" in done.stdout
    assert "No edit is saved." in done.stdout
    assert not shelf.items("masks")
    told = json.loads(strata("recover", "two", "0", "--json").stdout)
    assert (told["found"], told["how"]) == (False, "ridge")
