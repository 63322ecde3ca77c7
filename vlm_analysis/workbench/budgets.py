"""The question of a contest, and its budget of time: what each kind saves, timed on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.vision import SLICED
from vlm_analysis.errors import EditError, EvaluationError, short
from vlm_analysis.evaluation.cost import ROUNDS, speedup
from vlm_analysis.progress import Progress
from vlm_analysis.recovery.ways import check_options
from vlm_analysis.selection.contest.candidates import step_of
from vlm_analysis.selection.contest.contest import BUDGETS, CONTESTANTS, MIX, PARAMETERS, VISION
from vlm_analysis.selection.contest.timeplan import TimePlan, edits_to_time, time_plan_of
from vlm_analysis.selection.vision import scan_front
from vlm_analysis.selection.width.choosing import make_narrow
from vlm_analysis.selection.width.scores import WidthScores
from vlm_analysis.workbench.costs import known_costs
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.scans import find_scan, measure_scan
from vlm_analysis.workbench.shelf import open_item
from vlm_analysis.workbench.workspace import Item

VISIONS = 4  # edits in which vision tokens skip layers that are timed; our choice
SCAN, LOOKING = "scan", "looking"
Stage = Callable[[str, str], Progress]
"""Begins a stage of the work, by its name and in words, and returns its progress."""


@dataclass(frozen=True)
class Asked:
    """What a contest is asked.

    Attributes:
        share: the budget, between 0 and 1.
        of: "parameters" of the decoder layers, or the "time" of a prefill.
        kinds: of `CONTESTANTS`, those that compete.
        recover: ways of recovery, as "small" for all kinds, or "ridge" for depth.
        most_s: the limit of each search, in seconds.
        width: how many points of a search go on.
        fast: whether the width is scored fast (see `score_width`).
        timed: whether a prefill is timed with each edit.
        options: of the recovery.

    Raises:
        StrataError: one of them is none.
    """

    share: float
    of: str = PARAMETERS
    kinds: tuple[str, ...] = CONTESTANTS
    recover: tuple[str, ...] = ()
    most_s: float = inf
    width: int = 1
    fast: bool = False
    timed: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_share = isinstance(self.share, (int, float)) and not isinstance(self.share, bool) and 0 < self.share < 1
        fits = {
            "a share between 0 and 1": (is_share, self.share),
            f"a budget of {' or '.join(BUDGETS)}": (self.of in BUDGETS, self.of),
            f"kinds among {', '.join(CONTESTANTS)}": (bool(self.kinds) and {*self.kinds} <= {*CONTESTANTS}, self.kinds),
        }
        for expected, (holds, got) in fits.items():
            if not holds:
                raise EvaluationError(
                    f"The contest cannot begin: expected {expected}, got {short(repr(got), 80)}. Change it."
                )
        check_options(self.recover, self.options)


def measured_plan(desk: Desk, choose: Item, asked: Asked, scores: WidthScores | None, stage: Stage) -> TimePlan:
    """Return a budget of time in the units of each kind: some edits of each are timed on the choosing prompts, in turn.

    What was timed before on this device and by as many threads is not timed again.

    Raises:
        EvaluationError: so much time cannot go.
    """
    info, locks = desk.loaded.info, desk.loaded.locks
    step = step_of(info, locks)
    half, looks = edits_to_time(info, locks, step, scores)
    narrow = [] if scores is None else [make_narrow(scores, n * step) for n in looks]
    visions = _front(desk, choose, stage) if {VISION, MIX} & {*asked.kinds} else []
    edits, progress = [half, *narrow, *visions], stage(LOOKING, "timing what each kind saves")
    costs = known_costs(desk, choose, edits, ROUNDS, progress, for_prefill=True)
    saved = [1 - 1 / speedup(cost, "prefill")[0] for cost, _ in costs]
    widths = list(zip(looks, saved[1 : 1 + len(narrow)], strict=True))
    skipping = list(zip(visions, saved[1 + len(narrow) :], strict=True))
    return time_plan_of(info, asked.share, locks, step, (half.budget, saved[0]), widths, skipping)


def _front(desk: Desk, choose: Item, stage: Stage) -> list[Edit]:
    """Return edits in which vision tokens skip layers, of a scan of the choosing prompts; none where they can skip no layer."""
    item = find_scan(desk.shelf, desk.model, choose.prompts, form=SLICED)
    try:
        item = item or measure_scan(desk, choose, stage(SCAN, f"scanning {choose.name}"))
    except EditError:
        return []
    return scan_front(open_item(item), VISIONS)
