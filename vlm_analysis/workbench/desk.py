"""What every part of the Bench works on: the model slot, the workspace, and the model that the work is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.words import counted
from vlm_analysis.workbench.shelf import keep_prompts
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.workbench.cluster.crew import Crew


@dataclass(frozen=True)
class Desk:
    """The model slot and the workspace; `model` is the fingerprint of the model that the work is for.

    `crew` are the workers of a cluster that rows and scores are measured by; None measures them here.
    """

    slot: ModelSlot
    shelf: Workspace
    model: str
    crew: Crew | None = None

    @property
    def loaded(self) -> LoadedModel:
        """Return the model; raises ModelError if the slot holds another one."""
        return self.slot.expected(self.model)


def prompts_item(shelf: Workspace, prompts: PromptSet | Item) -> Item:
    """Return the saved item of a prompt set: itself if it is an Item, else the newest of the same prompts and groups, else a new one."""
    if isinstance(prompts, Item):
        return prompts
    name = f"{counted(len(prompts), 'prompt')}: {', '.join(prompts.domains)}"
    return keep_prompts(shelf, prompts, name, any_name=True)
