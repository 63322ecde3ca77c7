"""The proof of an export: a fresh process tells any difference, and neither cancelling nor a kill leaves anything behind."""

from __future__ import annotations

import copy
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forked
from oracles import changed_copy
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Qwen3VLForConditionalGeneration

from vlm_analysis import Cancelled, LoadedModel, PruneMask, export_checkpoint
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import ExportError
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.export import proof as proof_module
from vlm_analysis.export.checkpoint import Manifest
from vlm_analysis.export.proof import MAX_NEW_TOKENS, probe_prompt
from vlm_analysis.export.reload import outputs, run
from vlm_analysis.models.inputs import encode
from vlm_analysis.models.source import BUNDLED_FOLDER

ROOT = Path(__file__).resolve().parents[2]
MASK = PruneMask(16, (5, 9), name="mine")


def is_running(part: str) -> bool:
    """Return whether a process has `part` in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            line = path.read_bytes()
            if part.encode() in line and b"vlm_analysis.export.reload" in line:
                return True
    return False


def none_runs(part: str) -> bool:
    """Wait until no process has `part` in its command line: one whose parent is gone ends by itself."""
    end = time.monotonic() + 300
    while is_running(part) and time.monotonic() < end:
        time.sleep(0.05)
    return not is_running(part)


@pytest.fixture(scope="module")
def exported(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("export") / 'it\'s a "folder"'
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # the fresh process must take as many, or the last bits differ
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_WAIT_POLICY", "passive")  # there a thread that waits takes no time
            return folder, export_checkpoint(loaded, MASK, folder)
    finally:
        torch.set_num_threads(before)


class TestEqual:
    def test_the_manifest_holds_the_answer_of_both_sides(
        self, loaded: LoadedModel, exported: tuple[Path, Manifest]
    ) -> None:
        folder, manifest = exported
        answer = respond(loaded, probe_prompt(), MASK, max_new_tokens=MAX_NEW_TOKENS)
        assert (manifest.generated_answer, manifest.reloaded_answer) == (answer, answer)
        assert 1 < manifest.generated_tokens <= MAX_NEW_TOKENS
        written = json.loads((folder / "strata-manifest.json").read_text())
        assert (written["fresh_process"], written["generated_answer"]) == (True, answer)
        assert written["vocabulary"] == loaded.model.config.text_config.vocab_size

    def test_the_fresh_process_computes_with_as_many_threads(self, exported: tuple[Path, Manifest]) -> None:
        assert exported[1].verified

    def test_the_answer_is_greedy_whatever_the_generation_configuration_says(self, loaded: LoadedModel) -> None:
        inputs = encode(loaded, probe_prompt()).tensors
        view = apply_edit(loaded.model, MASK)
        plain = outputs(view, inputs, max_new_tokens=8, pad_token=0)[1]
        view.generation_config.update(do_sample=True, temperature=50.0, top_k=3, num_beams=2)
        assert outputs(view, inputs, max_new_tokens=8, pad_token=0)[1].tolist() == plain.tolist()

    @pytest.mark.parametrize("settings", [{"temperature": 0.5, "top_p": 0.9}, {"do_sample": True, "temperature": 0.5}])
    def test_a_generation_configuration_with_sampling_is_saved(
        self, loaded: LoadedModel, tmp_path: Path, settings: dict[str, Any]
    ) -> None:
        changed = changed_copy(loaded)
        changed.model.generation_config.update(**settings)
        before = copy.deepcopy(changed.model.generation_config)
        export_checkpoint(changed, MASK, tmp_path / "pruned", verify=False)
        saved = json.loads((tmp_path / "pruned" / "generation_config.json").read_text())
        assert saved.get("temperature") == (0.5 if settings.get("do_sample") else None)
        assert changed.model.generation_config == before

    def test_a_generation_configuration_that_cannot_be_saved_is_told_in_words(
        self, loaded: LoadedModel, tmp_path: Path
    ) -> None:
        changed = changed_copy(loaded)
        changed.model.generation_config.num_return_sequences = 3
        with pytest.raises(ExportError, match=r"generation configuration of pocket-vl.*num_return_sequences.*Fix"):
            export_checkpoint(changed, MASK, tmp_path / "pruned", verify=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow  # two processes; `make test` runs the command of a checkpoint of 0.1 (tests/test_saved_0_1.py)
    def test_the_command_in_the_manifest_makes_the_same_weights_again(
        self, exported: tuple[Path, Manifest], tmp_path: Path
    ) -> None:
        folder, manifest = exported
        assert manifest.reproduce in (folder / "README.md").read_text()
        (tmp_path / "strata-mask.json").write_bytes((folder / "strata-mask.json").read_bytes())
        bin_folder = tmp_path / "bin"
        bin_folder.mkdir()
        (bin_folder / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (bin_folder / "python").chmod(0o755)
        env = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{bin_folder}:{os.environ['PATH']}"}
        subprocess.run(manifest.reproduce, shell=True, cwd=tmp_path, env=env, check=True, capture_output=True)
        again, first = (load_file(path / "model.safetensors") for path in (tmp_path / "pruned-again", folder))
        assert again.keys() == first.keys()
        assert all(torch.equal(again[name], first[name]) for name in first)
        assert (tmp_path / "pruned-again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


class TestDifferent:
    @staticmethod
    def spoil(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
        """Let `change` work on every folder right after its weights were written."""
        save = Qwen3VLForConditionalGeneration.save_pretrained

        def spoiling(self: Any, folder: Path, **kwargs: Any) -> None:
            save(self, folder, **kwargs)
            change(Path(folder))

        monkeypatch.setattr(Qwen3VLForConditionalGeneration, "save_pretrained", spoiling)

    @staticmethod
    def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
        """Let what the fresh process does be done by this one, which takes seconds less."""
        monkeypatch.setattr(proof_module, "_run", lambda folder, task, answer, report: run(folder, task, answer))

    def test_one_changed_weight_is_told_by_the_logits(
        self, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def change(folder: Path) -> None:
            weights = load_file(folder / "model.safetensors")
            weights["model.language_model.norm.weight"][3] += 1e-3
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

        self.spoil(monkeypatch, change)
        self.run_here(monkeypatch)
        with pytest.raises(ExportError, match=r"not the evaluated model: its logits differ.*Nothing was written"):
            export_checkpoint(loaded, MASK, tmp_path / "pruned")
        assert list(tmp_path.iterdir()) == []

    def test_another_way_to_generate_is_told_by_the_answer(
        self, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inputs = encode(loaded, probe_prompt()).tensors
        first = outputs(apply_edit(loaded.model, MASK), inputs, max_new_tokens=1, pad_token=0)[1].tolist()

        def change(folder: Path) -> None:
            settings = json.loads((folder / "generation_config.json").read_text())
            (folder / "generation_config.json").write_text(json.dumps(settings | {"suppress_tokens": first}))

        self.spoil(monkeypatch, change)
        self.run_here(monkeypatch)
        with pytest.raises(ExportError, match="its generated answer differ"):
            export_checkpoint(loaded, MASK, tmp_path / "pruned")

    @pytest.mark.slow
    def test_a_folder_that_cannot_be_loaded_is_told_with_the_last_words_of_the_process(
        self, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.spoil(monkeypatch, lambda folder: (folder / "config.json").unlink())
        with pytest.raises(ExportError, match=r"status 1\. Nothing was written.*config\.json"):
            export_checkpoint(loaded, MASK, tmp_path / "pruned")
        assert list(tmp_path.iterdir()) == []


class TestEnds:
    def test_cancelling_ends_the_fresh_process_and_leaves_nothing(self, loaded: LoadedModel, tmp_path: Path) -> None:
        seen = []

        def cancel(done: int, total: int, message: str) -> None:
            if done == 2:
                seen.append(is_running(str(tmp_path)))
            if any(seen):
                raise Cancelled

        with pytest.raises(Cancelled):
            export_checkpoint(loaded, MASK, tmp_path / "pruned", on_progress=cancel)
        assert seen[-1]
        assert none_runs(str(tmp_path))
        assert list(tmp_path.iterdir()) == []

    def test_a_fresh_process_killed_for_memory_is_told_with_a_next_step(
        self, loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        started = []
        start = subprocess.Popen

        def starting(*args: Any, **kwargs: Any) -> Any:
            started.append(start(*args, **kwargs))
            return started[-1]

        monkeypatch.setattr(proof_module.subprocess, "Popen", starting)

        def kill(done: int, total: int, message: str) -> None:
            if started and started[0].poll() is None:
                started[0].send_signal(signal.SIGKILL)

        with pytest.raises(ExportError, match=r"no memory.*Free memory.*verify=False"):
            export_checkpoint(loaded, MASK, tmp_path / "pruned", on_progress=kill)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_a_kill_midway_leaves_no_folder_no_process_and_the_next_export_works(
        self, loaded: LoadedModel, tmp_path: Path, stage: int
    ) -> None:
        calls: list[int] = []

        def die(done: int, total: int, message: str) -> None:
            calls.append(done)
            if calls.count(stage) == (3 if stage == 2 else 1):  # in stage 2, while the fresh process runs
                os.kill(os.getpid(), signal.SIGKILL)

        with forked(lambda say: export_checkpoint(loaded, MASK, tmp_path / "pruned", on_progress=die)) as exporting:
            assert (exporting.said.read(), exporting.ended()) == ("", -signal.SIGKILL)
        assert not (tmp_path / "pruned").exists()
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
        assert none_runs(str(tmp_path))
        assert export_checkpoint(loaded, MASK, tmp_path / "pruned", verify=False)
        assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


def test_no_model_skips_a_layer_because_per_layer_config_says_so(loaded: LoadedModel, tmp_path: Path) -> None:
    """Why such entries are not written: transformers keeps them and computes as if they were not there."""
    config = copy.deepcopy(loaded.model.config)
    text = json.loads((BUNDLED_FOLDER / "config.json").read_text())["text_config"]
    told = {str(layer): {"skip": ["attention", "mlp", "self_attn", "decoder_layer", "layer"]} for layer in (5, 9)}
    config.text_config = type(config.text_config)(**text, per_layer_config=told)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_config"]["per_layer_config"].keys() == told.keys()
    skipping = AutoModelForImageTextToText.from_pretrained(
        BUNDLED_FOLDER, config=type(config).from_pretrained(tmp_path)
    )
    inputs = encode(loaded, probe_prompt()).tensors
    with torch.inference_mode():
        found, dense = (model(**inputs).logits for model in (skipping.eval(), loaded.model))
        pruned = apply_edit(loaded.model, MASK)(**inputs).logits
    assert torch.allclose(found, dense, atol=1e-5)
    assert not torch.allclose(pruned, dense, atol=1e-1)
