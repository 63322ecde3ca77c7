"""`strata export --masked`: widths that differ are refused without it, and with it are zeros in a stock checkpoint of the dense size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from vlm_analysis import Edit, LoadedModel, Narrow, cli, open_edit, save_edit


def strata(*words: object) -> Any:
    return CliRunner().invoke(cli.strata, ["export", *map(str, words), "--no-probe", "--json", "--quiet"])


@pytest.mark.usefixtures("_loaded_once", "_proved_here")
def test_widths_that_differ_are_refused_with_the_way_out_and_written_as_zeros(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    narrow = Edit(16, (Narrow({2: range(100), 5: range(50, 288)}, {3: [1]}),), model=loaded.info)
    file, folder = save_edit(narrow, tmp_path / "narrow.json"), tmp_path / "zeros"
    refused = strata(file, folder)
    assert refused.exit_code == 2
    assert "build all layers equally wide" in " ".join(refused.stderr.split())
    assert "--masked" in refused.stderr
    assert not folder.exists()
    done = strata(file, folder, "--masked")
    assert done.exit_code == 0, (done.stderr, done.exception)
    told = json.loads(done.stdout)
    assert (told["verified"], told["parameters_after"]) == (True, told["parameters_before"])
    assert [change.form for change in open_edit(folder / "strata-edit.json").changes] == ["zeroed"]
    (written,), part = folder.glob("model*.safetensors"), "language_model.layers.2.mlp.down_proj.weight"
    (zeroed,) = (tensor for name, tensor in load_file(written).items() if name.endswith(part))
    dense = loaded.model.get_parameter(f"model.{part}")
    assert torch.equal(zeroed[:, :100], dense[:, :100])
    assert not zeroed[:, 100:].any()
