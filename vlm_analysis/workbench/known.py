"""What was measured of edits on a prompt set by whatever work, opened without the model and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import StrataError
from vlm_analysis.evaluation.evaluation import ANSWERS, COLUMNS, GROUP, METRICS, Evaluation
from vlm_analysis.evaluation.kept import kept_belongs, kept_scores
from vlm_analysis.evaluation.scores import FILE, best_of_accepted
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench.details import edit_key
from vlm_analysis.workbench.shelf import find_dense, open_item, open_whole
from vlm_analysis.workbench.stale import is_stale
from vlm_analysis.workbench.workspace import Item, Workspace


@dataclass(frozen=True, eq=False)
class Known:
    """The dense evaluation of a model on a prompt set, and where scores of edits are kept: in folders of scores, the newest first, and
    among saved evaluations, by the edit's key.
    """

    prompts: Item
    dense: Evaluation
    folders: tuple[Path, ...]
    saved: Mapping[str, Item]

    def evaluation(self, edit: Edit) -> Evaluation | None:
        """Return the Evaluation of an edit on all prompts of the dense one, without responses and choices; None where it is not known."""
        if edit.is_dense:
            return self.dense
        return self._kept(edit) or self._saved(edit)

    def _saved(self, edit: Edit) -> Evaluation | None:
        item = self.saved.get(edit.key)
        found: Evaluation | None = None if item is None else open_whole(item)
        return found

    def _kept(self, edit: Edit) -> Evaluation | None:
        for folder in self.folders:
            try:
                kept = kept_scores(folder, edit.key)
                scores = best_of_accepted(kept, self._rows[1]) if kept else {}
            except StrataError:
                continue  # damaged: it is named where scores are written
            rows = [self._rows[0].get(name, -1) for name in self.dense.by_prompt["id"]]
            if scores and all(row in scores for row in rows):
                return self._made(edit, [scores[row] for row in rows])
        return None

    def _made(self, edit: Edit, scores: list[dict[str, Any]]) -> Evaluation:
        dense = self.dense
        frame = dense.by_prompt[[name for name in (*COLUMNS, GROUP, ANSWERS) if name in dense.by_prompt]].copy()
        for metric in METRICS:
            frame[metric] = np.array([one[metric] for one in scores], bool if metric == "exact_match" else np.float64)
        return Evaluation(edit, dense.model, dense.prompts, frame, set_aside=dense.set_aside)

    @cached_property
    def _rows(self) -> tuple[dict[str | None, int], dict[int, tuple[int, ...]]]:
        """The row of each prompt by its id, and by that row those of its further accepted answers (see `evaluation.run.prepared`)."""
        prompts: PromptSet = open_item(self.prompts)
        next_row, accepted = len(prompts), {}
        for row, prompt in enumerate(prompts):
            if prompt.answers:
                further = len(prompt.answers) - 1
                accepted[row] = tuple(range(next_row, next_row + further))
                next_row += further
        return {prompt.id: row for row, prompt in enumerate(prompts)}, accepted


def find_known(shelf: Workspace, model: str, prompts: Item) -> Known | None:
    """Return what is known of a model (its fingerprint) on saved prompts; None where the dense model was not evaluated on them."""
    item = find_dense(shelf, model, prompts.prompts)
    dense = None if item is None else open_whole(item)
    if dense is None:
        return None
    saved = {
        str(edit_key(one.details)): one
        for one in reversed(shelf.items("evaluations"))
        if (one.model, one.prompts) == (model, prompts.prompts) and not is_stale(shelf, one)
    }
    return Known(prompts, dense, _folders(shelf, model, str(prompts.prompts)), saved)


def _folders(shelf: Workspace, model: str, prompts: str) -> tuple[Path, ...]:
    found = []
    for path in (shelf.root / "scores").glob(f"*/{FILE}"):
        try:
            belongs = kept_belongs(path.parent)
            if (belongs.get("model"), belongs.get("prompts")) == (model, prompts):
                found.append((path.stat().st_mtime_ns, path.parent))
        except (OSError, StrataError):
            continue
    return tuple(folder for _, folder in sorted(found, reverse=True))
