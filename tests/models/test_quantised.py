"""A checkpoint quantised with torchao is used like any other; what cannot be done with it is refused with the reason."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vlm_analysis import LoadedModel, PromptSet, PruneMask, evaluate, export_checkpoint, load_model, record
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.errors import ExportError, ModelError
from vlm_analysis.models.fingerprint import plain_tensors
from vlm_analysis.models.fit import estimate_fit
from vlm_analysis.models.source import BUNDLED_FOLDER

MASK = PruneMask(16, [5, 9])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with the decoder's and the vision tower's matrices as int8, saved by plain transformers."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForImageTextToText, TorchAoConfig

    target = tmp_path_factory.mktemp("models") / "int8"
    shutil.copytree(BUNDLED_FOLDER, target)
    how = TorchAoConfig(Int8WeightOnlyConfig())
    model = AutoModelForImageTextToText.from_pretrained(BUNDLED_FOLDER, dtype=torch.float32, quantization_config=how)
    model.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def int8(folder: Path) -> LoadedModel:
    return load_model(folder)


def test_it_loads_with_its_weights_as_they_are(int8: LoadedModel, loaded: LoadedModel) -> None:
    weight = int8.model.model.language_model.layers[3].mlp.up_proj.weight
    kinds = [plain.dtype for plain in plain_tensors(weight)]
    assert torch.int8 in kinds
    assert int8.quantiser == "torchao"
    assert int8.n_layers == 16
    assert int8.n_bytes < 0.4 * loaded.n_bytes
    assert "quantised with torchao" in int8.dtype_reason


def test_estimate_takes_the_bytes_it_has_on_disk(folder: Path, int8: LoadedModel) -> None:
    fit = estimate_fit(folder)
    assert fit.quantiser == "torchao"
    assert fit.n_parameters == int8.n_parameters
    assert fit.weight_bytes("float32") == fit.file_bytes == pytest.approx(int8.n_bytes, rel=0.01)


def test_it_records_close_to_the_dense_model(int8: LoadedModel, loaded: LoadedModel, few: PromptSet) -> None:
    ours, dense = (record(model, few).layer_similarity() for model in (int8, loaded))
    np.testing.assert_allclose(ours, dense, atol=0.02)


def test_it_is_pruned_to_a_view_and_evaluated(int8: LoadedModel, few: PromptSet) -> None:
    dense = evaluate(int8, few)
    assert (dense.by_domain["exact_match"] >= 2 / 3).all()
    view = apply_edit(int8.model, MASK)
    shared, own = (model.model.language_model.layers for model in (view, int8.model))
    assert len(shared) == 14
    assert shared[5].mlp.up_proj.weight is own[6].mlp.up_proj.weight
    assert (evaluate(int8, few, MASK, reference=dense).by_domain["kl_to_dense"] > 0).all()
    assert evaluate(int8, few).by_domain.equals(dense.by_domain)


def test_fingerprint_covers_quantised_numbers_and_their_scales(int8: LoadedModel, folder: Path) -> None:
    assert load_model(folder).fingerprint == int8.fingerprint
    numbers = plain_tensors(int8.model.model.language_model.layers[7].mlp.up_proj.weight)
    assert [one.dtype for one in numbers[:2]] == [torch.int8, torch.float32]
    for one in numbers[:2]:
        first = one.detach().view(-1)[:1]
        before = first.clone()
        first += 1
        assert replace(int8).fingerprint != int8.fingerprint
        first.copy_(before)
    assert replace(int8).fingerprint == int8.fingerprint


def test_exporting_it_is_refused_with_the_reason(int8: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"quantised with torchao.*Export the mask"):
        export_checkpoint(int8, MASK, tmp_path / "pruned")
    assert not list(tmp_path.iterdir())


def test_where_torchao_is_missing_the_refusal_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "torchao" else real(name, *more)
    )
    with pytest.raises(
        ModelError, match=r"quantised with torchao, which is not installed\. Run: pip install torchao=="
    ):
        load_model(folder)


def test_the_version_it_names_is_the_one_tested() -> None:
    from vlm_analysis.models.source import QUANTISERS

    pins = (Path(__file__).resolve().parents[2] / "requirements-dev.txt").read_text().splitlines()
    assert set(QUANTISERS.values()) <= set(pins)


def test_its_configuration_is_saved_with_the_method(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["quant_method"] == "torchao"
