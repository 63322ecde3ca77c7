"""The part of the Bench that gives a cut model something back, and measures what comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.workbench import ledgers, recoveries, tunings
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.desk import prompts_item
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.recovery.ledger import Ledger
    from vlm_analysis.workbench.ledgers import Needs


class Recovering(AtDesk):
    """What comes back of what an edit took away, with memory (see `bench.Bench`)."""

    def recover(self, edit: Edit, prompts: PromptSet | Item, how: str = "ridge", **options: Any) -> Item:
        """Save the edit, repaired, tuned, or both ("ridge+small") on these prompts; one made so before is opened.

        Of tuning that is stopped the best is kept. `options` are `name`, `on_progress`, and those of `vlm_analysis.repair` and `finetune`,
        `on_partial` among them.
        """
        on_progress = options.pop("on_progress", no_progress)
        about = {name: value for name, value in options.items() if name not in ("name", "on_partial")}
        ledgers.check_asked(edit, (how,), about, measured=False)
        desk, item = self._at(prompts, on_progress)
        return recoveries.recover_edit(desk, item, edit, how, on_progress, **options)

    def replace(self, prompts: PromptSet | Item, n: int, **options: Any) -> Item:
        """Save the edit in which one layer, trained on these prompts, stands for a window of n + 1; one made so before is opened.

        Of work that is stopped the best is kept, and the same call goes on. `options` are `name`, `on_progress`, and those of
        `vlm_analysis.replace_window`, `window` and `on_partial` among them.
        """
        on_progress = options.pop("on_progress", no_progress)
        desk, item = self._at(prompts, on_progress)
        return tunings.replace_layers(desk, item, n, on_progress, **options)

    def measure_recovery(
        self,
        edit: Edit,
        prompts: PromptSet | Item,
        report: PromptSet | Item,
        ways: Sequence[str] = ("ridge",),
        *,
        name: str = "",
        responses: bool = False,
        on_partial: Callable[[Ledger], None] | None = None,
        on_progress: Progress = no_progress,
        **options: Any,
    ) -> Item:
        """Save the ledger of an edit: the dense model, the cut one, and each way of recovery, on prompts that nothing is learnt on.

        Where a way tunes, the dense model is tuned alike. What is learnt is saved as edits; the same call opens it.

        Args:
            prompts, report: to learn on, and to report on; they may share no prompt and no picture.
            ways: each as `how` of `recover`; with one tuning among them at most.
            responses: whether the models write their responses where they do not answer exactly.
            on_partial: called with the Ledger of the rows so far.
            options: of `vlm_analysis.repair` and `finetune`.

        Raises:
            StrataError: nothing is cut, no way gives anything back, prompts are learnt on and reported on, or as `repair` and `finetune`.
        """
        learn, reported = prompts_item(self.workspace, prompts), prompts_item(self.workspace, report)
        ledgers.check_asked(edit, tuple(ways), options, learn, reported)
        desk = self._desk(on_progress)
        rest: dict[str, Any] = {"name": name, "responses": responses, "on_partial": on_partial, **options}
        return ledgers.measure_recovery(desk, learn, reported, edit, ways, on_progress, **rest)

    def recovery_needs(
        self,
        edit: Edit,
        prompts: PromptSet | Item,
        report: PromptSet | Item,
        ways: Sequence[str] = ("ridge",),
        *,
        on_progress: Progress = no_progress,
        **options: Any,
    ) -> Needs:
        """Return about what `measure_recovery` will take in time and memory, by a pass or two of the longest prompts; nothing is kept.

        Raises:
            StrataError: as `measure_recovery` where that can be told before it runs.
        """
        learn, reported = (one if isinstance(one, PromptSet) else open_item(one) for one in (prompts, report))
        return ledgers.needs_of(self._desk(on_progress), learn, reported, edit, tuple(ways), options)
