"""Costs with memory: measured on this machine and saved, or found among saved ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.skipping import in_short
from vlm_analysis.errors import EvaluationError, PromptError, StrataError
from vlm_analysis.evaluation.cost import Cost
from vlm_analysis.evaluation.scan import VisionScan
from vlm_analysis.progress import Cancelled, Progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.selection.compared.comparison import Comparison
from vlm_analysis.selection.compared.findings import front_places
from vlm_analysis.words import counted
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.scans import find_scan
from vlm_analysis.workbench.shelf import keep_cost, open_item
from vlm_analysis.workbench.workspace import Item, Workspace

QUICK_S, QUICK_PROMPTS, QUICK_TOKENS = 20.0, 2, 8  # of the first, rough timing; our choice
FEW_TOKENS = 4  # written where only the prefill counts; our choice
SHORT = "short"  # in a sidecar: few tokens were written
OnCost = Callable[[Cost], None]
"""Called with the Cost of the rounds so far."""


def time_edits(
    desk: Desk,
    prompts: Item,
    edits: Sequence[Edit],
    rounds: int,
    progress: Progress,
    on_partial: Callable[[list[Cost]], None] | None = None,
    *,
    for_prefill: bool = False,
) -> list[Item]:
    """Time the model without and with each edit, in turn; return the Items of their Costs.

    Where only the prefill counts (`for_prefill`), few tokens are written for each prompt. When the work is cancelled, the rounds that were
    finished are kept, unless a saved Cost of the edit has as many.
    """
    from vlm_analysis.evaluation.run.timing import measure_costs

    prompt_set, so_far = open_item(prompts), list[Cost]()
    how: dict[str, Any] = {"new_tokens": FEW_TOKENS} if for_prefill else {}

    def partial(costs: list[Cost]) -> None:
        so_far[:] = costs
        if on_partial is not None:
            on_partial(costs)

    try:
        costs = measure_costs(
            desk.loaded, prompt_set, edits, rounds=rounds, on_partial=partial, on_progress=progress, **how
        )
    except Cancelled:
        _keep_rounds(desk, prompts, so_far, for_prefill)
        raise
    return [_keep(desk, prompts, cost, for_prefill) for cost in costs]


def time_front(desk: Desk, item: Item, most: int, rounds: int, progress: Progress) -> list[Item]:
    """Time up to `most` masks of a comparison, in turn, on its prompts; return the Items of their Costs.

    They are those on the front of retention over the FLOPs of a prefill, by the shape of the prompts that were scanned, where one was;
    else over parameters.

    Raises:
        EvaluationError: the prompts are not saved any more.
    """
    comparison: Comparison = open_item(item)
    prompts = next((one for one in desk.shelf.items("prompts") if one.prompts == comparison.dense.prompts), None)
    if prompts is None:
        raise EvaluationError(
            f"The masks of {item.name!r} cannot be timed: expected their prompts in the workspace, got none of them. Save them again."
        )
    scanned = find_scan(desk.shelf, desk.model, comparison.chosen_on) or find_scan(
        desk.shelf, desk.model, prompts.prompts
    )
    left = comparison.parameters_left()
    if scanned is not None:
        scan: VisionScan = open_item(scanned)
        left = np.array([scan.flops_share(mask) for mask in comparison.masks])
    masks = [comparison.masks[place] for place in front_places(comparison, left, most)]
    return time_edits(desk, prompts, masks, rounds, progress)


def _keep(desk: Desk, prompts: Item, cost: Cost, for_prefill: bool) -> Item:
    edit = cost.edit
    what = counted(edit.budget, "layer") if edit.is_mask else in_short(edit)
    short = {SHORT: True} if for_prefill else {}
    return keep_cost(desk.shelf, cost, f"{what} on {prompts.name}", prompts.prompts, **short)


def _keep_rounds(desk: Desk, prompts: Item, so_far: Sequence[Cost], for_prefill: bool) -> None:
    for cost in so_far:
        known, _ = find_costs(desk.shelf, desk.model, prompts.prompts, here=(cost.device, cost.threads))
        if all(one.rounds < cost.rounds for one in known if one.edit.key == cost.edit.key):
            _keep(desk, prompts, cost, for_prefill)


def time_edit(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    rounds: int,
    progress: Progress,
    *,
    line: bool = False,
    on_partial: OnCost | None = None,
) -> Item:
    """Time the model without and with an edit, with `line` masks of other budgets too; return the Item of the edit's Cost.

    With `on_partial` a rough timing of some 20 s comes first: it gets the Cost after each of its rounds, then after those that count.
    """
    edits = [edit]
    if line:
        from vlm_analysis.evaluation.run.timing import budget_masks

        edits = budget_masks(desk.loaded, edit)
    place = edits.index(edit)
    if on_partial is None:
        return time_edits(desk, prompts, edits, rounds, progress)[place]
    show = on_partial
    _time_roughly(desk, prompts, edit, rounds, progress, show)
    return time_edits(desk, prompts, edits, rounds, progress, lambda costs: show(costs[place]))[place]


def _time_roughly(desk: Desk, prompts: Item, edit: Edit, rounds: int, progress: Progress, show: OnCost) -> None:
    """Time an edit on two prompts for some seconds, for numbers to look at; nothing is kept."""
    from vlm_analysis.evaluation.run.timing import measure_costs

    prompt_set = open_item(prompts)
    few = prompt_set[:: max(1, len(prompt_set) // QUICK_PROMPTS)][:QUICK_PROMPTS]
    how: dict[str, Any] = {"rounds": rounds, "new_tokens": QUICK_TOKENS, "most_s": QUICK_S}
    with suppress(PromptError):  # others may do, and are tried next
        measure_costs(
            desk.loaded,
            few,
            [edit],
            **how,
            on_partial=lambda costs: show(costs[0]),
            on_progress=lambda done, total, message: progress(0, 1, f"a first look, {message}"),
        )


def time_a_pass(desk: Desk, prompts: PromptSet) -> float:
    """Return the seconds of one prefill of the dense model over the first prompt, after one to warm up.

    Raises:
        PromptError: the model refuses it.
    """
    from vlm_analysis.evaluation.run.latency import time_prefill, timed_batches

    loaded = desk.loaded
    (batch, *_), _ = timed_batches(loaded, prompts[:1])  # it tries each once
    return time_prefill(loaded, loaded.model, batch, use_cache=True)


def costs_of(desk: Desk, prompts: Item, edits: Sequence[Edit], rounds: int, progress: Progress) -> list[Cost]:
    """Return the Cost of each edit: the newest one measured on these prompts by as many threads of the same device, else a new one of
    as many rounds.

    Missing ones are timed together, in turn.
    """
    return [cost for cost, _ in known_costs(desk, prompts, edits, rounds, progress)]


def known_costs(
    desk: Desk, prompts: Item, edits: Sequence[Edit], rounds: int, progress: Progress, *, for_prefill: bool = False
) -> list[tuple[Cost, Item]]:
    """Return what `costs_of` does, each Cost with its Item, which tells when it was measured.

    Where only the prefill counts (`for_prefill`), those of few written tokens count too, and only those of as many rounds.
    """
    import torch

    here = str(desk.loaded.device), torch.get_num_threads()

    def counts(cost: Cost, item: Item) -> bool:
        fits = cost.rounds >= rounds if for_prefill else SHORT not in item.details
        return fits and (cost.device, cost.threads) == here

    found, _ = _newest(desk.shelf, desk.model, prompts.prompts, open_item, counts)
    missing = [edit for edit in dict.fromkeys(edits) if edit.key not in found]
    if missing:
        items = time_edits(desk, prompts, missing, rounds, progress, for_prefill=for_prefill)
        found |= {edit.key: (open_item(item), item) for edit, item in zip(missing, items, strict=True)}
    return [found[edit.key] for edit in edits]


def find_costs(
    shelf: Workspace,
    model: str,
    prompts: str | None,
    *,
    here: tuple[str, int] | None = None,
    opened: Callable[[Item], Any] = open_item,
) -> tuple[list[Cost], list[str]]:
    """Return the newest whole Cost of each edit for a model on prompts (None: on any), newest first, and messages on damaged ones.

    One that was measured for its prefill alone stands behind all others. With `here`, a device and a number of threads, only Costs
    measured on these. `opened` returns the value of an item.
    """
    found, problems = _newest(
        shelf, model, prompts, opened, lambda cost, _: here in (None, (cost.device, cost.threads))
    )
    return [cost for cost, _ in found.values()], problems


def _newest(
    shelf: Workspace,
    model: str,
    prompts: str | None,
    opened: Callable[[Item], Any],
    counts: Callable[[Cost, Item], bool],
) -> tuple[dict[str | None, tuple[Cost, Item]], list[str]]:
    """Return what `find_costs` does, by the keys of edits and with Items, of the Costs that count."""
    newest: dict[str | None, tuple[Cost, Item]] = {}
    problems = []
    for item in sorted(shelf.items("costs"), key=lambda item: bool(item.details.get(SHORT))):
        key = edit_key(item.details)
        if item.model != model or prompts not in (None, item.prompts) or key in newest:
            continue
        try:
            cost = opened(item)
        except StrataError as error:
            problems.append(f"{item.name}: {error}")
            continue
        if counts(cost, item):
            newest[key] = (cost, item)
    return newest, problems


def alike(costs: Sequence[Cost], cost: Cost) -> list[Cost]:
    """Return the costs measured like this one: same device, threads, prompts and tokens."""
    return [one for one in costs if one.way == cost.way]
