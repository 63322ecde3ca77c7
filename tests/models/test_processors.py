"""Processors of older checkpoints: what their files leave out is taken from the model's configuration, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from outside import outside_prompts, save_outside_model

from vlm_analysis import load_model
from vlm_analysis.errors import ModelError
from vlm_analysis.models.inputs import encode


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_outside_model("llava", tmp_path_factory.mktemp("llava") / "whole")


def test_a_llava_of_any_age_puts_as_many_image_tokens_into_a_prompt(whole: Path) -> None:
    path = whole / "processor_config.json"
    settings = json.loads(path.read_text())
    want = (encode(load_model(whole), outside_prompts()[0]).kinds == 0).sum()
    try:
        for name in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
            path.write_text(json.dumps({key: value for key, value in settings.items() if key != name}))
            assert (encode(load_model(whole), outside_prompts()[0]).kinds == 0).sum() == want, name
    finally:
        path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "name",
    ["CLIPFeatureExtractor", pytest.param("GoneImageProcessor", marks=pytest.mark.slow), "GoneImageProcessorFast"],
)
def test_a_retired_image_processor_is_the_model_s_present_one(whole: Path, tmp_path: Path, name: str) -> None:
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "old"))
    settings = json.loads((folder / "processor_config.json").read_text())
    image = settings.pop("image_processor") | {"image_processor_type": name}
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    (folder / "processor_config.json").write_text(json.dumps(settings))
    found, want = encode(load_model(folder), outside_prompts()[0]), encode(load_model(whole), outside_prompts()[0])
    assert found.tensors["pixel_values"].equal(want.tensors["pixel_values"])


def test_a_tokenizer_alone_is_no_processor(whole: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(whole, tmp_path / "bare"))
    for name in ("processor_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="processor"):
        load_model(folder)
