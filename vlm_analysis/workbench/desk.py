"""What every part of the Bench works on: the model slot, the workspace, and the model that the work is for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.words import counted
from vlm_analysis.workbench.shelf import keep_prompts, open_item
from vlm_analysis.workbench.slot import ModelSlot
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.evaluation.evaluation import Evaluation
    from vlm_analysis.evaluation.run.prepared import Prepared
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.progress import Progress
    from vlm_analysis.workbench.cluster.crew import Crew


@dataclass
class Ready:
    """A prompt set that is ready to be scored, and whether a dense evaluation has set prompts of it aside."""

    prompts: PromptSet
    work: Prepared
    compared: bool


@dataclass(frozen=True)
class Desk:
    """The model slot and the workspace; `model` is the fingerprint of the model that the work is for.

    `crew` are the workers of a cluster that rows and scores are measured by; None measures them here. What one step of a job has opened
    and made ready stays for its next: every job has a desk of its own.
    """

    slot: ModelSlot
    shelf: Workspace
    model: str
    crew: Crew | None = None
    _opened: dict[str, PromptSet] = field(default_factory=dict, compare=False, repr=False)  # by the item's id
    _ready: list[Ready] = field(default_factory=list, compare=False, repr=False)  # one at most

    @property
    def loaded(self) -> LoadedModel:
        """Return the model; raises ModelError if the slot holds another one."""
        return self.slot.expected(self.model)

    def open_prompts(self, item: Item) -> PromptSet:
        """Return a saved prompt set, the same one each time; raises as `open_item`."""
        if item.id not in self._opened:
            self._opened[item.id] = open_item(item)
        return self._opened[item.id]

    def ready(self, prompts: PromptSet, reference: Evaluation | None, progress: Progress) -> Prepared:
        """Return the prompts ready to be scored (see `evaluation.run.prepare`): as they were left, if they came last.

        Without a reference they are made ready anew where one has set prompts aside: what it lacked may be readable by now.
        """
        from vlm_analysis.evaluation.run.prepared import prepare

        known = self._ready[0] if self._ready else None
        if known is not None and known.prompts is prompts and (reference is not None or not known.compared):
            known.work.take_over(reference)
            known.compared |= reference is not None
            return known.work
        self.put_away()
        work = prepare(self.loaded, prompts, reference, on_progress=progress)
        self._ready.append(Ready(prompts, work, reference is not None))
        return work

    def put_away(self) -> None:
        """Forget the prompts that are ready, whose inputs may take up to a GiB."""
        self._ready.clear()


def prompts_item(shelf: Workspace, prompts: PromptSet | Item) -> Item:
    """Return the saved item of a prompt set: itself if it is an Item, else the newest of the same prompts and groups, else a new one."""
    if isinstance(prompts, Item):
        return prompts
    name = f"{counted(len(prompts), 'prompt')}: {', '.join(prompts.domains)}"
    return keep_prompts(shelf, prompts, name, any_name=True)
