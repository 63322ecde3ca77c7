"""Nothing is mixed up and nothing is silently wrong: what an attack once found, kept from coming back."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_analysis import (
    LoadedModel,
    Prompt,
    PromptSet,
    PruneMask,
    StrataError,
    compare,
    evaluate,
    export_checkpoint,
    load_model,
    open_comparison,
    open_prompts,
    record,
    save_comparison,
)
from vlm_analysis.edits.files import edit_from_json, edit_to_json
from vlm_analysis.errors import MaskError, ModelError, PromptError
from vlm_analysis.evaluation.run.metrics import answer_scores
from vlm_analysis.export.story import story_of
from vlm_analysis.export.target import PART
from vlm_analysis.models.source import BUNDLED_FOLDER
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.pipeline import compare_first_k
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.workspace import Workspace


def changed_copy(folder: Path, file: str, **changes: object) -> Path:
    """Copy the bundled model with entries of one of its JSON files changed."""
    shutil.copytree(BUNDLED_FOLDER, folder)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("file", "changes"),
    [("preprocessor_config.json", {"image_mean": [0, 0, 0]}), ("generation_config.json", {"eos_token_id": 11})],
    ids=["pixels", "end token"],
)
def test_fingerprint_covers_how_prompts_become_tensors(loaded, tmp_path, file, changes):
    assert load_model(changed_copy(tmp_path / "other", file, **changes)).fingerprint != loaded.fingerprint


def test_fingerprint_covers_the_chat_template(loaded, tmp_path):
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "other")
    with (tmp_path / "other" / "chat_template.jinja").open("a") as file:
        file.write(" ")
    assert load_model(tmp_path / "other").fingerprint != loaded.fingerprint


def test_configuration_with_fewer_layers_than_the_weights_is_refused(tmp_path):
    text = json.loads((BUNDLED_FOLDER / "config.json").read_text())["text_config"]
    folder = changed_copy(
        tmp_path / "short",
        "config.json",
        text_config={
            **text,
            "num_hidden_layers": 10,
            "layer_types": text.get("layer_types", ["full_attention"] * 16)[:10],
        },
    )
    with pytest.raises(ModelError, match=r"leaves out \d+ weights of layers"):
        load_model(folder)


def test_model_without_tokenizer_files_is_refused(tmp_path):
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "mute")
    for path in (tmp_path / "mute").glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="mute"):
        load_model(tmp_path / "mute")


def test_nan_of_either_model_is_missing_and_never_a_perfect_score():
    fine = np.log(np.full((2, 3), 1 / 3, dtype=np.float32))
    broken = np.full((2, 3), np.nan, dtype=np.float32)
    for scored, dense in ((broken, fine), (fine, broken), (broken, broken.copy())):
        scores = answer_scores(scored, dense, [0, 0])
        assert np.isnan([scores["kl_to_dense"], scores["token_agreement"]]).all()
    assert not answer_scores(broken, fine, [0, 0])["exact_match"]


def test_image_no_processor_takes_is_named_with_its_prompt(loaded):
    wide = Prompt((Image.new("RGB", (4000, 10)),), "how many shapes are there?", id="banner", answer="1")
    for work in (record, evaluate):
        with pytest.raises(PromptError, match=r"'banner' cannot be prepared.*aspect ratio.*2048, 5"):
            work(loaded, PromptSet([wide]))


def test_domains_that_look_like_numbers_stay_apart_in_a_saved_story(small, few, tmp_path):
    renamed = PromptSet(replace(prompt, domain={"math": "007", "general": "7"}[prompt.domain]) for prompt in few)
    comparison, recording = compare_first_k(small, renamed)
    opened = story_of(open_comparison(save_comparison(comparison, tmp_path / "c.npz")), recording)
    assert set(opened.curve["domain"]) == {"007", "7"}
    assert set(opened.examples["domain"]) <= {"007", "7"}


def test_model_whose_every_layer_is_protected_has_no_story_and_says_so(loaded, few, tmp_path):
    export_checkpoint(loaded, PruneMask(16, range(2, 15)), tmp_path / "three", verify=False)
    with pytest.raises(MaskError, match="No layer of three may be dropped"):
        compare(load_model(tmp_path / "three"), few)


def test_damaged_saved_prompts_are_refused_and_saving_again_mends_them(few, tmp_path):
    home = Workspace(tmp_path / "home")
    item = keep_prompts(home, few, "a few")
    next((item.path / "images").iterdir()).write_bytes(b"")
    with pytest.raises(PromptError, match="'a few' is damaged"):
        open_item(item)
    again = keep_prompts(home, few, "a few")
    assert again.id != item.id
    assert open_item(again).fingerprint == few.fingerprint


def test_same_prompts_saved_twice_under_a_name_are_one_set(few, tmp_path):
    home = Workspace(tmp_path / "home")
    assert keep_prompts(home, few, "a few") == keep_prompts(home, few, "a few")


@pytest.mark.parametrize("provenance", ['{"b": NaN}', '{"b": "\\ud800"}', '{"b": Infinity}'])
def test_mask_file_that_could_not_be_written_again_is_refused(provenance):
    text = edit_to_json(PruneMask(16, [5])).replace('"provenance": {}', f'"provenance": {provenance}')
    assert provenance in text
    with pytest.raises(MaskError, match="is not a whole mask"):
        edit_from_json(text)


def test_export_tidies_what_a_killed_export_left(loaded, tmp_path):
    left = tmp_path / f".pruned.0123abcd{PART}"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    export_checkpoint(loaded, PruneMask(16, [5]), tmp_path / "pruned", verify=False)
    assert not left.exists()


def test_exported_card_shows_names_and_notes_as_text(loaded, tmp_path):
    mask = PruneMask(16, [5], name="![x](http://host.example/p)\n# H", notes="<script>alert(1)</script>\n\n# H")
    export_checkpoint(loaded, mask, tmp_path / "pruned", verify=False)
    card = (tmp_path / "pruned" / "README.md").read_text()
    assert "`![x](http://host.example/p) # H`" in card
    assert all(line.startswith("    ") for line in card.splitlines() if "script" in line or line.strip() == "# H")


@pytest.mark.parametrize(
    "text", ["https://evil.example/x", "www.evil.example", "a@evil.example", "HTTP://WWW.evil.example"]
)
def test_escaped_text_holds_nothing_a_link_can_start_with(text):
    shown = escaped(text).replace("\\", "")
    assert "://e" not in shown.lower()
    assert "www.e" not in shown.lower()
    assert "@e" not in shown
    assert shown.replace("\u2060", "") == text


@pytest.mark.parametrize("source", ["~nosuchuser/x", "./" + "a" * 300, "a\0b", "nowhere/x/y"])
def test_path_no_folder_can_have_is_refused_in_words(loaded, source):
    with pytest.raises(StrataError):
        load_model(source)
    with pytest.raises(StrataError):
        export_checkpoint(loaded, PruneMask(16, [5]), Path(source if "\0" in source or "~" in source else "\0"))


def test_bundled_packs_are_whole(packs: PromptSet, loaded: LoadedModel):
    assert len(packs) == 90
    assert not open_prompts("math").problems
    assert not open_prompts("general").problems
