"""Models of other families, as their users save them, go the whole way: load, record, prune, evaluate, export, load again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from outside import outside_prompts, save_outside_model

from vlm_analysis import PruneMask, evaluate, export_checkpoint, load_model, record
from vlm_analysis.errors import ModelError
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.models.inputs import encode, render_prompt

PROVED = ["mllama", "pp_chart2table", "smolvlm", "gemma3"]
AT_ONCE = ["gemma4"]  # layers that reuse keys and values, and tables with a part for each layer
LATER = [
    "mllama",
    "qwen2_5_vl",
    "pp_chart2table",
    "smolvlm",
    "gemma3",
    "chameleon",
    "glm5_next",
    "glm_ocr",
    "idefics3",
    "internvl",
    "llava_onevision",
    "minicpmv4_6",
    "ovis2",
]


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of numpy, on how transformers hands it a tensor
@pytest.mark.parametrize("kind", [*AT_ONCE, *(pytest.param(kind, marks=pytest.mark.slow) for kind in LATER)])
def test_a_model_from_outside_goes_the_whole_way(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind in AT_ONCE:
        request.getfixturevalue("_proved_here")
    loaded = load_model(save_outside_model(kind, tmp_path / kind))
    recording = record(loaded, outside_prompts())
    assert np.isfinite(recording.layer_similarity(None, "vision")).all()
    mask = PruneMask(loaded.n_layers, [layer for layer in range(1, 6) if layer not in loaded.locked_layers][:2])
    dense = evaluate(loaded, outside_prompts())
    one, many = (evaluate(loaded, outside_prompts(), mask, reference=dense, batch_size=size) for size in (1, 4))
    for score in ("answer_nll", "kl_to_dense"):
        np.testing.assert_allclose(one.by_prompt[score], many.by_prompt[score], atol=1e-4)
    manifest = export_checkpoint(loaded, mask, tmp_path / "out", verify=kind in PROVED)
    assert manifest.verified == (kind in PROVED)
    again = load_model(tmp_path / "out")
    assert again.n_layers == loaded.n_layers - 2
    assert respond(again, outside_prompts()[1]) == respond(loaded, outside_prompts()[1], mask)


def test_a_model_without_a_chat_template_is_given_its_images_and_then_the_question(tmp_path: Path) -> None:
    folder = save_outside_model("qwen2_5_vl", tmp_path / "base")
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    loaded = load_model(folder)
    assert not loaded.has_chat_template
    assert render_prompt(loaded, outside_prompts()[0]) == "<image>w1 w7"
    assert (encode(loaded, outside_prompts()[0]).kinds == 0).sum() > 0


def test_a_processor_that_writes_no_image_tokens_is_refused_before_it_fools_anybody(tmp_path: Path) -> None:
    loaded = load_model(save_outside_model("idefics3", tmp_path / "blind"))
    loaded.model.config.image_token_id = 110  # one that this processor never writes
    with pytest.raises(ModelError, match=r"put no image tokens into prompt '0'"):
        encode(loaded, outside_prompts()[0])
