"""Costs with memory: measured on this machine and saved, or found among saved ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.progress import Progress
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import keep_cost, open_item
from vlm_analysis.workbench.workspace import Item, Workspace


def time_edits(desk: Desk, prompts: Item, edits: Sequence[Edit], rounds: int, progress: Progress) -> list[Item]:
    """Time the model without and with each edit, in turn; return the Items of their Costs."""
    from vlm_analysis.evaluation.run.timing import measure_costs

    prompt_set = open_item(prompts)
    costs = measure_costs(desk.loaded, prompt_set, edits, rounds=rounds, on_progress=progress)
    name = f"layers on {prompts.name}"
    return [keep_cost(desk.shelf, cost, f"{cost.edit.budget} {name}", prompt_set.fingerprint) for cost in costs]


def time_line(desk: Desk, prompts: Item, edit: Edit, rounds: int, progress: Progress) -> Item:
    """Time the model without and with an edit and masks of other budgets; return the Item of the edit's Cost."""
    from vlm_analysis.evaluation.run.timing import budget_masks

    edits = budget_masks(desk.loaded, edit)
    return time_edits(desk, prompts, edits, rounds, progress)[edits.index(edit)]


def costs_of(desk: Desk, prompts: Item, edits: Sequence[Edit], rounds: int, progress: Progress) -> list[Cost]:
    """Return the Cost of each edit: the newest one measured on these prompts by as many threads of the same device, else a new one of
    as many rounds.

    Missing ones are timed together, in turn.
    """
    import torch

    here = str(desk.loaded.device), torch.get_num_threads()
    costs, _ = find_costs(desk.shelf, desk.model, prompts.prompts, here=here)
    known = {cost.edit.key: cost for cost in costs}
    missing = [edit for edit in dict.fromkeys(edits) if edit.key not in known]
    if missing:
        new_costs = [open_item(item) for item in time_edits(desk, prompts, missing, rounds, progress)]
        known |= {cost.edit.key: cost for cost in new_costs}
    return [known[edit.key] for edit in edits]


def find_costs(
    shelf: Workspace,
    model: str,
    prompts: str | None,
    *,
    here: tuple[str, int] | None = None,
    opened: Callable[[Item], Any] = open_item,
) -> tuple[list[Cost], list[str]]:
    """Return the newest whole Cost of each edit for a model on prompts (None: on any), newest first, and messages on damaged ones.

    With `here`, a device and a number of threads, only Costs measured on these. `opened` returns the value of an item.
    """
    newest: dict[str | None, Cost] = {}
    problems = []
    for item in shelf.items("costs"):
        key = edit_key(item.details)
        if item.model != model or prompts not in (None, item.prompts) or key in newest:
            continue
        try:
            cost = opened(item)
        except StrataError as error:
            problems.append(f"{item.name}: {error}")
            continue
        if here in (None, (cost.device, cost.threads)):
            newest[key] = cost
    return list(newest.values()), problems


def alike(costs: Sequence[Cost], cost: Cost) -> list[Cost]:
    """Return the costs measured like this one: same device, threads, prompts and tokens."""

    def way(one: Cost) -> tuple[object, ...]:
        return one.device, one.threads, one.n_prompts, one.prompt_tokens, one.new_tokens

    return [one for one in costs if way(one) == way(cost)]
