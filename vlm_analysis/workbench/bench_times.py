"""The part of the Bench that takes times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.cost import ROUNDS, Cost
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench import costs
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.latency import Latency


class Times(AtDesk):
    """Costs and times with memory (see `bench.Bench`)."""

    def cost(
        self, prompts: PromptSet | Item, *edits: Edit, rounds: int = ROUNDS, on_progress: Progress = no_progress
    ) -> list[Cost]:
        """Return the Cost of each edit as measured on these prompts and this machine (see `vlm_analysis.measure_costs`)."""
        desk, item = self._at(prompts, on_progress)
        return costs.costs_of(desk, item, edits, rounds, on_progress)

    def measure_cost(
        self,
        prompts: PromptSet | Item,
        edit: Edit,
        *,
        line: bool = False,
        rounds: int = ROUNDS,
        on_partial: Callable[[Cost], None] | None = None,
        on_progress: Progress = no_progress,
    ) -> Item:
        """Save the Cost of an edit, timed now; with `line` also those of masks of other budgets, for a picture.

        With `on_partial` a rough timing of some 20 s comes first: it gets the Cost after each of its rounds, then after those that count.
        When the work is cancelled, the rounds that were finished are kept.
        """
        desk, item = self._at(prompts, on_progress)
        return costs.time_edit(desk, item, edit, rounds, on_progress, line=line, on_partial=on_partial)

    def measure_costs(
        self,
        prompts: PromptSet | Item,
        edits: Sequence[Edit],
        *,
        rounds: int = ROUNDS,
        on_progress: Progress = no_progress,
    ) -> list[Item]:
        """Save the Cost of each edit, all timed now and in turn."""
        desk, item = self._at(prompts, on_progress)
        return costs.time_edits(desk, item, edits, rounds, on_progress)

    def time_front(
        self, comparison: Item, *, most: int = 8, rounds: int = ROUNDS, on_progress: Progress = no_progress
    ) -> list[Item]:
        """Save the Costs of up to `most` masks of a saved comparison, all timed now and in turn: those of its front.

        It is that of the retention of every domain over the FLOPs of a prefill where the prompts were scanned, else over parameters.
        """
        return costs.time_front(self._desk(on_progress), comparison, most, rounds, on_progress)

    def pass_s(self, prompts: PromptSet | Item, *, on_progress: Progress = no_progress) -> float:
        """Return the seconds of one pass of the dense model over the first prompt, after one to warm up: a rough guess, not kept."""
        desk, item = self._at(prompts, on_progress)
        return costs.time_a_pass(desk, open_item(item))

    def latency(self, prompts: PromptSet | Item, *, on_progress: Progress = no_progress) -> Latency:
        """Return the time of each layer, measured once on some of the prompts while the model is loaded."""
        from vlm_analysis.evaluation.run.latency import measure_latency

        desk, item = self._at(prompts, on_progress)
        loaded = desk.loaded
        if desk.slot.latency is None:
            desk.slot.latency = measure_latency(loaded, open_item(item), on_progress=on_progress)
        return desk.slot.latency
