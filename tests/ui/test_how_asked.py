"""The Model page says how the model is asked, and where the files of its checkpoint disagree about it."""

from __future__ import annotations

import copy

import pytest
from acting import OpenPage, hold_bundled, words

from vlm_analysis import LoadedModel
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.session import model_slot
from vlm_analysis.ui.model import modelview
from vlm_analysis.workbench.slot import ModelSlot

PAGE = "pages/1_model.py"


def test_template_end_context_and_adapter_are_told(open_page: OpenPage) -> None:
    hold_bundled()
    at = open_page(PAGE)
    assert "chat template: chat_template.jinja\nend of an answer: <|im_end|>\ncontext: 2,048 tokens" in words(at)
    assert "adapter: none" in words(at)
    assert not at.warning


def test_where_two_files_disagree_the_page_says_which_is_in_force(open_page: OpenPage, loaded: LoadedModel) -> None:
    model = copy.copy(loaded.model)
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.eos_token_id = 0
    swapped = LoadedModel(model, loaded.processor, "swapped", loaded.source, adapter="lora (0123)")
    vars(model_slot()).update(vars(ModelSlot.holding(swapped)))
    at = open_page(PAGE)
    (warning,) = at.warning
    assert "The chat template ends an answer with" in warning.value
    assert "adapter: lora (0123)" in words(at)


def test_a_model_that_a_job_unloads_while_it_is_drawn_is_drawn_to_the_end(
    open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_bundled()
    draw = modelview.how_asked

    def unload_and_draw(info: ModelInfo) -> None:
        model_slot().unload()
        draw(info)

    monkeypatch.setattr(modelview, "how_asked", unload_and_draw)
    at = open_page(PAGE)
    assert not at.exception
    assert "chat template: chat_template.jinja" in words(at)
    assert model_slot().held is None
    assert "No model is loaded." in words(open_page(PAGE))
