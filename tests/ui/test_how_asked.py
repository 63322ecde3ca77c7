"""The Model page says how the model is asked, and where the files of its checkpoint disagree about it."""

from __future__ import annotations

import copy

from acting import OpenPage, hold_bundled, words

from vlm_analysis import LoadedModel
from vlm_analysis.ui.common.session import model_slot
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
