"""What the Evaluate page works with: the mask that is chosen once above its tabs, the prompts in use and the loaded model."""

from __future__ import annotations

from dataclasses import dataclass

from vlm_analysis.edits.edit import Edit
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.ui.common.pickers import agree_on_model, pick_mask
from vlm_analysis.ui.common.session import chosen, model_slot
from vlm_analysis.ui.common.shell import next_step
from vlm_analysis.workbench.workspace import Item


@dataclass(frozen=True)
class EvaluateInputs:
    """The inputs of the Evaluate page; `ready` if there are a model, a mask and prompts that belong together."""

    info: ModelInfo | None
    mask: Edit | None
    prompts: Item | None
    ready: bool


def pick_inputs() -> EvaluateInputs:
    """Draw the choice of a mask; `say_missing` says what else a tab needs."""
    info = model_slot().info
    return EvaluateInputs(info, pick_mask(info.n_layers if info else None), chosen("prompts"), ready=False)


def say_missing(inputs: EvaluateInputs, *, own_prompts: bool = False) -> EvaluateInputs:
    """Draw the one next step where something is missing; returns the inputs, ready where nothing is.

    With `own_prompts` the tab chooses prompts itself, and none need be in use.
    """
    info, mask = inputs.info, inputs.mask
    ready = False
    if mask is None:
        where = f" for a model of {info.n_layers} layers" if info else ""
        next_step(f"There is no mask to evaluate{where}.", "pages/4_masks.py", "Make a mask")
    elif inputs.prompts is None and not own_prompts:
        next_step("There are no prompts to evaluate on.", "pages/2_prompts.py", "Choose prompts")
    elif info is None:
        next_step("No model is loaded. Saved evaluations open without one.", "pages/1_model.py", "Load a model")
    else:
        ready = agree_on_model(mask.model, info, "This mask", "evaluate")
    return EvaluateInputs(info, mask, inputs.prompts, ready)
