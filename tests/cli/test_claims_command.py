"""The claims on the command line: the table of the library, with and without a comparison."""

from __future__ import annotations

import json

import numpy as np
from compared import made
from typer.testing import CliRunner

from vlm_analysis import claims, cli
from vlm_analysis.workbench.shelf import keep_comparison
from vlm_analysis.workbench.workspace import Workspace


def test_they_are_those_of_the_library() -> None:
    right = {("target-aware", "first-k", 2): np.ones(20), ("others-aware", "first-k", 2): np.zeros(20)}
    comparison = made(right, ["math"] * 20)
    keep_comparison(Workspace(), comparison, "mine")
    done = CliRunner().invoke(cli.strata, ["claims", "mine", "--json"])
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)["claims"]
    assert [row["verdict"] for row in told] == list(claims(comparison)["verdict"])
    plain = CliRunner().invoke(cli.strata, ["claims"])
    assert plain.exit_code == 0, plain.stderr
    assert "Nothing was recovered" in plain.stdout
