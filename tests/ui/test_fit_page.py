"""The Model page tells before loading whether a model fits, in words and in a bar, and shows errors as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from acting import settled
from families import llama
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[2]
FOLDER, HUB = "Folder on this machine", "Hugging Face Hub"


def words(at: AppTest) -> str:
    parts = [at.caption, at.warning, at.error, at.success]
    return "\n".join(str(element.value).replace("\\", "") for part in parts for element in part)


def ask(at: AppTest) -> AppTest:
    """Press the button and wait for the job behind it."""
    button(at).click()
    at.run()
    return settled(at)


def button(at: AppTest) -> AppTest:
    return next(found for found in at.button if found.label == "Will it fit?")


def choose_folder(at: AppTest, folder: Path | str) -> AppTest:
    at.segmented_control(key="model_kind").set_value(FOLDER)
    at.run()
    at.text_input[0].set_value(str(folder))
    return at.run()


def test_bundled_model_fits_and_says_what_a_quarter_fewer_layers_saves(open_page):
    at = ask(open_page("pages/1_model.py"))
    text = words(at)
    assert "'pocket-vl' fits. 2.2 million parameters: 8 MiB of float32 weights" in text
    assert "auto takes float32: the most exact on a CPU, and it fits" in text
    assert "Without 4 of its 16 decoder layers (25 %) it would have 443,328 parameters fewer" in text
    assert len(at.get("plotly_chart")) == 1


def test_second_bundled_model_is_a_choice_and_says_what_it_was_made_for(open_page):
    at = open_page("pages/1_model.py")
    assert "made for the packs general and math" in words(at)
    at.segmented_control(key="model_bundled").set_value("pocket-vl-steps")
    at = ask(at.run())
    assert "made for the pack steps" in words(at)
    assert "findings on it say nothing about large models" in words(at)
    assert "'pocket-vl-steps' fits. 2.2 million parameters" in words(at)


def test_a_failed_load_is_not_told_of_the_next_path(open_page, tmp_path):
    at = choose_folder(open_page("pages/1_model.py"), tmp_path / "nothing")
    next(found for found in at.button if found.label == "Load").click()
    at.run()
    assert "No model at" in words(settled(at))
    assert "No model at" not in words(choose_folder(at, tmp_path))
    assert "No model at" in words(choose_folder(at, tmp_path / "nothing"))


def test_answer_for_other_options_is_not_shown(open_page):
    at = ask(open_page("pages/1_model.py"))
    at.selectbox[1].set_value("bfloat16")
    at.run()
    assert "fits." not in words(at)
    assert "4 MiB of bfloat16 weights" in words(ask(at))


def test_model_that_does_not_fit_is_refused_with_the_next_step(open_page, monkeypatch):
    import vlm_analysis.models.fit

    monkeypatch.setattr(vlm_analysis.models.fit, "free_bytes", lambda device: 3 * 2**20)
    at = ask(open_page("pages/1_model.py"))
    assert (
        "'pocket-vl' does not fit into memory: expected 9 MiB free for bfloat16 weights and a margin, got 3 MiB"
        in words(at)
    )
    assert len(at.get("plotly_chart")) == 1


@pytest.mark.parametrize("kind", [FOLDER, HUB])
def test_nothing_is_asked_without_a_source(open_page, kind):
    at = open_page("pages/1_model.py")
    at.segmented_control(key="model_kind").set_value(kind)
    assert button(at.run()).disabled


def test_wrong_folder_and_text_model_are_one_clear_message_each(open_page, tmp_path):
    at = ask(choose_folder(open_page("pages/1_model.py"), tmp_path / "nowhere"))
    assert len(at.error) == 1
    assert "No model at" in words(at)
    llama().save_pretrained(tmp_path / "text")
    at = choose_folder(at, tmp_path / "text")
    assert not at.error  # the message was about another source
    at = ask(at)
    assert "'text' is not a vision-language model: 'llama' is a language model without a vision tower" in words(at)


def test_page_starts_and_draws_an_estimate_without_torch():
    code = (
        "import sys, vlm_analysis.ui.model.fitview, vlm_analysis.ui.model.modelview; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
