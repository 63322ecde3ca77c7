"""`--project`: every subcommand that sees the workspace takes it, works in that project alone, and says when its name is new."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner, Result

from vlm_analysis import PruneMask, cli
from vlm_analysis.workbench.shelf import keep_mask
from vlm_analysis.workbench.workspace import Workspace

NO_WORKSPACE = {"app", "probe"}


def strata(*words: str) -> Result:
    return CliRunner().invoke(cli.strata, words)


def test_every_subcommand_that_sees_the_workspace_takes_a_project() -> None:
    group = typer.main.get_command(cli.strata)
    without = {
        name
        for name, one in group.commands.items()  # type: ignore[attr-defined]
        if not any("--project" in option.opts for option in one.params)
    }
    assert without == NO_WORKSPACE


def test_a_project_is_worked_in_alone_and_a_new_one_is_said_to_be_new() -> None:
    keep_mask(Workspace(), PruneMask(16, (5, 9), name="before"))
    keep_mask(Workspace(project="study"), PruneMask(16, (3,), name="own"))
    assert strata("show", "own", "--project", "STUDY").exit_code == 0
    assert "names nothing saved" in strata("show", "before", "--project", "study").stderr
    assert "names nothing saved" in strata("show", "own").stderr
    assert not strata("show", "--project", "study").stderr
    done = strata("show", "--project", "studdy")
    assert (done.exit_code, done.stderr) == (0, "The project 'studdy' is new; there are default, study.\n")
    assert Workspace().projects() == ["study"]


@pytest.mark.parametrize("name", ["../..", "a/b", "\x1b[2J", "con"])
def test_a_name_that_is_not_plain_is_one_message(name: str) -> None:
    done = strata("show", "--project", name)
    assert done.exit_code == 2
    assert "No project can have this name" in done.stderr
    assert "\x1b" not in done.stderr


def test_projects_are_listed_with_what_they_hold() -> None:
    keep_mask(Workspace(), PruneMask(16, (5, 9), name="before"))
    Workspace().begin_project("study")
    found = json.loads(strata("projects", "--json").stdout)["projects"]
    assert [(row["project"], row["masks"]) for row in found] == [("default", 1), ("study", 0)]
    assert strata("projects").stdout == "default: 1 item\nstudy: 0 items\n"
