"""Ledgers of recovery with memory: each way is learnt once, and what is known of it on the reported prompts is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.learnt import Learnt
from vlm_analysis.errors import EditError, EvaluationError, NothingLearntError, PromptError
from vlm_analysis.evaluation.cost import weights_without
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.halves import n_shared
from vlm_analysis.prompts.prompts import Prompt, PromptSet
from vlm_analysis.recovery.heldout import split_held_out
from vlm_analysis.recovery.ledger import Ledger, Row
from vlm_analysis.recovery.tunings import TUNINGS, tuning_of
from vlm_analysis.recovery.ways import check_options, options_of, passes_of, steps_of, tuning_in
from vlm_analysis.words import counted, duration
from vlm_analysis.workbench.chosenon import n_chosen_on
from vlm_analysis.workbench.costs import time_a_pass
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import Scorer, scorer, with_responses
from vlm_analysis.workbench.recipes import seconds_of
from vlm_analysis.workbench.recoveries import take_step
from vlm_analysis.workbench.shelf import keep, open_item
from vlm_analysis.workbench.workspace import Item

if TYPE_CHECKING:
    from vlm_analysis.recovery.memoryplan import MemoryPlan

LOOKED_AT = 2  # prompts, of which the longest tells time and memory
OnLedger = Callable[[Ledger], None]
"""Called with the ledger of the rows so far."""
DENSE_TUNED = "dense model, tuned ({})"  # the name of the edit


def measure_recovery(
    desk: Desk,
    learn: Item,
    report: Item,
    edit: Edit,
    ways: Sequence[str],
    progress: Progress,
    *,
    name: str = "",
    on_partial: OnLedger | None = None,
    **options: Any,
) -> Item:
    """Save the ledger of an edit (see `ledger_of`); return its Item."""
    ledger = ledger_of(desk, learn, report, edit, ways, progress, on_partial=on_partial, **options)
    return keep(desk.shelf, "ledgers", ledger, name or f"{edit.name or 'unnamed mask'} on {report.name}")


def ledger_of(
    desk: Desk,
    learn: Item,
    report: Item,
    edit: Edit,
    ways: Sequence[str],
    progress: Progress,
    *,
    responses: bool = False,
    on_partial: OnLedger | None = None,
    **options: Any,
) -> Ledger:
    """Return what an edit gets back in each way; where one tunes, the dense model is tuned alike.

    What is learnt is saved among the masks. A step that changes nothing is noted in its row; where none of the ways changes anything, that
    is an error.

    Args:
        learn, report: the prompts to learn on, and others to report on.
        edit: what was done to the model, with nothing learnt yet.
        ways: each "ridge", "small" or "ridge+small", for example; one tuning at most among them.
        responses: whether the dense model and the rows of the cut write their responses.
        options: of the repairs and the tuning.

    Raises:
        NothingLearntError: no way changes anything.
        EditError: nothing is cut, something was learnt already, there is no such way or option; or as `repair` and `finetune`.
        PromptError: some prompts to report on are among those that are learnt on, or share a picture with one.
    """
    ways = tuple(dict.fromkeys(ways))
    learn_set, report_set = desk.open_prompts(learn), desk.open_prompts(report)
    _check(desk, edit, ways, learn_set, options)
    check_fresh(learn_set, report_set)
    course = Course(
        progress, sum(passes for _, passes in stages_of(edit, ways, len(learn_set), len(report_set), options))
    )
    work = _Work(desk, learn, report, learn_set, report_set, edit, ways, options, responses, course)
    return work.done(on_partial)


@dataclass(frozen=True)
class Needs:
    """About what measuring a recovery takes.

    Attributes:
        passes: of a prompt through the model; what is known already is not taken off.
        pass_s: seconds of one, as timed now.
        memory: how the tuning fits; None where nothing is tuned.
    """

    passes: int
    pass_s: float
    memory: MemoryPlan | None

    def words(self) -> str:
        """Return time and memory in a sentence."""
        fits = f" Tuning takes {self.memory.words()}." if self.memory is not None else ""
        return (
            f"About {duration(max(1.0, self.passes * self.pass_s))} on this machine, less what is known already.{fits}"
        )


def needs_of(
    desk: Desk, learn: PromptSet, report: PromptSet, edit: Edit, ways: Sequence[str], options: dict[str, Any]
) -> Needs:
    """Return about what `ledger_of` takes, by a pass or two of the longest prompts.

    Raises:
        StrataError: as `ledger_of` where that can be told before it runs.
    """
    _check(desk, edit, ways, learn, options)
    check_fresh(learn, report)
    passes = sum(passes for _, passes in stages_of(edit, ways, len(learn), len(report), options))
    longest = PromptSet(sorted(learn, key=_length, reverse=True)[:LOOKED_AT])
    memory = None
    if how := tuning_in(ways):
        from vlm_analysis.recovery.finetune.finetune import plan_tuning

        memory = plan_tuning(desk.loaded, edit, longest, how, **options_of(how, options))
    return Needs(passes, time_a_pass(desk, longest), memory)


def _length(prompt: Prompt) -> tuple[int, int]:
    return len(prompt.images), len(prompt.question) + len(prompt.answer or "")


def check_fresh(learn: PromptSet, report: PromptSet) -> None:
    """Check that no prompt to report on is learnt on.

    Raises:
        PromptError: some are, or share a picture with one that is.
    """
    if n := n_shared(report, learn.groups.known):
        raise PromptError(
            f"The recovery cannot be measured on these prompts: expected others than it is learnt on, got {n} of "
            f"{counted(len(report), 'prompt')} that are learnt on, or share a picture with one that is. Report on others, or split the "
            "prompts in halves."
        )


def check_asked(
    edit: Edit | None,
    ways: Sequence[str],
    options: dict[str, Any],
    learn: Item | None = None,
    report: Item | None = None,
    *,
    measured: bool = True,
) -> None:
    """Check what can be checked without the model.

    Args:
        edit: None where it is not known without the model.
        learn, report: the prompts to learn on and to report on, where they are to be other ones.
        measured: whether a ledger is measured; else only the ways and options count.

    Raises:
        StrataError: as `ledger_of`.
    """
    if not ways:
        raise EditError("There is nothing to measure: expected a way of recovery, got none. Choose one.")
    check_options(ways, options)
    tuning_in(ways)
    if not measured:
        return
    if edit is not None and edit.is_dense:
        raise EditError(
            "There is nothing to get back: expected an edit that drops layers, got the dense model. Drop some."
        )
    changes = () if edit is None else edit.changes
    if learnt := next((change for change in changes if isinstance(change, Learnt)), None):
        raise EditError(
            f"The recovery cannot be measured: expected an edit with nothing learnt yet, got one that {learnt.words()}. Take the mask that "
            "it was learnt on."
        )
    if learn is not None and report is not None:
        check_fresh(open_item(learn), open_item(report))


def _check(desk: Desk, edit: Edit, ways: Sequence[str], learn: PromptSet, options: dict[str, Any]) -> None:
    """Check what can be checked before anything runs."""
    check_asked(edit, ways, options)
    if any(step not in TUNINGS for way in ways for step in steps_of(way)):
        from vlm_analysis.recovery.closed_form import check_repairable

        check_repairable(edit, desk.loaded)
    if how := tuning_in(ways):
        from vlm_analysis.recovery.finetune.finetune import check_tunable

        check_tunable(desk.loaded, edit)
        tuning, domains = tuning_of(how, options_of(how, options)), [prompt.domain for prompt in learn]
        split_held_out(range(len(learn)), learn.groups.names, domains, tuning.held_out, tuning.seed)


def stages_of(
    edit: Edit, ways: Sequence[str], n_learn: int, n_report: int, options: dict[str, Any]
) -> list[tuple[str, int]]:
    """Return what measuring a recovery does, with about how many passes of a prompt each takes."""
    dense, tuning = Edit(edit.n_layers), tuning_in(ways)
    stages = [("dense and cut", 2 * n_report)]
    for way, of in [*((way, edit) for way in ways), *([(tuning, dense)] if tuning else [])]:
        stages += [(step, passes_of(step, of, n_learn, options)) for step in steps_of(way)]
        stages.append((f"measuring {way}", n_report))
    return stages


class Course:
    """The progress of several stages as that of one work."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._begun = progress, total, 0

    def stage(self, words: str, passes: int) -> Progress:
        """Return the progress of the next stage."""
        begun = self._begun
        self._begun += passes

        def report(done: int, total: int, message: str) -> None:
            here = round(passes * min(done, total) / total) if total > 0 else 0
            self._progress(begun + here, self._total, f"{words}: {message}")

        return report


@dataclass(frozen=True)
class _Work:
    """What is measured of what."""

    desk: Desk
    learn: Item
    report: Item
    learn_set: PromptSet
    report_set: PromptSet
    edit: Edit
    ways: tuple[str, ...]
    options: dict[str, Any]
    responses: bool
    course: Course
    now: list[Progress] = field(default_factory=lambda: [no_progress])  # of the stage at work

    def done(self, on_partial: OnLedger | None) -> Ledger:
        """Learn each way and measure it."""
        dense, rows, failed = Edit(self.edit.n_layers), list[Row](), list[NothingLearntError]()
        show = on_partial or (lambda ledger: None)
        rows += self._measured("", True, dense)
        rows += self._measured("", False, self.edit)
        show(self._ledger(rows))
        for way in self.ways:
            edit, about = self._learnt(way, self.edit, "cut", failed)
            if len(failed) == sum(len(steps_of(one)) for one in self.ways):
                raise failed[0]
            rows += self._measured(way, False, edit, **about)
            show(self._ledger(rows))
        if tuning := tuning_in(self.ways):
            edit, about = self._learnt(tuning, dense, "dense", [])
            rows += self._measured(tuning, True, edit, **about)
        return self._ledger(rows)

    def _learnt(
        self, way: str, edit: Edit, which: str, failed: list[NothingLearntError]
    ) -> tuple[Edit, dict[str, Any]]:
        """Return the edit after the steps of a way, and what its row says of them; steps that change nothing are added to `failed`."""
        took, notes = list[float | None](), list[str]()
        for step in steps_of(way):
            words = f"{'tuning' if step in TUNINGS else 'repairing'} the {which} model ({step})"
            progress = self.course.stage(words, passes_of(step, edit, len(self.learn_set), self.options))
            name = DENSE_TUNED.format(step) if edit.is_dense else ""
            try:
                item = take_step(self.desk, self.learn, edit, step, progress, name, None, self.options)
            except NothingLearntError as error:
                notes.append(str(error))
                failed.append(error)
                continue
            edit = open_item(item)
            took.append(seconds_of(item))
        known = [seconds for seconds in took if seconds is not None]
        return edit, {"seconds": sum(known) if took and len(known) == len(took) else None, "note": " ".join(notes)}

    def _measured(self, way: str, of_dense: bool, edit: Edit, **about: Any) -> list[Row]:
        """Return the row of an edit."""
        title = Row.titled(way, of_dense)
        self.now[:] = [self.course.stage(f"measuring {title}", len(self.report_set))]
        (evaluation,) = self.score([edit])
        if self.responses and not (of_dense and way):
            evaluation = with_responses(self.desk, self.report_set, evaluation, self._writing)
        evaluation = replace(evaluation, edit=edit, dense_log_probs=None)
        return [Row(way, of_dense, evaluation, **{**about, **_bytes_of(evaluation)})]

    @cached_property
    def score(self) -> Scorer:
        """Return the function that scores edits; the prompts are prepared once."""
        return scorer(self.desk, self.report, self._progress)

    def _writing(self, done: int, total: int, message: str) -> None:
        """Say which response is written, without a step: most take no time, and others seconds."""
        self._progress(1, 1, f"{message}, {done} of {total}")

    def _progress(self, done: int, total: int, message: str) -> None:
        self.now[0](done, total, message)

    def _ledger(self, rows: Sequence[Row]) -> Ledger:
        chosen = n_chosen_on(self.desk.shelf, self.edit, str(self.report.prompts), len(self.report_set))
        return Ledger(tuple(rows), str(self.learn.prompts), len(self.learn_set), chosen)


def _bytes_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return the bytes of a row's weights, and of what was learnt."""
    try:
        sizes = weights_without(evaluation.model, evaluation.edit)[1]
    except EvaluationError:
        sizes = None
    learnt = [change for change in evaluation.edit.changes if isinstance(change, Learnt)]
    learnt_bytes = sum(values.nbytes for change in learnt for values in change.tensors.read().values())
    return {"n_bytes": None if sizes is None else sizes[1], "learnt_bytes": learnt_bytes}
