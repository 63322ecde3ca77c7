"""Comparisons that tell a story: the demo and the same on any model, saved with their parts."""

from __future__ import annotations

import operator
import shutil
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from vlm_analysis.errors import PromptError, WorkspaceError
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.halves import split_in_halves
from vlm_analysis.prompts.opening import REPORT, choosing_packs, open_prompts
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.selection.compared.answer import best_places, recommended_budget
from vlm_analysis.selection.compared.comparison import CHOICE_METRICS, Comparison
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import scorer
from vlm_analysis.workbench.shelf import (
    keep_comparison,
    keep_dense,
    keep_evaluation,
    keep_mask,
    keep_prompts,
    keep_recording,
    open_item,
    scores_folder,
    unfinished_folder,
)
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation
    from vlm_analysis.export.story import Story
    from vlm_analysis.recording.recording import Recording
    from vlm_analysis.workbench.answers import OnComparison

PARTS = ("recordings", "prompts", "masks", "evaluations")
"""The kinds of a story's parts; its item's details have their ids."""
DEMO_PROMPTS, LIMITED = "Bundled packs: ", ", the first "


def demo(
    slot: ModelSlot,
    shelf: Workspace,
    on_progress: Progress,
    *,
    first: int | None = None,
    on_partial: OnComparison | None = None,
) -> Item:
    """Load the bundled model if needed, choose masks on the packs and report on their fellows; return the Item of the comparison.

    `first` limits the prompts of each pack; `on_partial` is that of `compare_on_halves`.
    """
    on_progress(0, 1, "loading Pocket-VL (the first time, PyTorch takes some seconds)")
    from vlm_analysis.models.source import BUNDLED_FOLDER

    if slot.info is None or slot.loaded.source != str(BUNDLED_FOLDER):
        slot.load("pocket-vl", {}, lambda done, total, message: on_progress(0, 1, message))
    packs = choosing_packs()
    choose, report = (_packs(shelf, names, first) for names in (packs, [f"{pack}{REPORT}" for pack in packs]))
    return _tell(slot, shelf, choose, report, choose.name, on_partial, on_progress)


def _packs(shelf: Workspace, names: Sequence[str], first: int | None) -> Item:
    prompts = reduce(operator.add, (open_prompts(name)[:first] for name in names))
    limited = "" if first is None else f"{LIMITED}{first} of each"
    return keep_prompts(shelf, prompts, f"{packs_name(names)}{limited}")


def packs_name(names: Sequence[str]) -> str:
    """Return the name of saved bundled packs."""
    return f"{DEMO_PROMPTS}{', '.join(names)}"


def fellows(name: str) -> tuple[str, ...]:
    """Return the names of saved packs to choose on and of those to report on, of which a name is one; () of other prompts.

    >>> fellows("Bundled packs: general-report, math-report")
    ('Bundled packs: general, math', 'Bundled packs: general-report, math-report')
    >>> fellows("Bundled packs: general, math-report"), fellows("mine")
    ((), ())
    """
    packs, comma, limit = name.removeprefix(DEMO_PROMPTS).partition(LIMITED)
    choose = [pack.removesuffix(REPORT) for pack in packs.split(", ")]
    both = tuple(f"{packs_name(names)}{comma}{limit}" for names in (choose, [f"{pack}{REPORT}" for pack in choose]))
    return both if name in both else ()


def tell_story(
    slot: ModelSlot,
    shelf: Workspace,
    prompts_item: Item,
    on_progress: Progress,
    on_partial: OnComparison | None = None,
) -> Item:
    """Compare criteria on the loaded model, save the comparison and its parts, and return its Item.

    Masks are chosen on one half of the prompts and reported on the other; on all of them where they cannot be split in halves
    (`split_in_halves`). An interrupted comparison continues where it stopped.
    """
    prompts: PromptSet = open_item(prompts_item)
    try:
        halves = [
            keep_prompts(shelf, half, f"{prompts_item.name}, half {name}")
            for half, name in zip(split_in_halves(prompts), "AB", strict=True)
        ]
    except PromptError:
        halves = [prompts_item, prompts_item]
    return _tell(slot, shelf, halves[0], halves[1], prompts_item.name, on_partial, on_progress)


def _tell(
    slot: ModelSlot,
    shelf: Workspace,
    choose: Item,
    report: Item,
    about: str,
    on_partial: OnComparison | None,
    on_progress: Progress,
) -> Item:
    """Compare on two saved prompt sets, and save the comparison under what it is about."""
    from vlm_analysis.workbench.answers import compare_on_halves

    loaded, reported = slot.loaded, open_item(report)
    rows = unfinished_folder(shelf, loaded.fingerprint, choose, {"story": True})
    comparison, recording = compare_on_halves(
        loaded,
        open_item(choose),
        reported,
        rows=rows,
        scores=lambda prompts: scores_folder(shelf, loaded, prompts),
        on_partial=on_partial,
        on_progress=on_progress,
    )
    slot.dense[reported.fingerprint] = comparison.dense
    pruned = comparison.evaluation(best_places(comparison)[recommended_budget(comparison)])
    if (
        CHOICE_METRICS[0] in comparison.scores
    ):  # a comparison has only the scores of choices, the evaluation also the choices
        pruned = scorer(Desk(slot, shelf, loaded.fingerprint), report, on_progress)([pruned.edit])[0]
    item = _keep(shelf, comparison, recording, pruned, choose, report, f"{loaded.name} on {about}")
    shutil.rmtree(rows, ignore_errors=True)
    return item


def _keep(
    shelf: Workspace,
    comparison: Comparison,
    recording: Recording,
    pruned: Evaluation,
    choose: Item,
    report: Item,
    about: str,
) -> Item:
    """Save a comparison, its recording, the mask of its answer and the evaluations."""
    saved_recording = keep_recording(shelf, recording, f"{recording.model.name} on {choose.name}")
    saved_mask = keep_mask(shelf, pruned.edit)
    keep_dense(shelf, comparison.dense, report.name)
    if comparison.choosing is not None:
        keep_dense(shelf, comparison.choosing.dense, choose.name)
    evaluation = keep_evaluation(shelf, pruned, f"{pruned.edit.name} on {report.name}")
    parts = {
        "prompts": report.id,
        "chosen_on": choose.id,
        "recordings": saved_recording.id,
        "masks": saved_mask.id,
        "evaluations": evaluation.id,
    }
    return keep_comparison(shelf, comparison, about, **parts)


def stories(shelf: Workspace) -> list[Item]:
    """Return the saved comparisons that tell a story and the stories of version 0.1, newest first."""
    comparisons = [item for item in shelf.items("comparisons") if PARTS[0] in item.details]
    return sorted([*comparisons, *shelf.items("stories")], key=lambda item: item.id, reverse=True)


def open_saved(shelf: Workspace, item: Item) -> Any:
    """Return the value behind a saved item of any kind: a Story for one of version 0.1, else what `open_item` returns.

    Raises:
        StrataError: its file, or the recording of a story, is missing or damaged.
    """
    return open_saved_story(shelf, item) if item.kind == "stories" else open_item(item)


def open_saved_story(shelf: Workspace, item: Item) -> Story:
    """Return the story that a saved comparison tells, or one of version 0.1; raises StrataError if it or its recording is missing."""
    from vlm_analysis.export.story import open_story, story_of

    recording_item = shelf.find("recordings", str(item.details.get("recordings")))
    if recording_item is None:
        raise WorkspaceError("The recording behind this demo result was deleted. Run the demo again.")
    recording = open_item(recording_item)
    return open_story(item.path, recording) if item.kind == "stories" else story_of(open_item(item), recording)
