"""Comparisons of every mask of every criterion, from a recording to a saved Comparison; its question survives a kill."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import MOST_LAYERS, Edit
from vlm_analysis.edits.kinds.vision import SLICED
from vlm_analysis.errors import EvaluationError, WorkspaceError
from vlm_analysis.files import advice_for, read_bytes, write_atomically
from vlm_analysis.guard.schema import fields, table, text
from vlm_analysis.progress import Progress
from vlm_analysis.recording.recording import Recording
from vlm_analysis.recording.tasks import lacks_pooled
from vlm_analysis.recovery.solving import HOWS
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.saved import parsed
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.strategies.domain_aware import DOMAIN_AWARE, domain_aware_masks
from vlm_analysis.selection.strategies.many import Way, many_masks, with_vision
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.selection.vision import scan_front
from vlm_analysis.words import counted
from vlm_analysis.workbench.damages import damage_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import dense_evaluation, scorer
from vlm_analysis.workbench.recordings import in_groups_of, record_prompts, whole_recordings
from vlm_analysis.workbench.recovered import is_how, recovered_ways
from vlm_analysis.workbench.scans import find_scan, measure_scan
from vlm_analysis.workbench.shelf import keep_comparison, open_item, scores_folder, unfinished_folder
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.selection.compared.comparison import Comparison

QUESTION_FILE = "asked.json"
SAVED = "saved"  # in place of a strategy, of masks that were saved
MAX_QUESTION = 1 << 20  # bytes of it
ASKED = fields({"model": text(200), "model_name": text(1000), "name": text(1000), "question": table()})
MOST_VISION = 20
MOST = {"most": MOST_LAYERS, "n_draws": 100, "max_mib": 1 << 20}


@dataclass(frozen=True)
class Question:
    """The arguments of a comparison; plain values, so that it can continue after a restart.

    Attributes:
        choose, report: ids of the prompt sets that masks are chosen on and reported on.
        criteria, strategies: keys of `CRITERIA` and `STRATEGIES`.
        most: the largest budget; all from 1 on are compared.
        unprotect: whether protected layers may go.
        preset: "domain-aware" for the masks of that preset at its three budgets; criteria, strategies, `most` and `unprotect` then do not
            count. "" for none.
        max_mib: bound on the states kept for sharing.
        masks: ids of saved masks, compared in place of all that.
        vision: how many edits of the front of a scan compete, alone and beside every mask.
        recover: how each mask is recovered too on the prompts that masks are chosen on, as "ridge", "small" or "ridge+small".

    Raises:
        EvaluationError: a value of another type, out of bounds, or unknown.
    """

    choose: str
    report: str
    criteria: tuple[str, ...]
    strategies: tuple[str, ...]
    most: int
    n_draws: int = 5
    unprotect: bool = False
    max_mib: int = 1024
    preset: str = ""
    masks: tuple[str, ...] = ()
    recover: tuple[str, ...] = ()
    vision: int = 0

    def __post_init__(self) -> None:
        for name in ("choose", "report"):
            _expect(isinstance(getattr(self, name), str), f"the id of a prompt set as {name!r}", getattr(self, name))
        for name, known in (("criteria", CRITERIA), ("strategies", STRATEGIES)):
            value = getattr(self, name)
            _expect(isinstance(value, tuple), f"a tuple of {name}", value)
            fits = all(isinstance(one, str) and one in known for one in value) and len(set(value)) == len(value)
            _expect(fits, f"different {name} among {', '.join(known)}", value)
        are_ids = isinstance(self.masks, tuple) and all(isinstance(one, str) for one in self.masks)
        _expect(are_ids, "a tuple of ids as 'masks'", self.masks)
        hows = f"different ways to recover among {', '.join((*HOWS, *TUNINGS))}, or two as 'ridge+small'"
        fits = isinstance(self.recover, tuple) and all(map(is_how, self.recover))
        _expect(fits and len(set(self.recover)) == len(self.recover), hows, self.recover)
        for name, bound in MOST.items():
            value = getattr(self, name)
            _expect(type(value) is int and 1 <= value <= bound, f"{name!r} in 1..{bound}", value)
        fits = type(self.vision) is int and 0 <= self.vision <= MOST_VISION
        _expect(fits, f"'vision' in 0..{MOST_VISION}", self.vision)
        _expect(isinstance(self.unprotect, bool), "yes or no as 'unprotect'", self.unprotect)
        _expect(self.preset in ("", DOMAIN_AWARE), f"{DOMAIN_AWARE!r} or nothing as 'preset'", self.preset)

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of `Bench.compare` besides the prompt sets."""
        return {name: value for name, value in asdict(self).items() if name not in ("choose", "report")}

    @property
    def needs(self) -> set[str]:
        """Return what its criteria need besides a recording."""
        return set() if self.preset or self.masks else {CRITERIA[criterion].needs for criterion in self.criteria}


@dataclass(frozen=True)
class Unfinished:
    """A comparison that was started and has not ended: its folder, model, name and question."""

    folder: Path
    model: str
    model_name: str
    name: str
    question: Question


def _expect(fits: bool, expected: str, got: object) -> None:
    if not fits:
        said = ", ".join(map(str, got)) or "none" if isinstance(got, tuple) else str(got)
        raise EvaluationError(f"The comparison cannot start: expected {expected}, got {said[:200]}. Choose again.")


def check_apart(choose: Item, report: Item, question: Question) -> None:
    """Check that masks are not recovered on the prompts that they are reported on.

    Raises:
        EvaluationError: they are.
    """
    is_same = choose.prompts == report.prompts
    _expect(not (is_same and question.recover), "other prompts to report on than masks are recovered on", "the same")


def compare_ways(
    desk: Desk,
    choose: Item,
    report: Item,
    question: Question,
    progress: Progress,
    on_partial: Callable[[Comparison], None] | None = None,
) -> Item:
    """Record and measure damage if needed, then evaluate every mask; return the Item of the Comparison."""
    from vlm_analysis.workbench.pipeline import compare_masks

    is_same = choose.prompts == report.prompts
    check_apart(choose, report, question)
    name = report.name if is_same else f"{report.name}, chosen on {choose.name}"
    loaded, shelf = desk.loaded, desk.shelf
    _remember(shelf, loaded, name, question)
    recording = _recording(desk, choose, question)
    if recording is None:
        recording_progress, title = _with_words(progress, f"recording {choose.name}"), f"{loaded.name} on {choose.name}"
        recording = open_item(record_prompts(desk, choose, title, _options(desk, question), recording_progress))
    ways, left_out = _asked_ways(desk, choose, question, recording, progress)
    prompts = desk.open_prompts(report)
    how: dict[str, Any] = {"recording": recording, "left_out": left_out, "max_bytes": question.max_mib << 20}
    dense = dense_evaluation(desk, prompts, report.name, _with_words(progress, "dense model"))
    folder = scores_folder(shelf, loaded, prompts)
    _score_on_crew(desk, report, ways, progress)
    work = desk.ready(prompts, dense, lambda *_: progress(0, 1, "preparing the prompts"))
    own: dict[str, Any] = {"reference": dense, "folder": folder, "work": work, "on_partial": on_partial}
    comparison = compare_masks(loaded, prompts, ways, **own, on_progress=progress, **how)
    if question.masks:  # they were not chosen on the recording's prompts, but on what each of them names
        n_shared = comparison.n_shared if any(report.prompts in mask.chosen_on for mask in comparison.masks) else 0
        comparison = replace(comparison, n_shared=n_shared)
    elif not is_same:
        comparison = replace(comparison, choosing=_on_choosing(desk, choose, ways, progress, how))
    item = keep_comparison(shelf, comparison, f"{counted(len(comparison.masks), 'mask')} on {name}")
    for other in unfinished(shelf):
        if (other.model, other.question) == (desk.model, question):
            forget(other)
    return item


def _asked_ways(
    desk: Desk, choose: Item, question: Question, recording: Recording, progress: Progress
) -> tuple[list[Way], dict[str, str]]:
    """Return the ways to the masks of a question, recovered and beside skipping too where it asks, and by method why some are missing."""
    damage = None
    if "damage" in question.needs:
        damage = damage_of(desk, choose, _with_words(progress, f"each layer left out on {choose.name}"))
    progress(0, 1, "making the masks")
    ways, left_out = _saved_ways(desk.shelf, question) if question.masks else ways_of(recording, question, damage)
    if question.recover:
        desk.put_away()  # learning takes the memory
        more, reasons = recovered_ways(desk, choose, ways, question.recover, progress)
        ways, left_out = [*ways, *more], {**left_out, **reasons}
    if question.vision:
        ways = with_vision(ways, _scanned(desk, choose, question, progress))
    return ways, left_out


def _score_on_crew(desk: Desk, prompts: Item, ways: Sequence[Way], progress: Progress) -> None:
    """Have the masks scored by the workers of a cluster, where there are some: the comparison then finds all scores."""
    if desk.crew is None:
        return
    from vlm_analysis.edits.apply import why_not

    masks = dict.fromkeys(way.mask for way in ways)
    scorer(desk, prompts, progress)([mask for mask in masks if not why_not(desk.loaded.model, mask)])


def _on_choosing(desk: Desk, choose: Item, ways: list[Any], progress: Progress, how: dict[str, Any]) -> Comparison:
    """Return the comparison of the same masks on the prompts that they are chosen on: the best one is picked there."""
    from vlm_analysis.workbench.pipeline import compare_masks

    loaded, prompts = desk.loaded, desk.open_prompts(choose)
    words = _with_words(progress, f"choosing on {choose.name}")
    dense = dense_evaluation(desk, prompts, choose.name, words)
    _score_on_crew(desk, choose, ways, words)
    folder = scores_folder(desk.shelf, loaded, prompts)
    own = {"reference": dense, "folder": folder, "work": desk.ready(prompts, dense, words)}
    return compare_masks(loaded, prompts, ways, **own, on_progress=words, **how)


def _scanned(desk: Desk, choose: Item, question: Question, progress: Progress) -> list[Edit]:
    """Return the edits of the front of the newest scan of the choosing prompts, which is measured if needed."""
    item = find_scan(desk.shelf, desk.model, choose.prompts, form=SLICED)
    item = item or measure_scan(desk, choose, _with_words(progress, f"scanning {choose.name}"))
    return scan_front(open_item(item), question.vision)


def _with_words(progress: Progress, words: str) -> Progress:
    """Return a progress with `words` before each message."""
    return lambda done, total, message: progress(done, total, f"{words}: {message}")


def _saved_ways(shelf: Workspace, question: Question) -> tuple[list[Way], dict[str, str]]:
    """Return a way to each saved mask of a question under its own name, and by id why others are missing."""
    items = {item.id: item for item in shelf.items("masks")}
    masks = [open_item(items[name]) for name in question.masks if name in items]
    ways = [Way(mask.name or "unnamed mask", None, SAVED, None, mask.budget, 0, mask) for mask in masks]
    return ways, {name: "It was deleted." for name in question.masks if name not in items}


def ways_of(recording: Recording, question: Question, damage: Damage | None) -> tuple[list[Any], dict[str, str]]:
    """Return the ways of a question, and by method why some are missing."""
    if question.preset:
        return domain_aware_masks(recording, n_draws=question.n_draws)
    model = recording.model
    return many_masks(
        recording,
        range(1, question.most + 1),
        criteria=question.criteria,
        strategies=question.strategies,
        damage=damage,
        locks=model.locks.keeping(unprotect=question.unprotect),
        n_draws=question.n_draws,
    )


def unfinished(shelf: Workspace) -> Iterator[Unfinished]:
    """Yield the comparisons that were cancelled or interrupted, or run now; files that are not valid are skipped."""
    for path in sorted((shelf.root / "unfinished").glob(f"*/{QUESTION_FILE}")):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            yield _note(path)


def _note(path: Path) -> Unfinished:
    """Return the content of a file of `_remember`.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: it is not one.
    """
    content = parsed(read_bytes(path, MAX_QUESTION))
    ASKED(content, "it")
    model, model_name, name = (content[key] for key in ("model", "model_name", "name"))
    _expect(re.fullmatch("[0-9a-f]{64}", model) is not None, "the fingerprint of a model", model)
    fields: dict[str, Any] = content["question"]
    names = ("criteria", "strategies", *(name for name in ("masks", "recover") if name in fields))
    question = Question(**fields | {key: tuple(fields[key]) for key in names})
    return Unfinished(path.parent, model, model_name, name, question)


def forget(comparison: Unfinished) -> None:
    """Remove an unfinished comparison, as a button's callback; its measurements stay."""
    shutil.rmtree(comparison.folder, ignore_errors=True)


def _remember(shelf: Workspace, loaded: LoadedModel, name: str, question: Question) -> None:
    """Write the question into a folder named by model and question; it is deleted when the comparison is saved."""
    content = {
        "model": loaded.fingerprint,
        "model_name": loaded.name,
        "name": name,
        "question": asdict(question),
    }
    text = json.dumps(content, sort_keys=True)
    identity = json.dumps([content["model"], content["question"]], sort_keys=True)  # no names: they may change
    folder = shelf.root / "unfinished" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        write_atomically(folder / QUESTION_FILE, lambda part: part.write_text(text, "utf-8"))
    except OSError as error:
        raise WorkspaceError(
            f"The comparison cannot be written: expected a folder to write in, got {error.strerror or error} at {folder}. "
            f"{advice_for(error)} (STRATA_HOME)."
        ) from error


def _options(desk: Desk, question: Question) -> dict[str, Any]:
    from vlm_analysis.workbench.pipeline import recording_batch

    attention = "attention" in question.needs
    return {"attention": attention, "token_maps": False, "batch_size": recording_batch(desk.loaded)}


def _recording(desk: Desk, choose: Item, question: Question) -> Recording | None:
    """Return the newest whole recording of the model on the prompts with all measures that the question needs."""
    if unfinished_folder(desk.shelf, desk.model, choose, _options(desk, question)).exists():
        return None
    prompts = desk.open_prompts(choose)
    for recording in (in_groups_of(one, prompts) for one in whole_recordings(desk, choose.prompts)):
        attended = "attention" not in question.needs or recording.has("important_cosine")
        if attended and not (question.preset and lacks_pooled(recording)):
            return recording
    return None
