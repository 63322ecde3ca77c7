"""A repair is kept under its recipe, and goes the whole way: workspace, command line, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlm_analysis import Bench, Fold, LoadedModel, PromptSet, PruneMask, cli, open_edit, repair
from vlm_analysis.errors import EditError
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.workspace import Workspace

MASK = PruneMask(8, (2, 5), name="mine")


def test_a_recipe_is_made_once_and_its_edit_is_that_of_the_library(
    small: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch
):
    bench, few = Bench(small, tmp_path), few[:2]
    item = bench.recover(MASK, few, "scale", penalty=0.1)
    assert bench.open(item) == repair(small, MASK, few, "scale", penalty=0.1)
    assert (item.name, item.details["dropped"]) == ("mine, repaired (scale)", [2, 5])
    other = bench.recover(MASK, few, name="ridge")
    assert (other.name, other.id != item.id) == ("ridge", True)
    monkeypatch.setattr("vlm_analysis.recovery.closed_form.repair", None)
    assert Bench(small, tmp_path).recover(MASK, few, "scale", penalty=0.1) == item
    item.path.with_suffix(".safetensors").unlink()
    with pytest.raises(TypeError):  # what is damaged is made anew
        bench.recover(MASK, few, "scale", penalty=0.1)


def test_what_cannot_be_repaired_saves_nothing(small: LoadedModel, few: PromptSet, tmp_path: Path):
    bench = Bench(small, tmp_path)
    with pytest.raises(EditError, match=r"Nothing was repaired: .* \(layer 0: no layer before it is kept\)"):
        bench.recover(PruneMask(8, (0,)), few[:1])
    with pytest.raises(EditError, match="as how, got 'magic'"):
        bench.recover(MASK, few[:1], "magic")
    assert bench.workspace.items("masks") == []


@pytest.mark.usefixtures("_no_bars", "_proved_here")
def test_the_command_repairs_evaluates_and_exports(few: PromptSet, tmp_path: Path):
    keep_prompts(Workspace(), few[:2], "few")
    out, folder = tmp_path / "repaired.json", tmp_path / "pruned"

    def strata(*words: object) -> str:
        done = CliRunner().invoke(cli.strata, [str(word) for word in words])
        assert done.exit_code == 0, (done.stderr, done.exception)
        return done.stdout

    said = strata("recover", "few", "5,9,10", "--how", "ridge", "--name", "repaired", "--out", out)
    assert "Layer 5: folded into layer 4 (mlp.down_proj); of what they added," in said
    assert "Layers 9 and 10: folded into layer 8" in said
    edit = open_edit(out)
    assert [type(change) is Fold for change in edit.changes] == [False, True, True]
    by_name, by_file = (
        json.loads(strata("evaluate", "few", each, "--no-responses", "--json")) for each in ("repaired", out)
    )
    assert (by_name["by_prompt"], by_name["key"]) == (by_file["by_prompt"], edit.key)
    strata("export", out, folder, "--no-probe")
    manifest = json.loads((folder / "strata-manifest.json").read_text())
    assert (manifest["verified"], manifest["n_layers_after"]) == (True, 13)
    assert open_edit(folder / "strata-edit" / "edit.json") == edit
    assert not list(folder.glob("strata*.safetensors")), "engines load every weight that lies there"
