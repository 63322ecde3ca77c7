"""Exporting: plain transformers loads the folder as the very model that was evaluated, and a failure leaves nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from oracles import ask
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from vlm_analysis import (
    Cancelled,
    LoadedModel,
    PromptSet,
    PruneMask,
    evaluate,
    export_checkpoint,
    load_model,
    open_mask,
)
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import ExportError, MaskError
from vlm_analysis.export import proof, reload
from vlm_analysis.export.checkpoint import Manifest
from vlm_analysis.export.serving.rules import open_serving
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.models.source import BUNDLED_FOLDER

MASK = PruneMask(16, (0, 5, 6, 12), name="mine", notes="why", provenance={"seed": 1})
PROCESSOR_FILES = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def exported(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("export") / "deep" / "pruned"
    with pytest.MonkeyPatch.context() as patch:  # tests/export/test_proof.py has the fresh process, which takes seconds
        patch.setattr(proof, "_run", lambda folder, task, answer, progress: reload.run(folder, task, answer))
        return folder, export_checkpoint(loaded, MASK, folder)


class TestTheFolder:
    def test_plain_transformers_loads_the_evaluated_model_to_the_last_bit(
        self, loaded: LoadedModel, few: PromptSet, exported: tuple[Path, Manifest]
    ) -> None:
        fresh, told = AutoModelForImageTextToText.from_pretrained(exported[0], output_loading_info=True)
        assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        fresh.eval()
        view = apply_edit(loaded.model, MASK)
        for prompt in few[::3]:
            inputs = ask(loaded, prompt)
            with torch.no_grad():
                assert torch.equal(fresh(**inputs).logits, view(**inputs).logits)
            written, wanted = (model.generate(**inputs, max_new_tokens=12, do_sample=False) for model in (fresh, view))
            assert written.tolist() == wanted.tolist()

    def test_its_configuration_has_fewer_layers_and_no_trace_of_the_view(self, exported: tuple[Path, Manifest]) -> None:
        config = json.loads((exported[0] / "config.json").read_text())
        dense = json.loads((BUNDLED_FOLDER / "config.json").read_text())
        assert config["text_config"].pop("num_hidden_layers") == 12
        assert dense["text_config"].pop("num_hidden_layers") == 16
        assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
        vision = dense["vision_config"]  # transformers adds the dtype when it saves
        assert {k: config["vision_config"][k] for k in vision} == vision
        assert {k: config["text_config"][k] for k in dense["text_config"]} == dense["text_config"]

    def test_load_model_takes_it_like_any_other(
        self, loaded: LoadedModel, few: PromptSet, exported: tuple[Path, Manifest]
    ) -> None:
        again = load_model(exported[0])
        assert again.n_layers == 12
        assert again.fingerprint != loaded.fingerprint
        assert again.n_parameters == exported[1].parameters_after < loaded.n_parameters
        mine, theirs = evaluate(again, few), evaluate(loaded, few, MASK)
        for metric in ("exact_match", "answer_nll"):
            assert mine.by_prompt[metric].tolist() == theirs.by_prompt[metric].tolist()

    def test_its_processor_files_are_the_sources_and_name_the_stock_classes(
        self, exported: tuple[Path, Manifest]
    ) -> None:
        for name in PROCESSOR_FILES:
            assert (exported[0] / name).read_bytes() == (BUNDLED_FOLDER / name).read_bytes(), name
        named = json.loads((exported[0] / "preprocessor_config.json").read_text())
        assert named["processor_class"] == "Qwen3VLProcessor"
        assert named["image_processor_type"] == "Qwen2VLImageProcessor"

    def test_its_mask_opens_equal_and_names_the_model(
        self, loaded: LoadedModel, exported: tuple[Path, Manifest]
    ) -> None:
        mask = open_mask(exported[0] / "strata-mask.json")
        assert mask == MASK
        assert (mask.name, mask.notes, mask.provenance) == ("mine", "why", {"seed": 1})
        assert mask.model is not None
        assert (mask.model.fingerprint, mask.model.config_hash) == (loaded.fingerprint, loaded.info.config_hash)

    def test_its_manifest_tells_the_truth(self, loaded: LoadedModel, exported: tuple[Path, Manifest]) -> None:
        folder, manifest = exported
        written = json.loads((folder / "strata-manifest.json").read_text())
        assert written == json.loads(json.dumps(manifest.__dict__))
        assert {path.name for path in folder.iterdir()} == {*manifest.files, "strata-manifest.json"}
        for name, told in manifest.files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told
        assert (manifest.n_layers_before, manifest.n_layers_after) == (16, 12)
        assert manifest.dropped == (0, 5, 6, 12)
        assert manifest.source_fingerprint == loaded.fingerprint
        assert (manifest.source_config_hash, manifest.source_revision) == (loaded.info.config_hash, None)
        assert manifest.verified
        assert manifest.fresh_process
        assert manifest.probe_tokens > 16
        assert manifest.torch_version == torch.__version__

    def test_what_engines_do_with_it_is_told_and_that_transformers_was_run(
        self, exported: tuple[Path, Manifest]
    ) -> None:
        told = {one.engine: one for one in open_serving(exported[0])}
        assert (told["transformers"].verdict, told["transformers"].run_here) == ("loads", True)
        assert told["transformers"].version == exported[1].transformers_version
        assert [name for name, one in told.items() if one.run_here] == ["transformers"]
        assert not (exported[0] / "probe").exists()  # no prompts were given for one

    def test_nothing_half_written_lies_beside_it(self, exported: tuple[Path, Manifest]) -> None:
        assert [path.name for path in exported[0].parent.iterdir()] == ["pruned"]

    def test_an_unverified_export_says_so(self, loaded: LoadedModel, tmp_path: Path) -> None:
        manifest = export_checkpoint(loaded, MASK, tmp_path / "pruned", verify=False)
        assert not manifest.verified
        assert not manifest.fresh_process
        assert (manifest.probe_tokens, manifest.generated_tokens, manifest.generated_answer) == (0, 0, "")

    def test_a_mask_of_another_model_remembers_it(self, loaded: LoadedModel, tmp_path: Path) -> None:
        stranger = ModelInfo("stranger", "f" * 64, 16)
        export_checkpoint(loaded, replace(MASK, model=stranger), tmp_path / "pruned", verify=False)
        mask = open_mask(tmp_path / "pruned" / "strata-mask.json")
        assert mask.model is not None
        assert mask.model.name == "pocket-vl"
        assert mask.provenance["made_for"] == {"name": "stranger", "fingerprint": "f" * 64}


class TestTheTarget:
    def test_a_folder_that_holds_something_is_refused_and_kept(self, loaded: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(ExportError, match=r"expected a new or empty folder.*Choose another"):
            export_checkpoint(loaded, MASK, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file_is_refused_and_kept(self, loaded: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        with pytest.raises(ExportError, match="new or empty folder"):
            export_checkpoint(loaded, MASK, tmp_path / "file")
        assert (tmp_path / "file").read_text() == "precious"

    def test_an_empty_folder_is_filled(self, loaded: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        export_checkpoint(loaded, MASK, tmp_path / "empty", verify=False)
        assert (tmp_path / "empty" / "config.json").exists()

    def test_a_folder_below_a_file_is_refused_in_words(self, loaded: LoadedModel, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        with pytest.raises(ExportError, match="cannot be written"):
            export_checkpoint(loaded, MASK, tmp_path / "file" / "pruned")

    def test_a_mask_of_another_size_writes_nothing(self, loaded: LoadedModel, tmp_path: Path) -> None:
        with pytest.raises(MaskError):
            export_checkpoint(loaded, PruneMask(17, (3,)), tmp_path / "pruned")
        assert list(tmp_path.iterdir()) == []


class TestFailures:
    @pytest.mark.parametrize("place", ["weights", "processor"])
    def test_a_full_disk_leaves_nothing(
        self, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        def full(self: Any, folder: Path, *_: Any, **__: Any) -> NoReturn:
            if place == "weights":
                (Path(folder) / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        if place == "weights":
            monkeypatch.setattr(Qwen3VLForConditionalGeneration, "save_pretrained", full)
        else:
            monkeypatch.setattr(shutil, "copyfile", full)
        with pytest.raises(ExportError, match=r"the disk is full.*nothing half-written is left"):
            export_checkpoint(loaded, MASK, tmp_path / "pruned")
        assert list(tmp_path.iterdir()) == []

    def test_a_real_write_that_fails_is_told_in_words_and_leaves_nothing(
        self, loaded: LoadedModel, tmp_path: Path
    ) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # stands for a full disk, with no fake in between
        try:
            with pytest.raises(ExportError, match="nothing half-written is left"):
                export_checkpoint(loaded, MASK, tmp_path / "pruned")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("stop", [0, 1, 2, pytest.param(3, marks=pytest.mark.slow)])
    def test_cancelling_midway_leaves_nothing(self, loaded: LoadedModel, tmp_path: Path, stop: int) -> None:
        def cancel(done: int, total: int, message: str) -> None:
            if done == stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            export_checkpoint(loaded, MASK, tmp_path / "pruned", on_progress=cancel)
        assert list(tmp_path.iterdir()) == []
