"""The default fine-tuning on the bundled model with its 90 prompts, whole: minutes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlm_analysis import (
    Adapt,
    LoadedModel,
    PromptSet,
    PruneMask,
    apply_edit,
    evaluate,
    finetune,
    load_model,
    open_prompts,
)


@pytest.mark.slow
def test_it_lowers_the_answer_nll_on_prompts_that_it_never_saw(loaded: LoadedModel, packs: PromptSet) -> None:
    report = open_prompts("math-report") + open_prompts("general-report")
    mask = PruneMask(16, (4, 5, 7, 9, 10, 12, 14))
    tuned = finetune(loaded, mask, packs)
    before, after = (evaluate(loaded, report, edit).by_prompt["answer_nll"].mean() for edit in (mask, tuned))
    assert after < 0.75 * before
    assert tuned.provenance["finetune"]["steps"] == 60


@pytest.mark.slow
def test_in_bfloat16_factors_are_float32_and_the_merged_weights_bfloat16(few: PromptSet) -> None:
    half = load_model(dtype="bfloat16")
    tuned = finetune(half, PruneMask(16, (4, 5)), few, most_steps=3, checks=1, learning_rate=1e-2)
    adapt = tuned.changes[1]
    assert isinstance(adapt, Adapt)
    assert {factor.dtype for factor in adapt.tensors.read().values()} == {np.dtype(np.float32)}
    assert {tensor.dtype for tensor in apply_edit(half.model, tuned).parameters()} == {torch.bfloat16}
