"""Masks of other tools on the command line: the ending of --out says the tool, and --drop and EDIT take their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rankings import full_recording
from typer.testing import CliRunner, Result

from vlm_analysis import PruneMask, cli, open_dialect, save_recording
from vlm_analysis.cli.lookup import find_edits
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.workbench.workspace import Workspace

CONFIG = {"text_config": {"num_hidden_layers": 9, "num_key_value_heads": 1, "intermediate_size": 8}}
MASK = PruneMask(9, (3, 4))


def strata(*words: object) -> Result:
    return CliRunner().invoke(cli.strata, [str(word) for word in words])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder with a recording of nine layers and its model's configuration."""
    save_recording(full_recording(3), tmp_path / "made.npz")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


@pytest.mark.parametrize("name", ["m.json", "m.optipfair.json", "m.txt", "m.Puzzletron.JSON", "m.csv", "m.yaml"])
def test_the_ending_of_a_file_says_whom_it_is_for_and_it_can_be_dropped_again(made: Path, name: str) -> None:
    config = made / "config.json"
    written = strata("mask", made / "made.npz", "--drop", "3,4", "--out", made / name, "--config", config)
    assert written.exit_code == 0, written.stderr
    text = (made / name).read_text()
    assert open_dialect(text.encode(), name, n_layers=9) == MASK
    assert {"m.txt": "--prune-layers 3,4\n", "m.optipfair.json": "[3, 4]\n"}.get(name, text) == text
    again = strata("mask", made / "made.npz", "--drop", made / name, "--json")
    assert json.loads(again.stdout)["key"] == MASK.key


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.json", "[3, 4]", "optipfair's list"),
        ("m.json", '{"drop_attn_list": [3, 4], "drop_mlp_list": [3, 4], "num_hidden_layers": 9}', "LLM-Drop's file"),
        ("m.txt", "3,4", "optipfair's list"),
        ("m.txt", "--prune-layers 3,4", "llama.cpp's list"),
    ],
)
def test_the_tool_whose_file_was_read_is_named(made: Path, name: str, text: str, words: str) -> None:
    (made / name).write_text(text)
    assert strata("mask", made / "made.npz", "--drop", made / name).stderr.endswith(f"{name}: read as {words}\n")
    strata("mask", made / "made.npz", "--drop", made / name, "--out", made / "again.json")
    assert strata("mask", made / "made.npz", "--drop", made / "again.json").stderr == ""


def test_layers_that_should_stay_and_are_dropped_by_hand_are_named_with_the_reason(made: Path) -> None:
    model = replace(full_recording(3).model, protected={0: "first", 1: "DeepStack", 2: "DeepStack"})
    save_recording(replace(full_recording(3), model=model), made / "made.npz")
    done = strata("mask", made / "made.npz", "--drop", "0-3", "--out", made / "m.llama.txt")
    assert done.exit_code == 0
    assert done.stderr == "Layers that should stay are dropped: layer 0 (first); layers 1 and 2 (DeepStack)\n"
    assert strata("mask", made / "made.npz", "--drop", "4", "--out", made / "m.txt").stderr == ""


def test_puzzletron_needs_the_configuration_and_says_how_to_name_it(made: Path) -> None:
    done = strata("mask", made / "made.npz", "--drop", "3,4", "--out", made / "m.puzzletron.json")
    assert done.exit_code == 2
    assert done.stderr.startswith("The mask cannot be written for Puzzletron: expected the dense model's config.json")
    assert "`--config` of `strata mask`" in done.stderr
    assert not (made / "m.puzzletron.json").exists()


def test_a_mask_of_another_number_of_layers_is_not_dropped(made: Path) -> None:
    (made / "m.csv").write_text("layer,kept\n0,1\n1,0\n")
    done = strata("mask", made / "made.npz", "--drop", made / "m.csv")
    assert done.exit_code == 2
    assert "expected a mask of 9 layers, got one of 2" in done.stderr


def test_a_list_takes_its_number_of_layers_from_the_model_which_is_asked_only_then(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[3, 4]")
    (tmp_path / "table.csv").write_text("layer,kept\n0,1\n1,0\n")

    def fail() -> ModelInfo:
        raise AssertionError("the model was asked")

    assert find_edits(Workspace(), [str(tmp_path / "table.csv")], fail) == [PruneMask(2, (1,))]
    assert find_edits(Workspace(), [str(tmp_path / "list.json")], lambda: ModelInfo("any", "", 9)) == [MASK]
