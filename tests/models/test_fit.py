"""The fit estimate counts what is really there, from the configuration alone, and absurd configurations cost nothing."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from families import gemma

from tests.conformance.build import tiny_model
from tests.conformance.rows import CHANGES
from vlm_analysis import LoadedModel, load_model
from vlm_analysis.errors import ModelError
from vlm_analysis.guard import memory as guard_memory
from vlm_analysis.models import load as models, memory
from vlm_analysis.models.fit import PARTS, FitEstimate, build_empty, count_parts, estimate_fit
from vlm_analysis.models.layers import find_decoder_layers
from vlm_analysis.models.source import BUNDLED_FOLDER, Source

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
KINDS = [
    "llava",
    "idefics3",
    "gemma3",
    "qwen2_5_vl",
    "qwen3_vl_moe",
    "internvl",
    "mllama",
    "blip-2",
    "fuyu",
    "gemma4",
    "git",
]


def numel(*modules: Any) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def estimate(n_billion: float = 7.0, free_gib: float = 100.0, device: str = "cpu", **changes: Any) -> FitEstimate:
    """An estimate of a model of 10 equal layers, of which the layers are four fifths."""
    layer = int(n_billion * 1e9 * 0.08)
    parts = dict.fromkeys(PARTS, 0) | {"vision tower": int(n_billion * 2e8), "decoder layers": 10 * layer}
    made = FitEstimate("big", parts, (layer,) * 10, "bfloat16", None, None, device, int(free_gib * GIB))
    return replace(made, **changes)


class TestParts:
    @pytest.mark.parametrize("kind", KINDS)
    def test_parts_add_up_to_the_real_models_parameters(self, kind: str) -> None:
        model = tiny_model(kind, CHANGES.get(kind))
        empty = build_empty(Source(kind, kind, {"trust_remote_code": False}, model.config, None))
        parts, layers = count_parts(empty)
        assert count_parts(model) == (parts, layers)
        assert sum(parts.values()) == numel(model)
        assert list(layers) == [numel(layer) for layer in find_decoder_layers(model)]
        assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}

    def test_pocket_vls_parts_are_its_modules(self, loaded: LoadedModel) -> None:
        fit, inner = estimate_fit("pocket-vl"), loaded.model.model
        mergers = (inner.visual.merger, inner.visual.deepstack_merger_list)
        assert fit.parts == {
            "vision tower": numel(inner.visual) - numel(*mergers),
            "projector": numel(*mergers),
            "embeddings": numel(inner.language_model.embed_tokens),
            "decoder layers": numel(inner.language_model.layers),
            "head": 0,  # tied to the embeddings, and counted with them
            "other": numel(inner.language_model.norm),
        }
        assert fit.n_parameters == loaded.n_parameters
        assert fit.weight_bytes("float32") == fit.file_bytes == loaded.n_bytes

    @pytest.mark.parametrize(
        ("kind", "vision", "projector", "tied"),
        [
            ("llava", "model.vision_tower", "model.multi_modal_projector", False),
            ("idefics3", "model.vision_model", "model.connector", False),
            ("gemma3", "model.vision_tower", "model.multi_modal_projector", True),
        ],
    )
    def test_vision_tower_projector_and_head_are_told_apart(
        self, kind: str, vision: str, projector: str, tied: bool
    ) -> None:
        model = gemma() if kind == "gemma3" else tiny_model(kind)
        parts, _ = count_parts(model)
        assert parts["vision tower"] == numel(model.get_submodule(vision))
        assert parts["projector"] == numel(model.get_submodule(projector))
        assert parts["embeddings"] == numel(model.get_input_embeddings())
        assert parts["head"] == (0 if tied else numel(model.get_output_embeddings()))


class TestNumbers:
    def test_weights_take_their_bytes_and_running_them_a_tenth_and_half_a_gib_more(self) -> None:
        fit = estimate(7)
        assert fit.weight_bytes("float32") == 2 * fit.weight_bytes("bfloat16") == 4 * fit.n_parameters
        assert fit.needed_bytes("float32") == int(fit.weight_bytes("float32") * 1.1) + GIB // 2

    def test_a_quarter_of_ten_layers_is_two(self) -> None:
        fit = estimate(7)
        assert fit.saving("bfloat16") == (2, 2 * fit.layers[0], 4 * fit.layers[0])
        assert "Without 2 of its 10 decoder layers (20 %) it" in fit.saving_summary("bfloat16")

    def test_saving_is_what_a_pruned_model_has_fewer(self, loaded: LoadedModel) -> None:
        from vlm_analysis import PruneMask
        from vlm_analysis.edits.apply import apply_edit

        count, parameters, _ = estimate_fit("pocket-vl").saving("float32")
        assert parameters == loaded.n_parameters - numel(apply_edit(loaded.model, PruneMask(16, range(5, 5 + count))))

    def test_quantised_weights_take_what_they_take_on_disk(self) -> None:
        fit = estimate(7, quantiser="torchao", file_bytes=8 * GIB)
        assert fit.weight_bytes("float32") == fit.weight_bytes("bfloat16") == 8 * GIB
        assert fit.auto_dtype == "bfloat16"


class TestAutoPrecision:
    @pytest.mark.parametrize(
        ("free", "device", "chosen", "why"),
        [
            (40, "cpu", "float32", "most exact on a CPU, and it fits"),
            (20, "cpu", "bfloat16", r"float32 would need 29\.2 GiB, this 14\.8 GiB of 20\.0 GiB free"),
            (10, "cpu", None, "does not fit"),
            (20, "cuda", "bfloat16", "the checkpoint's own, on a GPU"),
            (10, "cuda", None, "does not fit"),
        ],
    )
    def test_it_takes_the_best_that_fits_and_says_why(
        self, free: int, device: str, chosen: str | None, why: str
    ) -> None:
        fit = estimate(7, free, device)
        assert fit.auto_dtype == chosen
        assert re.search(why, fit.reason)

    def test_a_refusal_counts_what_is_missing_and_what_would_fit(self) -> None:
        fit = estimate(7, 10)
        text = fit.refusal("bfloat16")
        assert "expected 14.8 GiB free for bfloat16 weights and a margin, got 10.0 GiB. Free 4.8 GiB more" in text
        assert "choose a model of up to 4.7 billion parameters" in text
        layers = fit.most_layers("bfloat16")
        assert f"prune it to {layers} of its 10 layers" in text
        share = fit.free / fit.needed_bytes("bfloat16")
        assert (fit.parts["vision tower"] + layers * fit.layers[0]) <= share * fit.n_parameters
        assert (fit.parts["vision tower"] + (layers + 1) * fit.layers[0]) > share * fit.n_parameters

    def test_a_refusal_names_a_smaller_precision_where_it_fits(self) -> None:
        assert "Choose precision 'bfloat16', or free" in estimate(7, 20).refusal("float32")

    @pytest.mark.parametrize(("free", "dtype"), [(18, "float32"), (11, "bfloat16")])
    def test_loading_takes_what_free_memory_allows(
        self, monkeypatch: pytest.MonkeyPatch, free: int, dtype: str
    ) -> None:
        monkeypatch.setattr("vlm_analysis.models.fit.free_bytes", lambda device: free * 2**20)
        mine = load_model(device="cpu")
        assert mine.dtype == dtype
        assert "fits" in mine.dtype_reason or "float32 would need" in mine.dtype_reason

    @pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
    def test_what_does_not_fit_is_refused_before_weights_are_read(
        self, monkeypatch: pytest.MonkeyPatch, dtype: str
    ) -> None:
        monkeypatch.setattr("vlm_analysis.models.fit.free_bytes", lambda device: 3 * 2**20)
        monkeypatch.setattr(models, "load_weights", lambda *args: pytest.fail("weights were read"))
        with pytest.raises(ModelError, match=r"'pocket-vl' does not fit into memory: expected .* got 3 MiB\. Free"):
            load_model(device="cpu", dtype=dtype)


def spoilt(folder: Path, text: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A copy of the bundled model with changed sizes."""
    shutil.copytree(BUNDLED_FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= text or {}
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


class TestAbsurdConfigurations:
    @pytest.mark.parametrize(
        "text",
        [
            {"num_hidden_layers": 10**9},
            {"num_hidden_layers": -3},
            {"num_hidden_layers": "16"},
            {"num_hidden_layers": [16]},
            {"num_hidden_layers": 1e300},
            {"hidden_size": 10**12},
            {"hidden_size": 10**400},
            {"hidden_size": "96"},
            {"hidden_size": 0},
            {"num_attention_heads": 10**9},
            {"num_attention_heads": 0},
            {"vocab_size": -1},
            {"intermediate_size": {"a": 1}},
            {
                "hidden_size": 2**24,
                "intermediate_size": 2**24,
                "num_hidden_layers": 100,
                "layer_types": ["full_attention"] * 100,
            },
            {"num_hidden_layers": 0, "layer_types": []},
        ],
        ids=lambda text: str(text)[:60],
    )
    def test_they_are_refused_in_seconds(self, tmp_path: Path, text: dict[str, Any]) -> None:
        folder = spoilt(tmp_path / "huge", text)
        start, before = time.process_time(), psutil.Process().memory_info().rss
        for call in (estimate_fit, load_model):
            with pytest.raises(ModelError, match="'huge'"):
                call(folder)
        assert time.process_time() - start < 30
        assert psutil.Process().memory_info().rss - before < 500 * 2**20

    def test_a_size_of_something_else_than_text_is_checked_too(self, tmp_path: Path) -> None:
        vision = json.loads((BUNDLED_FOLDER / "config.json").read_text())["vision_config"]
        folder = spoilt(tmp_path / "huge", vision_config=vision | {"depth": 10**9})
        with pytest.raises(
            ModelError, match=r"cannot be true: expected a number from 0 to 1,000 for 'depth', got '1000000000'"
        ):
            estimate_fit(folder)

    def test_a_model_that_takes_too_many_modules_is_stopped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vlm_analysis.models.fit._MOST_MODULES", 100)
        with pytest.raises(ModelError, match="at most 100 modules or 30 seconds"):
            estimate_fit("pocket-vl")

    def test_an_empty_source_and_a_text_model_are_refused_like_in_loading(self, tmp_path: Path) -> None:
        from families import llama

        llama().save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="is not a vision-language model"):
            estimate_fit(tmp_path)
        with pytest.raises(ModelError, match="No model was named"):
            estimate_fit("")


class TestFreeMemory:
    def test_a_limit_on_the_group_counts_less_its_use_and_its_cache_as_free(self, tmp_path: Path) -> None:
        for name, text in {
            "memory.max": "1000",
            "memory.current": "700",
            "memory.stat": "anon 5\ninactive_file 150",
        }.items():
            (tmp_path / name).write_text(text)
        files = ("memory.max", "memory.current", "inactive_file")
        assert guard_memory._free_in(tmp_path, *files) == 450
        (tmp_path / "memory.max").write_text("max")
        assert guard_memory._free_in(tmp_path, *files) is None

    def test_it_is_no_more_than_the_machine_has(self) -> None:
        assert 0 < memory.free_bytes() <= psutil.virtual_memory().total

    @pytest.mark.parametrize(
        ("error", "out"),
        [
            (MemoryError(), True),
            (torch.OutOfMemoryError("CUDA out of memory"), True),
            (
                RuntimeError(
                    "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"
                ),
                True,
            ),
            (OSError(12, "Cannot allocate memory"), True),
            (RuntimeError("shapes do not match"), False),
            (None, False),
        ],
    )
    def test_running_out_of_it_is_told_from_other_errors(self, error: BaseException | None, out: bool) -> None:
        assert memory.is_out_of_memory(error) is out
