"""Width on the command line: saved scores are opened, each share becomes an edit, and options of choosing need one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from vlm_analysis import LoadedModel, PromptSet, cli, make_narrow, open_width_scores, score_width
from vlm_analysis.workbench.shelf import keep, keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace


def strata(*words: str) -> Any:
    return CliRunner().invoke(cli.strata, words)


@pytest.mark.usefixtures("_loaded_once")
def test_saved_scores_are_opened_and_each_share_makes_the_edit_of_the_library(
    loaded: LoadedModel, few: PromptSet, tmp_path: Any
) -> None:
    shelf = Workspace()
    keep_prompts(shelf, few[3:4], "few")
    scores = score_width(loaded, few[3:4])
    item = keep(shelf, "widths", scores, "scores of few")
    out = tmp_path / "it.npz"
    words = (
        "--share",
        "0.1",
        "--share",
        "0.3",
        "--least",
        "0.5",
        "--pivots",
        "none",
        "--out",
        str(out),
        "--json",
        "--quiet",
    )
    done = strata("width", "few", *words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["kind"], told["id"], told["how"], len(told["rows"])) == ("widths", item.id, "exact", 16)
    assert told["finding"] == scores.finding()
    options: dict[str, Any] = {"least": 0.5, "pivots": "none"}
    chosen = [open_item(one) for one in shelf.items("masks")]
    assert set(chosen) == {make_narrow(scores, share, "uniform", **options) for share in (0.1, 0.3)}
    assert open_width_scores(out).about() == scores.about()
    assert [strata("show", name).exit_code for name in ("scores of few", str(out))] == [0, 0]
    named = strata("width", "few", "--share", "0.2", "--name", "mine", "--quiet")
    assert named.exit_code == 0, named.output
    assert [one.name for one in shelf.items("masks")].count("mine") == 1, "the name is the edit's"
    assert [one.id for one in shelf.items("widths")] == [item.id], "the scores are those that there were"
    refused = strata("width", "few", "--alpha", "1", "--quiet")
    assert refused.exit_code == 2
    assert "--alpha is of choosing: expected --share beside it" in " ".join(refused.stderr.split())
