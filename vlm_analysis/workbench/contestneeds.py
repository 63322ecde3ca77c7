"""About how long a contest takes: its stages in the order in which they run, in passes of a prompt through the dense model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil, inf

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.cost import ROUNDS
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.progress import Progress
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.recovery.ways import passes_of, steps_of
from vlm_analysis.selection.contest.candidates import CRITERIA, STRATEGIES, WIDTHS
from vlm_analysis.selection.contest.contest import DEPTH, MIX, PARAMETERS, TIME, VISION, WIDTH
from vlm_analysis.selection.contest.timeplan import LOOKS
from vlm_analysis.words import duration
from vlm_analysis.workbench.budgets import LOOKING, SCAN, VISIONS, Asked
from vlm_analysis.workbench.ledgers import Course

DENSE, RECORDING, SCORES = "dense", "recording", "scores"
SEARCH, TRY, REPORT, TIMING = "search {}", "try {}", "report", "timing"
# passes of each prompt, as seen on Pocket-VL; they are our choice, and tell hours from minutes
RECORDED, SCORED, SCORED_FAST, TRIED, TIMED = 2.0, 5.0, 3.0, 0.2, 3.5
TIMED_PROMPTS = 8
MORE_STEPS = 2  # of a search over mixes for time, as some steps save little


@dataclass(frozen=True)
class ContestNeeds:
    """About what a contest takes.

    Attributes:
        passes: of a prompt through the dense model, by stage; what is known already is not taken off.
        pass_s: seconds of one.
        most_s: the limit of each search.
    """

    passes: Mapping[str, int]
    pass_s: float
    most_s: float = inf

    @property
    def seconds(self) -> float:
        """Return about how many seconds it takes, where nothing is known yet."""
        limits = {SEARCH.format(kind): self.most_s for kind in (DEPTH, MIX)}
        return sum(min(n * self.pass_s, limits.get(stage, inf)) for stage, n in self.passes.items())

    def words(self) -> str:
        """Return the time in a sentence."""
        return f"About {duration(max(1.0, self.seconds))} on this machine, less what is known already."


def stages_of(info: ModelInfo, asked: Asked, n_choose: int, n_report: int) -> dict[str, int]:
    """Return about how many passes of a prompt each stage takes, in the order in which they run; those that are left out have none."""
    of_time = asked.of == TIME
    kinds = {kind for kind in asked.kinds if of_time or kind != VISION}
    scored = SCORED_FAST if asked.fast else SCORED
    timed = (ROUNDS + 1) * min(TIMED_PROMPTS, n_choose) * TIMED
    first: dict[str, float] = {DENSE: n_choose, RECORDING: RECORDED * n_choose}
    scores = {SCORES: scored * n_choose if kinds & {WIDTH, MIX} else 0}
    if of_time:
        skips = bool(kinds & {VISION, MIX}) and len(info.vision_locked) < info.n_layers
        looks = 2 + LOOKS * bool(kinds & {WIDTH, MIX}) + VISIONS * skips
        first |= scores | {SCAN: skips * n_choose * info.n_layers / 2, LOOKING: looks * timed}
    tried = {kind: TRIED * n_choose * n for kind, n in _tried(info, asked).items()}
    first |= {SEARCH.format(DEPTH): tried[DEPTH], TRY.format(DEPTH): len(CRITERIA) * len(STRATEGIES) * TRIED * n_choose}
    first |= scores  # behind depth, unless time comes first
    first |= {TRY.format(WIDTH): tried[WIDTH], TRY.format(VISION): tried[VISION]}
    first |= {SEARCH.format(MIX): tried[MIX], TRY.format(MIX): TRIED * n_choose}
    first[REPORT] = n_report * (1 + len(kinds) * TRIED)
    first[TIMING] = (1 + len(kinds)) * timed if asked.timed or of_time else 0
    for kind in DEPTH, WIDTH, VISION, MIX:
        if kind not in kinds:
            first |= dict.fromkeys((SEARCH.format(kind), TRY.format(kind)), 0)
    return {stage: ceil(n) for stage, n in (first | _recovered(info, asked, kinds, n_choose, n_report)).items()}


def recovering(kind: str, way: str) -> str:
    """Return the stage in which an edit is recovered."""
    return f"{kind} + {way}"


def _tried(info: ModelInfo, asked: Asked) -> dict[str, float]:
    """Return about how many edits of each kind are tried."""
    free = len(info.locks.free)
    n_dropped = max(1, min(free, ceil(asked.share * info.n_layers)))
    more = 1 if asked.of == PARAMETERS else MORE_STEPS
    others = 1 if asked.of == PARAMETERS else 1 + VISIONS
    return {
        DEPTH: asked.width * n_dropped * (free - (n_dropped - 1) / 2),
        WIDTH: len(WIDTHS),
        VISION: VISIONS if asked.of == TIME else 0,
        MIX: asked.width * more * n_dropped * (free + others - (n_dropped - 1) / 2),
    }


def _recovered(info: ModelInfo, asked: Asked, kinds: Collection[str], n_choose: int, n_report: int) -> dict[str, float]:
    dense, takes = Edit(info.n_layers), dict[str, float]()
    for way in asked.recover:
        for kind in asked.kinds:
            if kind == DEPTH or (kind in kinds and all(step in TUNINGS for step in steps_of(way))):
                learnt = sum(passes_of(step, dense, n_choose, asked.options) for step in steps_of(way))
                takes[recovering(kind, way)] = learnt + n_report
    return takes


@dataclass(eq=False)
class Stages:
    """The progress of a contest: each stage has its place, so that one that is left out counts as done.

    Attributes:
        progress: of the whole contest.
        passes: by stage, in the order in which they run.
    """

    progress: Progress
    passes: Mapping[str, int]

    def begin(self, stage: str, words: str) -> Progress:
        """Begin a stage; returns its progress."""
        names = list(self.passes)
        before = sum(self.passes[name] for name in names[: names.index(stage)])
        course = Course(self.progress, sum(self.passes.values()))
        course.stage("", before)
        return course.stage(words, self.passes[stage])
