"""Folders that are given for a model: the message says what each is, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from vlm_analysis.errors import ModelError
from vlm_analysis.models.files import weight_files
from vlm_analysis.models.folders import open_folder

HASH = "ab12" * 10


def made(folder: Path, *files: str) -> Path:
    for name in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["model-q4.gguf", "mmproj.gguf"], "holds GGUF files for llama.cpp: expected .*'mmproj.gguf'.*Choose the checkpoint"),
        (["checkpoint-9/config.json", "checkpoint-40/config.json"], "is a trainer's output folder.*Choose '.*checkpoint-40'"),
        (["checkpoint-7/adapter_config.json"], "is a trainer's output folder.*Choose '.*checkpoint-7'"),
        (["one/config.json", "two/config.json"], "holds folders of models: .*'one', 'two'. Choose one"),
        (["model_index.json", "unet/diffusion.safetensors"], "is a pipeline of diffusers"),
        (["consolidated.00.pth", "params.json"], "is in another form: .*'consolidated.00.pth'.*converted for transformers"),
        (["model.onnx"], "is in another form: .*'model.onnx'"),
        (["notes.txt"], "is no model: expected config.json .*got 'notes.txt'"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_checkpoint_is_told_by_what_it_is(tmp_path: Path, files: Sequence[str], words: str) -> None:
    with pytest.raises(ModelError, match=rf"^'given' {words}"):
        open_folder(made(tmp_path / "given", *files))


def test_an_empty_folder_is_said_to_be_empty(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got an empty folder"):
        open_folder(tmp_path)


@pytest.mark.parametrize("file", ["weights.gguf", "checkpoint-3/config.json"])
def test_a_configuration_alone_does_not_hide_what_lies_beside_it(tmp_path: Path, file: str) -> None:
    folder = made(tmp_path / "given", "config.json", file)
    assert open_folder(folder).path == folder
    with pytest.raises(ModelError, match=r"GGUF|trainer's output"):
        weight_files(folder)


def test_a_pointer_of_git_lfs_is_no_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(ModelError, match=r"model\.safetensors is a pointer of Git LFS: .*git lfs pull"):
        weight_files(tmp_path)


class TestHubCache:
    def test_it_opens_as_the_snapshot_that_main_names_and_has_the_hub_s_id(self, tmp_path: Path) -> None:
        cache = tmp_path / "models--someone--some--vlm"
        for commit in (HASH, "cd34" * 10):
            made(cache / "snapshots" / commit, "config.json")
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(HASH)
        found = open_folder(cache)
        assert (found.path, found.name, found.revision) == (cache / "snapshots" / HASH, "someone/some--vlm", HASH)
        assert open_folder(cache / "snapshots" / HASH) == found

    def test_one_of_several_has_to_be_chosen(self, tmp_path: Path) -> None:
        cache = tmp_path / "models--someone--vlm"
        for commit in ("1" * 40, "2" * 40):
            made(cache / "snapshots" / commit, "config.json")
        with pytest.raises(
            ModelError, match=rf"snapshots/{'1' * 40}, snapshots/{'2' * 40}.*Choose the folder of a snapshot"
        ):
            open_folder(cache)


def test_an_adapter_beside_whole_weights_is_not_left_out_in_silence(tmp_path: Path) -> None:
    folder = made(tmp_path / "both", "config.json", "model.safetensors", "adapter_config.json")
    with pytest.raises(ModelError, match=r"^'both' can be read in two ways: .*adapter.*base_model_name_or_path"):
        open_folder(folder)
    (folder / "model.safetensors").unlink()
    assert open_folder(folder).is_adapter
