"""Contests of kinds with memory: every edit is measured once, and the same call goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EditError, EvaluationError
from vlm_analysis.evaluation.cost import ROUNDS, speedup
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.pivots import EACH, WINDOW
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.recovery.ways import settings_of, steps_of
from vlm_analysis.selection.contest.candidates import (
    Candidate,
    Plan,
    depth_candidates,
    mix_maker,
    pick,
    plan_of,
    width_candidates,
)
from vlm_analysis.selection.contest.contest import (
    CONTESTANTS,
    DEPTH,
    MIX,
    PARAMETERS,
    TIME,
    VISION,
    WIDTH,
    Contest,
    Entry,
)
from vlm_analysis.selection.contest.timeplan import TimePlan
from vlm_analysis.selection.search.mixes import search_mix
from vlm_analysis.selection.width.scores import WidthScores
from vlm_analysis.words import counted
from vlm_analysis.workbench.budgets import Asked, measured_plan
from vlm_analysis.workbench.contestneeds import (
    DENSE,
    RECORDING,
    REPORT,
    SCORES,
    SEARCH,
    TIMING,
    TRY,
    Stages,
    recovering,
    stages_of,
)
from vlm_analysis.workbench.costs import known_costs
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import Scorer, dense_evaluation, scorer
from vlm_analysis.workbench.recordings import known_recording, record_prompts
from vlm_analysis.workbench.recoveries import recover_edit
from vlm_analysis.workbench.searches import Steps, runnable
from vlm_analysis.workbench.shelf import keep, open_item
from vlm_analysis.workbench.widths import RECORDED, find_width, measure_width
from vlm_analysis.workbench.workspace import Item

SEARCHED = {DEPTH: "depth", MIX: "mixes"}
OnContest = Callable[[Contest], None]
"""Called with the contest of the entries so far."""


def run_contest(
    desk: Desk,
    choose: Item,
    report: Item,
    asked: Asked,
    progress: Progress,
    *,
    name: str = "",
    on_partial: OnContest | None = None,
) -> Item:
    """Measure a contest and save it; return its Item."""
    work = _Work(desk, choose, report, asked, desk.open_prompts(choose), desk.open_prompts(report), _rising(progress))
    contest = work.done(on_partial or (lambda contest: None))
    name = name or f"{asked.share:.0%} of {asked.of} on {report.name}"
    return keep(desk.shelf, "contests", contest, name)


def _rising(progress: Progress) -> Progress:
    """Return a progress whose count never falls: a stage may have several counts of its own."""
    most = 0

    def report(done: int, total: int, message: str) -> None:
        nonlocal most
        most = max(most, done)
        progress(most, total, message)

    return report


@dataclass(eq=False)
class _Work:
    """What a contest measures."""

    desk: Desk
    choose: Item
    report: Item
    asked: Asked
    choose_set: PromptSet
    report_set: PromptSet
    progress: Progress
    picked: list[Entry] = field(default_factory=list)  # one for each kind, on the choosing prompts
    missing: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    timed_on: str = ""
    now: list[Progress] = field(default_factory=lambda: [no_progress])  # of the stage at work

    def done(self, show: OnContest) -> Contest:
        """Pick the edit of each kind, then measure each on the reported prompts, then recovered."""
        picked = self._pick_all()
        if not picked:
            raise EvaluationError(
                "No kind has an entry: "
                + " ".join(f"{kind}: {why}" for kind, why in self.missing.items())
                + " Ask for others."
            )
        self._stage(REPORT, f"measuring on {self.report.name}")
        dense, *found = self.on_report([Edit(self.desk.loaded.n_layers), *(one.edit for one in picked)])
        entries = [replace(entry, evaluation=_plain(one, entry.edit)) for entry, one in zip(picked, found, strict=True)]
        show(self._contest(dense, entries))
        if self.asked.timed or self.asked.of == TIME:
            entries = self._timed(entries)
            show(self._contest(dense, entries))
        for way in self.asked.recover:
            for entry in tuple(one for one in entries if not one.recovered):
                if entry.kind == DEPTH or all(step in TUNINGS for step in steps_of(way)):
                    entries.append(self._recovered(entry, way))
                    show(self._contest(dense, entries))
        return self._contest(dense, entries)

    def _contest(self, dense: Evaluation, entries: Sequence[Entry]) -> Contest:
        asked = self.asked
        return Contest(
            asked.share,
            asked.of,
            replace(dense, dense_log_probs=None),
            tuple(entries),
            str(self.choose.prompts),
            len(self.choose_set),
            n_shared(self.report_set, self.choose_set.groups.known),
            self.missing,
            {way: settings_of(way, asked.options) for way in asked.recover},
            timed=self.timed_on,
            stopped=" ".join(dict.fromkeys(self.stopped)),
        )

    # -- picking ---------------------------------------------------------------------------------------------------

    def _pick_all(self) -> list[Entry]:
        """Return the entry of each kind on the choosing prompts; why others have none goes to `missing`."""
        self._stage(DENSE, f"the dense model on {self.choose.name}")
        _ = self.on_choose
        info, locks = self.desk.loaded.info, self.desk.loaded.locks
        if self.asked.of == PARAMETERS:
            plan: Plan | TimePlan = plan_of(info, self.asked.share, locks)
        else:
            scores = self.scores if {WIDTH, MIX} & {*self.asked.kinds} else None
            plan = measured_plan(self.desk, self.choose, self.asked, scores, self._stage)
        made = {DEPTH: self._depth, WIDTH: self._width, VISION: self._vision, MIX: self._mix}
        for kind in (kind for kind in CONTESTANTS if kind in self.asked.kinds):
            try:
                self.picked.append(self._pick(kind, *made[kind](plan)))
            except EditError as error:
                self.missing[kind] = str(error)
        return self.picked

    def _pick(self, kind: str, candidates: Sequence[Candidate], n_tried: int) -> Entry:
        """Return the best of the candidates on the choosing prompts as the entry of a kind, with their scores there."""
        self._stage(TRY.format(kind), f"{kind}: trying {len(candidates)} on {self.choose.name}")
        from vlm_analysis.edits.apply import why_not

        runs = [one for one in candidates if not (why := why_not(self.desk.loaded.model, one.edit))]
        if not runs:
            raise EditError(why)
        evaluations = self.on_choose([one.edit for one in runs])
        best, score = pick(runs, evaluations, self.dense)
        return Entry(
            kind, best.method, _plain(evaluations[runs.index(best)], best.edit), "", score, n_tried + len(runs)
        )

    def _depth(self, plan: Plan | TimePlan) -> tuple[list[Candidate], int]:
        found = depth_candidates(self._recording(), plan.n_dropped, self.desk.loaded.locks)
        searched = self._searched(plan, None, 0, DEPTH)
        return _with(found, Candidate(searched.provenance["strategy"].split(" over")[0] + " by KL", searched)), _tried(
            searched
        )

    def _width(self, plan: Plan | TimePlan) -> tuple[list[Candidate], int]:
        found, refused = width_candidates(self.scores, plan.width_share)
        if not found:
            raise EditError(next(iter(refused.values())))
        return found, 0

    def _vision(self, plan: Plan | TimePlan) -> tuple[list[Candidate], int]:
        return [Candidate("front of a scan", edit) for edit in plan.skipping()], 0

    def _mix(self, plan: Plan | TimePlan) -> tuple[list[Candidate], int]:
        """Return the mix that the search finds and the picks of the other kinds, as a mix may be of one kind alone."""
        searched = self._searched(plan, self.scores, len(plan.widths) - 1, MIX)
        found = [Candidate(f"{searched.provenance['strategy']}, by KL", searched)]
        for entry in self.picked:
            found = _with(found, Candidate(f"{entry.kind} alone: {entry.method}", entry.edit))
        return found, _tried(searched)

    def _searched(self, plan: Plan | TimePlan, scores: WidthScores | None, most_narrow: int, kind: str) -> Edit:
        """Return what the search over mixes finds, with its scores kept as they come."""
        steps = Steps(self._stage(SEARCH.format(kind), f"searching {SEARCHED[kind]} on {self.choose.name}"))
        self.now[:] = [steps.within]
        loaded = self.desk.loaded
        found = search_mix(
            runnable(loaded, self.on_choose, {}),
            mix_maker(plan, scores),
            plan.saved,
            plan.share,
            n_layers=loaded.n_layers,
            locks=loaded.locks,
            most_narrow=most_narrow,
            n_vision=len(plan.visions) if scores is not None else 0,
            width=self.asked.width,
            most_s=self.asked.most_s,
            on_progress=steps.begin,
        )
        if "stopped" in found.provenance:
            self.stopped.append(found.provenance["stopped"])
        return replace(found, model=loaded.info, provenance={**found.provenance, "prompts": self.choose.prompts})

    # -- measuring -------------------------------------------------------------------------------------------------

    def _timed(self, entries: list[Entry]) -> list[Entry]:
        """Return the entries with the speed-up of a prefill, on the reported prompts; those not timed yet are timed now, in turn."""
        stage = self._stage(TIMING, "timing")
        found = known_costs(self.desk, self.report, [entry.edit for entry in entries], ROUNDS, stage, for_prefill=True)
        one = found[0][0]
        threads, rounds = counted(one.threads, "thread"), counted(one.rounds, "round")
        days = " and ".join(sorted({item.created[:10] for _, item in found}))
        self.timed_on = f"{one.device}, {threads}, {rounds} of {counted(one.n_prompts, 'prompt')}, {days}"
        timed = [
            replace(entry, speedup=speedup(cost, "prefill")) for entry, (cost, _) in zip(entries, found, strict=True)
        ]
        return [self._with_miss(entry) for entry in timed] if self.asked.of == TIME else timed

    def _with_miss(self, entry: Entry) -> Entry:
        """Return the entry with a note where the time that it saves, measured now, is less than the budget."""
        saved = 0.0 if entry.speedup is None else 1 - 1 / entry.speedup[0]
        if saved >= self.asked.share:
            return entry
        return replace(entry, note=f"timed alone it saves {saved:.0%} of a prefill's time, less than the budget.")

    def _recovered(self, entry: Entry, way: str) -> Entry:
        """Return the entry, recovered; where nothing is learnt, as it was picked, with the reason."""
        stage = self._stage(recovering(entry.kind, way), f"recovering {entry.kind} ({way})")
        try:
            item = recover_edit(self.desk, self.choose, entry.edit, way, stage, **self.asked.options)
        except EditError as error:
            return replace(entry, recovered=way, note=str(error))
        edit = open_item(item)
        self.now[:] = [lambda _, __, message: stage(1, 1, message)]
        (evaluation,) = self.on_report([edit])
        return replace(entry, recovered=way, evaluation=_plain(evaluation, edit))

    def _stage(self, stage: str, words: str) -> Progress:
        """Begin a stage; returns its progress."""
        progress = self.stages.begin(stage, words)
        self.now[:] = [progress]
        return progress

    @cached_property
    def stages(self) -> Stages:
        takes = stages_of(self.desk.loaded.info, self.asked, len(self.choose_set), len(self.report_set))
        return Stages(self.progress, takes)

    def _say(self, done: int, total: int, message: str) -> None:
        self.now[0](done, total, message)

    @cached_property
    def on_choose(self) -> Scorer:
        return scorer(self.desk, self.choose, self._say)

    @cached_property
    def on_report(self) -> Scorer:
        return scorer(self.desk, self.report, self._say)

    @cached_property
    def dense(self) -> Evaluation:
        """Return the dense model on the choosing prompts."""
        return dense_evaluation(self.desk, self.choose_set, self.choose.name, self._say)

    def _recording(self) -> Any:
        known = (known_recording(self.desk, self.choose, one) for one in RECORDED)
        if recording := next((one for one in known if one is not None), None):
            return recording
        stage = self._stage(RECORDING, f"recording {self.choose.name}")
        name = f"{self.desk.loaded.name} on {self.choose.name}"
        return open_item(record_prompts(self.desk, self.choose, name, RECORDED[0], stage))

    @cached_property
    def scores(self) -> WidthScores:
        """Return the scores of the width on the choosing prompts."""
        self._recording()
        how: dict[str, Any] = {"window": WINDOW, "sides": EACH, "fast": self.asked.fast, "seed": None}
        known = find_width(self.desk.shelf, self.desk.model, self.choose.prompts, **how)
        if known is None:
            stage = self._stage(SCORES, f"scoring the width on {self.choose.name}")
            known = measure_width(self.desk, self.choose, stage, **how)
        scores: WidthScores = open_item(known)
        return scores


def _plain(evaluation: Evaluation, edit: Edit) -> Evaluation:
    return replace(evaluation, edit=edit, dense_log_probs=None)


def _with(candidates: list[Candidate], one: Candidate) -> list[Candidate]:
    """Return the candidates, and another where its edit is not among them."""
    return candidates if any(other.edit == one.edit for other in candidates) else [*candidates, one]


def _tried(searched: Edit) -> int:
    return int(searched.provenance["tried"])
