"""Trainings with memory: an edit is tuned, or a window of layers replaced, once for each recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import NothingLearntError
from vlm_analysis.progress import Progress
from vlm_analysis.recovery.replacements import replacing_of
from vlm_analysis.recovery.tunings import tuning_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.learnt import learn_once
from vlm_analysis.workbench.recipes import recipe_of
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item


def tune_edit(
    desk: Desk,
    prompts: Item,
    edit: Edit,
    how: str,
    progress: Progress,
    *,
    name: str = "",
    on_partial: Callable[[Edit], None] | None = None,
    **options: Any,
) -> Item:
    """Tune an edit (see `vlm_analysis.finetune`); return its Item, that of the same work where it is saved already.

    When the work is cancelled, the best edit so far is kept under a name that says so, until the same work is finished.

    Raises:
        NothingLearntError: no state was better than the edit as it is.
        EditError: as `finetune`.
    """
    recipe = recipe_of(desk, prompts, edit, {"how": how, **tuning_of(how, options).to_json()})

    def learn(**kept: Any) -> Edit:
        from vlm_analysis.recovery.finetune.finetune import FINETUNE, finetune

        tuned = finetune(desk.loaded, edit, desk.open_prompts(prompts), how, **kept, on_progress=progress, **options)
        if tuned == edit:
            nll = tuned.provenance[FINETUNE]["held_out_nll"][0]
            raise NothingLearntError(
                f"Nothing was learnt: expected a state with a lower held-out answer NLL than {nll:.3f}, got none. Take more prompts or a "
                "lower learning_rate, or keep the edit as it is."
            )
        return tuned

    return learn_once(desk, recipe, learn, name=name, on_partial=on_partial)


def replace_layers(
    desk: Desk,
    prompts: Item,
    n: int,
    progress: Progress,
    *,
    window: int | None = None,
    name: str = "",
    on_partial: Callable[[Edit], None] | None = None,
    **options: Any,
) -> Item:
    """Replace a window of layers (see `vlm_analysis.replace_window`); return its Item, that of the same work where it is saved already.

    Raises:
        EditError: as `replace_window`.
    """
    settings = {"how": "replace", "n": n, "window": window, **replacing_of(options).to_json()}
    recipe = recipe_of(desk, prompts, Edit(desk.loaded.n_layers), settings)

    def learn(**kept: Any) -> Edit:
        from vlm_analysis.recovery.replacing import replace_window

        asked = open_item(prompts)
        return replace_window(desk.loaded, asked, n, window=window, **kept, on_progress=progress, **options)

    return learn_once(desk, recipe, learn, name=name, on_partial=on_partial)
