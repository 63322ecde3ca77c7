"""The job that measures what a mask saves, and what was measured before."""

from __future__ import annotations

from collections.abc import Sequence

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.progress import Progress
from vlm_analysis.ui.common.session import model_slot, opened, workspace
from vlm_analysis.ui.common.work import Work
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import keep_cost, open_item
from vlm_analysis.workbench.workspace import Item


def cost_work(mask: Edit, prompts: Item, line: bool) -> Work:
    """Time the loaded model without and with the mask, with `line` also with masks of other budgets; returns the mask's Cost."""
    slot, shelf, model = model_slot(), workspace(), model_slot().fingerprint

    def work(progress: Progress) -> Cost:
        from vlm_analysis.evaluation.run.timing import budget_masks, measure_costs

        loaded, prompt_set = slot.expected(model), open_item(prompts)
        masks = budget_masks(loaded, mask) if line else [mask]
        made = measure_costs(loaded, prompt_set, masks, on_progress=progress)
        for cost in made:
            keep_cost(shelf, cost, f"{cost.edit.budget} layers on {prompts.name}", prompt_set.fingerprint)
        return made[masks.index(mask)]

    return work


def find_costs(model: str, prompts: str | None) -> tuple[list[Cost], list[str]]:
    """Return the newest whole Cost of each mask, measured for a model on prompts (None: on any), newest first, and what is damaged."""
    newest: dict[str | None, Cost] = {}
    problems = []
    for item in workspace().items("costs"):
        key = edit_key(item.details)
        if item.model != model or prompts not in (None, item.prompts) or key in newest:
            continue
        try:
            newest[key] = opened(item)
        except StrataError as error:
            problems.append(f"{item.name}: {error}")
    return list(newest.values()), problems


def alike(costs: Sequence[Cost], cost: Cost) -> list[Cost]:
    """Return those of the costs that were measured as this one was: on as many threads of the same device, prompts and tokens."""

    def way(one: Cost) -> tuple[object, ...]:
        return one.device, one.threads, one.n_prompts, one.prompt_tokens, one.new_tokens

    return [one for one in costs if way(one) == way(cost)]
