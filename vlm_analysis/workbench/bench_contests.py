"""The part of the Bench that holds contests of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import inf
from typing import Any

from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.selection.contest.contest import CONTESTANTS, PARAMETERS
from vlm_analysis.workbench.atdesk import AtDesk
from vlm_analysis.workbench.budgets import Asked
from vlm_analysis.workbench.contestneeds import ContestNeeds, stages_of
from vlm_analysis.workbench.contests import OnContest, run_contest
from vlm_analysis.workbench.costs import time_a_pass
from vlm_analysis.workbench.desk import prompts_item
from vlm_analysis.workbench.ledgers import check_fresh
from vlm_analysis.workbench.recordings import recorded_prompts
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item


class Contests(AtDesk):
    """Contests with memory (see `bench.Bench`)."""

    def contest(
        self,
        choose: PromptSet | Item,
        report: PromptSet | Item,
        share: float,
        *,
        of: str = PARAMETERS,
        kinds: Sequence[str] = CONTESTANTS,
        recover: Sequence[str] = (),
        most_s: float = inf,
        width: int = 1,
        fast: bool = False,
        timed: bool = False,
        name: str = "",
        on_partial: OnContest | None = None,
        on_progress: Progress = no_progress,
        **options: Any,
    ) -> Item:
        """Save the contest of the best dropped layers, narrow layers, skipped vision tokens and mixes that save this share.

        A share of the decoder layers' parameters is rounded up to whole layers, and every kind saves that, to a unit of width. For one of a
        prefill's time some edits of each kind are timed on `choose` first, of which a size is estimated that saves it; each picked edit is
        timed then on `report`, and one that misses the share says so. Edits are picked by their mean retention
        over the domains of `choose`, and measured on `report`. What is known is not measured again.

        Args:
            choose, report: the prompts that edits are picked and recovered on, and others to report on.
            share, of: of the "parameters" of all decoder layers, or of the "time" of a prefill here; between 0 and 1.
            kinds: some of "depth", "width", "vision" and "mix".
            recover: ways in which every edit is recovered too, with the same settings; one with a repair in it holds for depth alone.
            most_s: after so many seconds a search begins no further step, and its best so far is filled up to the budget.
            width: how many points of a search go on; 1 is greedy.
            fast: whether the width is scored fast (see `vlm_analysis.score_width`).
            timed: whether a prefill is timed with each picked edit, on `report`; what was timed here before is
                not timed again.
            on_partial: called with the Contest of the entries so far.
            options: of `vlm_analysis.repair` and `finetune`.

        Raises:
            StrataError: an argument is none, the budget cannot be met by any kind, or edits are to be recovered on reported prompts.
        """
        asked = Asked(share, of, tuple(kinds), tuple(dict.fromkeys(recover)), most_s, width, fast, timed, options)
        item, other = prompts_item(self.workspace, choose), prompts_item(self.workspace, report)
        desk = self._desk(on_progress)
        item = recorded_prompts(desk, item)
        if asked.recover:
            check_fresh(open_item(item), open_item(other))
        return run_contest(desk, item, other, asked, on_progress, name=name, on_partial=on_partial)

    def contest_needs(
        self,
        choose: PromptSet | Item,
        report: PromptSet | Item,
        share: float,
        *,
        on_progress: Progress = no_progress,
        **asked: Any,
    ) -> ContestNeeds:
        """Return about how long `contest` takes, by a pass of the first prompt; nothing is kept.

        Args:
            choose, report, share: as of `contest`.
            asked: the other arguments of `contest`.

        Raises:
            StrataError: an argument is none, or the model refuses the prompt.
        """
        own = {field.name for field in fields(Asked)}
        given: dict[str, Any] = {name: value for name, value in asked.items() if name in own}
        given["options"] = {name: value for name, value in asked.items() if name not in own}
        question = Asked(share, **given)
        one, other = (prompts if isinstance(prompts, PromptSet) else open_item(prompts) for prompts in (choose, report))
        desk = self._desk(on_progress)
        passes = stages_of(desk.loaded.info, question, len(one), len(other))
        return ContestNeeds(passes, time_a_pass(desk, one), question.most_s)
