"""Export the edited model: its card with the evidence in the workspace, and a probe."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit
from vlm_analysis.progress import Progress
from vlm_analysis.prompts.opening import choosing_packs, open_prompts
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.shelf import find_evidence, open_item
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.export.checkpoint import Manifest


def export_edit(
    desk: Desk,
    edit: Edit,
    folder: Path,
    probe: PromptSet | Item | tuple[()] | None,
    on_progress: Progress,
    masked: bool = False,
) -> Manifest:
    """Write the checkpoint of an edit, with the evidence in the workspace and a probe (see `vlm_analysis.export_checkpoint`)."""
    from vlm_analysis.export.checkpoint import export_checkpoint

    evidence, reference = find_evidence(desk.shelf, edit, desk.model)
    return export_checkpoint(
        desk.loaded,
        edit,
        folder,
        on_progress=on_progress,
        evidence=evidence,
        reference=reference,
        probe=probe_prompts(probe),
        masked=masked,
    )


def probe_prompts(source: PromptSet | Item | tuple[()] | None) -> list[Prompt]:
    """Return the prompts that a probe is chosen of, domains in turn: for None those of the bundled packs, for () none."""
    if isinstance(source, tuple):
        return []
    if source is None:
        sets = [open_prompts(pack) for pack in choosing_packs()]
    else:
        prompts: PromptSet = open_item(source) if isinstance(source, Item) else source
        sets = [prompts.for_domain(domain) for domain in prompts.domains]
    return [prompt for prompt in chain.from_iterable(zip_longest(*sets)) if prompt is not None]
