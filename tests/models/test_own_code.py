"""Checkpoints that bring code of their own: it runs where it is trusted, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from oracles import ask

from vlm_analysis import LoadedModel, PromptSet, PruneMask, export_checkpoint, load_model
from vlm_analysis.errors import ExportError, ModelError
from vlm_analysis.models.source import BUNDLED_FOLDER

CODE = """
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration


class OwnConfig(Qwen3VLConfig):
    model_type = {kind!r}


class OwnModel(Qwen3VLForConditionalGeneration):
    config_class = OwnConfig
    config: OwnConfig

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits + 1
        return out
"""


def own(folder: Path, auto: str, kind: str) -> Path:
    shutil.copytree(BUNDLED_FOLDER, folder)
    (folder / "own_code.py").write_text(CODE.format(kind=kind))
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own_code.OwnConfig", auto: "own_code.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind, "auto_map": names}))
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | {"processor_class": "Qwen3VLProcessor"}))
    return folder


@pytest.mark.parametrize(
    ("auto", "kind"),
    [("AutoModel", "own_chat"), ("AutoModelForVision2Seq", "own_chat"), ("AutoModelForImageTextToText", "qwen3_vl")],
)
def test_trusted_code_is_what_runs(
    loaded: LoadedModel, few: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auto: str, kind: str
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = own(tmp_path / f"own_{auto.lower()}", auto, kind)
    found = load_model(folder, trust_remote_code=True)
    assert type(found.model).__name__ == "OwnModel"
    want = loaded.model(**ask(loaded, few[0]), use_cache=False).logits + 1
    assert torch.equal(found.model(**ask(found, few[0]), use_cache=False).logits, want)
    with pytest.raises(ExportError, match="got code that comes with the checkpoint"):
        export_checkpoint(found, PruneMask(16, [5]), tmp_path / "out")


def test_code_that_is_not_trusted_does_not_run(tmp_path: Path) -> None:
    folder = own(tmp_path / "own", "AutoModel", "own_chat")
    (folder / "own_code.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match=r"'own' brings code of its own: .*trust_remote_code"):
        load_model(folder)
