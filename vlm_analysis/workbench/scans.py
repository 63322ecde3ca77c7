"""Scans of vision tokens with memory: measured once for each model, prompt set and form, and the part of the Bench that has them."""

from __future__ import annotations

import shutil
from typing import Any

from vlm_analysis.edits.kinds.vision import SLICED
from vlm_analysis.evaluation.scan import VisionScan
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.shelf import keep, open_item, unfinished_folder, whole_items
from vlm_analysis.workbench.workspace import Item, Workspace


def measure_scan(
    desk: Desk, prompts: Item, progress: Progress, *, name: str = "", form: str = SLICED, deepstack: bool = True
) -> Item:
    """Scan the prompts and return the Item of the scan.

    Batches are kept as they come until the scan is saved: one that was cancelled or interrupted continues from there.
    """
    from vlm_analysis.evaluation.run.scan import prepare_scan, run_scan, scan_of
    from vlm_analysis.workbench.cluster.doors import model_of, scan_on

    folder = unfinished_folder(desk.shelf, desk.model, prompts, {"scan": form, "deepstack": deepstack})
    how: dict[str, Any] = {"form": form, "deepstack": deepstack, "folder": folder}
    ready = prepare_scan(desk.loaded, desk.open_prompts(prompts), **how, on_progress=progress)
    crew = desk.crew
    scores = (
        run_scan(ready, on_progress=progress) if crew is None else scan_on(crew, model_of(desk.slot), ready, progress)
    )
    name = name or f"vision tokens of {desk.loaded.name} on {prompts.name}"
    item = keep(desk.shelf, "scans", scan_of(ready, scores), name)
    shutil.rmtree(folder, ignore_errors=True)
    return item


def find_scan(
    shelf: Workspace, model: str | None, prompts: str | None, *, form: str | None = None, deepstack: bool = True
) -> Item | None:
    """Return the Item of the newest whole scan of a model on a prompt set, by their fingerprints (form None: in any); needs no model."""
    items = (item for item in shelf.items("scans") if (item.model, item.prompts) == (model, prompts))
    whole = whole_items(item for item in items if form in (None, item.details.get("form")))
    return next((item for item, scan in whole if scan.deepstack is deepstack), None)


class Scans(AtDesk):
    """Scans with memory (see `bench.Bench`)."""

    def scan(
        self,
        prompts: PromptSet | Item,
        *,
        form: str = SLICED,
        deepstack: bool = True,
        on_progress: Progress = no_progress,
    ) -> VisionScan:
        """Return the scan of the layers that vision tokens can skip (see `vlm_analysis.scan_vision`).

        Raises:
            EditError: vision tokens can skip no layer of this model.
        """
        desk, item = self._at(prompts, on_progress)
        known = find_scan(desk.shelf, desk.model, item.prompts, form=form, deepstack=deepstack)
        scan: VisionScan = open_item(known or measure_scan(desk, item, on_progress, form=form, deepstack=deepstack))
        return scan

    def measure_scan(
        self,
        prompts: PromptSet | Item,
        name: str = "",
        *,
        form: str = SLICED,
        deepstack: bool = True,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save a new scan; one that was stopped goes on."""
        desk, item = self._at(prompts, on_progress)
        return measure_scan(desk, item, on_progress, name=name, form=form, deepstack=deepstack)
