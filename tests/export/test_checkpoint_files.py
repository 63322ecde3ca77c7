"""Checkpoints with something wrong: each defect has a message that names the file and what to do, on a real folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_analysis import LoadedModel, load_model
from vlm_analysis.errors import ModelError
from vlm_analysis.models.files import stored_bytes, weight_files
from vlm_analysis.models.source import BUNDLED_FOLDER

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED_FOLDER, tmp_path / "copy"))


@pytest.fixture
def sharded(loaded: LoadedModel, whole: Path) -> Path:
    loaded.model.save_pretrained(whole, max_shard_size="1MB")
    (whole / WEIGHTS).unlink(missing_ok=True)
    return whole


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(change(index) or index))


def first_shard_is(name: Any) -> Callable[[dict[str, Any]], None]:
    def change(index: dict[str, Any]) -> None:
        index["weight_map"][min(index["weight_map"])] = name

    return change


def test_headers_tell_the_bytes_that_the_tensors_take(whole: Path, loaded: LoadedModel) -> None:
    tensors = load_file(whole / WEIGHTS)
    assert stored_bytes(weight_files(whole)) == {"F32": sum(4 * tensor.numel() for tensor in tensors.values())}


def test_shards_hold_what_one_file_held(sharded: Path) -> None:
    assert len(weight_files(sharded)) > 1
    assert stored_bytes(weight_files(sharded)) == stored_bytes([BUNDLED_FOLDER / WEIGHTS])


def test_a_missing_shard_is_named(sharded: Path) -> None:
    gone = sorted(sharded.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(
        ModelError, match=rf"'copy' is incomplete: expected \d+ weight files, {gone.name} missing\. Downl"
    ):
        load_model(sharded)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_weights_cut_short_are_refused_by_their_file(sharded: Path, share: float) -> None:
    path = sorted(sharded.glob("*.safetensors"))[1]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=rf"{path.name} (is cut short: expected .* got|cannot be read as safetensors)"):
        load_model(sharded)


@pytest.mark.parametrize(
    "text", ["{", "", "[]", "null", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}']
)
def test_a_broken_index_says_so(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    with pytest.raises(ModelError, match=rf"index {INDEX} of 'copy' is broken: expected .*Download it again"):
        load_model(sharded)


@pytest.mark.parametrize(
    "name", ["../copy/model.safetensors", "/etc/passwd", "a\\b.safetensors", "pytorch_model.bin", ".."]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(sharded: Path, name: str) -> None:
    edit_index(sharded, first_shard_is(name))
    with pytest.raises(ModelError, match=r"is broken: expected names of safetensors files beside it"):
        load_model(sharded)


def test_an_index_may_name_a_file_that_is_not_there_and_says_which(sharded: Path) -> None:
    edit_index(sharded, first_shard_is("model-9.safetensors"))
    with pytest.raises(ModelError, match=r"model-9\.safetensors missing"):
        load_model(sharded)


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 16,
        b"[]",
        b'{"a": {"dtype": "F32", "shape": [1000000000, 1000000000], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4000]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": 7, "shape": "x"}}',
    ],
)
def test_a_file_whose_header_lies_is_refused(whole: Path, header: bytes) -> None:
    (whole / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(ModelError, match=r"model\.safetensors (cannot be read as safetensors|is cut short)"):
        load_model(whole)


def test_pickled_weights_are_never_opened_and_say_how_to_convert(loaded: LoadedModel, whole: Path) -> None:
    (whole / WEIGHTS).unlink()
    torch.save(loaded.model.state_dict(), whole / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"expected model\.safetensors, got pytorch_model\.bin.*call save_pretrained"):
        load_model(whole)


def test_a_folder_without_weights_says_what_was_expected(whole: Path) -> None:
    (whole / WEIGHTS).rename(whole / "other.safetensors")
    with pytest.raises(ModelError, match=r"'copy' has no weights: expected .*other\.safetensors is no part of one"):
        load_model(whole)


@pytest.mark.parametrize("files", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_a_missing_tokenizer_is_named(whole: Path, files: list[str]) -> None:
    for name in files:
        (whole / name).unlink()
    with pytest.raises(ModelError, match=r"'copy' has no tokenizer: expected tokenizer\.json beside the weights"):
        load_model(whole)


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(whole: Path) -> None:
    path = whole / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["strange"] = 5000
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(
        ModelError, match=r"tokenizer of 'copy' does not fit the model: token 5000 is used, the model embeds"
    ):
        load_model(whole)


def test_a_tokenizer_with_another_token_for_images_is_refused(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    config["image_token_id"] = 900  # a plain word
    (whole / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"tokenizer of 'copy' does not fit the model: expected token \d+ for images"):
        load_model(whole)


def test_a_tokenizer_of_another_class_is_refused(whole: Path) -> None:
    path = whole / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "BertTokenizer"}))
    (whole / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (whole / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer of 'copy' does not fit the model.*Use the tokenizer that belongs"):
        load_model(whole)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors", "made-up"])
def test_another_quantiser_is_refused_by_its_name(whole: Path, method: str) -> None:
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": method}}))
    with pytest.raises(ModelError, match=rf"'copy' is quantised with {method}, which is not loaded here.*made from"):
        load_model(whole)


def test_a_surplus_weight_of_another_name_does_not_hide_a_missing_one(whole: Path) -> None:
    weights = load_file(whole / WEIGHTS)
    name = "model.language_model.layers.9.mlp.up_proj.weight"
    weights["strange"] = weights.pop(name)
    save_file(weights, whole / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing"):
        load_model(whole)
