"""Loading models: what is whole loads, what is not is refused with what failed and what to do."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import llama, t5
from oracles import ask, changed_copy
from PIL import Image
from safetensors.torch import load_file, save_file

from vlm_analysis import Cancelled, LoadedModel, Prompt, load_model
from vlm_analysis.errors import ModelError
from vlm_analysis.models.fingerprint import model_fingerprint
from vlm_analysis.models.source import BUNDLED_FOLDER

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model, free to be spoilt."""
    return Path(shutil.copytree(BUNDLED_FOLDER, tmp_path / "copy"))


def copied(folder: Path, config: dict[str, Any]) -> Path:
    """A copy of the bundled model with another configuration."""
    shutil.copytree(BUNDLED_FOLDER, folder)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def big_picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8))


class TestWhatLoads:
    def test_the_bundled_model_loads_by_its_name_and_as_a_folder(self, loaded: LoadedModel, folder: Path) -> None:
        copied = load_model(folder)
        assert (loaded.name, loaded.source) == ("pocket-vl", str(BUNDLED_FOLDER))
        assert (copied.name, copied.source) == ("copy", str(folder))
        assert loaded.n_layers == copied.n_layers == 16
        assert loaded.dtype == "float32"
        assert not loaded.model.training

    def test_it_tells_what_a_stored_item_needs_to_know(self, loaded: LoadedModel) -> None:
        info = loaded.info
        assert (info.name, info.n_layers, info.dtype) == ("pocket-vl", 16, "float32")
        assert info.fingerprint == loaded.fingerprint
        assert info.protected == loaded.protected_layers
        assert loaded.n_parameters == sum(parameter.numel() for parameter in loaded.model.parameters())

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_another_precision_can_be_asked_for(self, dtype: str) -> None:
        assert load_model(dtype=dtype, device="cpu").dtype == dtype

    def test_progress_is_told_and_cancelling_stops(self) -> None:
        calls: list[tuple[int, int]] = []
        load_model(on_progress=lambda done, total, message: calls.append((done, total)))
        assert list(dict.fromkeys(calls)) == [(done, 4) for done in range(5)]
        assert calls == sorted(calls)

        def cancel(done: int, total: int, message: str) -> None:
            raise Cancelled

        with pytest.raises(Cancelled):
            load_model(on_progress=cancel)

    def test_close_lets_go_of_the_weights(self) -> None:
        mine = load_model()
        watched = [weakref.ref(parameter) for parameter in mine.model.parameters()]
        mine.close()
        gc.collect()
        assert [ref for ref in watched if ref() is not None] == []


class TestFingerprint:
    def test_two_loads_agree(self, loaded: LoadedModel, folder: Path) -> None:
        assert load_model().fingerprint == loaded.fingerprint
        assert load_model(folder).fingerprint == loaded.fingerprint  # where it lies does not count

    def test_how_the_weights_are_sharded_does_not_count(self, loaded: LoadedModel, folder: Path) -> None:
        loaded.model.save_pretrained(folder, max_shard_size="1MB")
        (folder / WEIGHTS).unlink(missing_ok=True)
        assert len(list(folder.glob("*.safetensors"))) > 1
        assert load_model(folder).fingerprint == loaded.fingerprint

    @pytest.mark.parametrize("name", ["lm_head.weight", "model.language_model.layers.7.mlp.up_proj.weight"])
    def test_one_changed_weight_changes_it(self, loaded: LoadedModel, name: str) -> None:
        mine = changed_copy(loaded)
        assert mine.fingerprint == loaded.fingerprint
        with torch.no_grad():
            mine.model.get_parameter(name)[0, 0] += 0.5
        assert model_fingerprint(mine.model, mine.processor, mine.max_vision_tokens) != loaded.fingerprint

    def test_another_image_bound_or_precision_changes_it(self, loaded: LoadedModel) -> None:
        marks = {
            loaded.fingerprint,
            load_model(max_vision_tokens=9).fingerprint,
            load_model(dtype="bfloat16").fingerprint,
        }
        assert len(marks) == 3


class TestImageBound:
    @pytest.mark.parametrize("bound", [4, 9, 16])
    def test_a_large_image_stays_within_the_bound(self, bound: int) -> None:
        mine = load_model(max_vision_tokens=bound)
        ids = ask(mine, Prompt((big_picture(),), "what?"))["input_ids"]
        assert 0 < int((ids == mine.model.config.image_token_id).sum()) <= bound
        assert mine.max_vision_tokens == bound

    def test_a_cpu_takes_256_by_default(self, loaded: LoadedModel) -> None:
        assert loaded.max_vision_tokens == 256

    @pytest.mark.parametrize("bound", [0, -1])
    def test_a_bound_below_one_is_refused(self, bound: int) -> None:
        with pytest.raises(ModelError):
            load_model(max_vision_tokens=bound)


class TestSourcesThatAreNone:
    @pytest.mark.parametrize(
        "source", ["", "  ", "./nowhere", "/no/such/folder", "a/b/c", "~/no-such-model", Path("nowhere")]
    )
    def test_a_missing_folder_is_named_with_the_choices(self, source: Any) -> None:
        with pytest.raises(ModelError, match=r"No model .*expected .*'pocket-vl'.*hub id like 'owner/name'"):
            load_model(source)

    def test_a_file_is_no_model(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(ModelError, match="expected a folder"):
            load_model(str(tmp_path / "file"))

    def test_a_folder_without_a_configuration_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"is no model: expected config\.json .*got an empty folder"):
            load_model(tmp_path)

    def test_a_configuration_that_is_no_json_is_refused(self, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        with pytest.raises(ModelError, match="configuration of 'copy' could not be loaded"):
            load_model(folder)

    @pytest.mark.parametrize(
        ("make", "words"),
        [(llama, "'llama' is a language model without a vision tower"), (t5, "'t5' is an encoder-decoder language")],
    )
    def test_a_language_model_is_refused(self, tmp_path: Path, make: Callable[[], Any], words: str) -> None:
        make().save_pretrained(tmp_path)
        with pytest.raises(
            ModelError, match=rf"is not a vision-language model: {words}.*Choose a checkpoint for image-text-to-text"
        ):
            load_model(tmp_path)

    def test_an_encoder_decoder_with_eyes_is_refused_before_its_weights_are_read(self, tmp_path: Path) -> None:
        copied(tmp_path / "florence", config={"model_type": "florence2"})
        with pytest.raises(ModelError, match=r"is an encoder-decoder model: expected one causal stack"):
            load_model(tmp_path / "florence")

    def test_a_hub_id_without_network_says_to_go_online(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from huggingface_hub import constants

        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(ModelError, match=r"'strata-test/none' could not be loaded.*this machine is online"):
            load_model("strata-test/none")

    @pytest.mark.parametrize("device", ["gpu", "tpu:x", ""])
    def test_an_unknown_device_lists_the_choices(self, device: str) -> None:
        with pytest.raises(ModelError, match=r"Unknown device .*expected 'auto', 'cpu' or 'cuda'"):
            load_model(device=device)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_a_gpu_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(ModelError, match=r"No GPU can be used here.*Choose device 'cpu'"):
            load_model(device="cuda")

    @pytest.mark.parametrize("dtype", ["int8", "double", ""])
    def test_an_unknown_precision_lists_the_choices(self, dtype: str) -> None:
        with pytest.raises(ModelError, match=r"Unknown precision .*'float32', 'bfloat16' or 'float16'"):
            load_model(dtype=dtype)


class TestHalfCheckpoints:
    def test_a_missing_weight_is_named_and_not_drawn_at_random(self, folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        name = "model.language_model.layers.9.mlp.up_proj.weight"
        del weights[name]
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(
            ModelError, match=r"1 weights are missing, first '.*layers\.9\.mlp\.up_proj\.weight'.*again"
        ):
            load_model(folder)

    def test_a_count_of_layers_beyond_the_weights_is_refused(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["text_config"]["num_hidden_layers"] = 18
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match="weights are missing"):
            load_model(folder)

    def test_a_weight_of_another_shape_is_refused(self, folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        name = "model.language_model.layers.9.mlp.up_proj.weight"
        weights[name] = weights[name][:-1].contiguous()
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        with pytest.raises(ModelError, match=r"'copy'|do not fit"):
            load_model(folder)

    @pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json"])
    def test_half_a_processor_is_refused(self, folder: Path, name: str) -> None:
        (folder / name).write_text((folder / name).read_text()[:40])
        with pytest.raises(ModelError, match="processor of 'copy' could not be loaded"):
            load_model(folder)
