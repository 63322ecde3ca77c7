"""Comparisons of every mask of every criterion, from a recording to a saved Comparison; its question survives a kill."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_analysis.edits.edit import MOST_LAYERS
from vlm_analysis.errors import EvaluationError, WorkspaceError
from vlm_analysis.files import advice_for, read_bytes, write_atomically
from vlm_analysis.guard.schema import fields, table, text
from vlm_analysis.progress import Progress
from vlm_analysis.recording.recording import Recording
from vlm_analysis.saved import parsed
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.strategies.many import many_masks
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.workbench.damages import damage_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import dense_evaluation
from vlm_analysis.workbench.recordings import in_groups_of, record_prompts, whole_recordings
from vlm_analysis.workbench.shelf import keep_comparison, open_item, scores_folder, unfinished_folder
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.selection.compared.comparison import Comparison

QUESTION_FILE = "asked.json"
MAX_QUESTION = 1 << 20  # bytes of it
ASKED = fields({"model": text(200), "model_name": text(1000), "name": text(1000), "question": table()})
MOST = {"most": MOST_LAYERS, "n_draws": 100, "max_mib": 1 << 20}


@dataclass(frozen=True)
class Question:
    """The arguments of a comparison; plain values, so that it can continue after a restart.

    Attributes:
        choose, report: ids of the prompt sets that masks are chosen on and reported on.
        criteria, strategies: keys of `CRITERIA` and `STRATEGIES`.
        most: the largest budget; all from 1 on are compared.
        unprotect: whether protected layers may go.
        max_mib: bound on the states kept for sharing.

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

    def __post_init__(self) -> None:
        for name in ("choose", "report"):
            _expect(isinstance(getattr(self, name), str), f"the id of a prompt set as {name!r}", getattr(self, name))
        for name, known in (("criteria", CRITERIA), ("strategies", STRATEGIES)):
            value = getattr(self, name)
            _expect(isinstance(value, tuple), f"a tuple of {name}", value)
            fits = all(isinstance(one, str) and one in known for one in value) and len(set(value)) == len(value)
            _expect(fits, f"different {name} among {', '.join(known)}", value)
        for name, bound in MOST.items():
            value = getattr(self, name)
            _expect(type(value) is int and 1 <= value <= bound, f"{name!r} in 1..{bound}", value)
        _expect(isinstance(self.unprotect, bool), "yes or no as 'unprotect'", self.unprotect)

    @property
    def options(self) -> dict[str, Any]:
        """Return the arguments of `Bench.compare` besides the prompt sets."""
        return {name: value for name, value in asdict(self).items() if name not in ("choose", "report")}

    @property
    def needs(self) -> set[str]:
        """Return what its criteria need besides a recording."""
        return {CRITERIA[criterion].needs for criterion in self.criteria}


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
        raise EvaluationError(f"The comparison cannot start: expected {expected}, got {str(got)[:200]}. Choose again.")


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

    name = report.name if choose.prompts == report.prompts else f"{report.name}, chosen on {choose.name}"
    loaded, shelf = desk.loaded, desk.shelf
    _remember(shelf, loaded, name, question)
    recording = _recording(desk, choose, question)
    if recording is None:
        recording_progress, title = _with_words(progress, f"recording {choose.name}"), f"{loaded.name} on {choose.name}"
        recording = open_item(record_prompts(desk, choose, title, _options(question), recording_progress))
    damage = None
    if "damage" in question.needs:
        damage = damage_of(desk, choose, _with_words(progress, f"each layer left out on {choose.name}"))
    progress(0, 1, "making the masks")
    ways, left_out = ways_of(recording, question, damage)
    prompts = open_item(report)
    comparison = compare_masks(
        loaded,
        prompts,
        ways,
        recording=recording,
        left_out=left_out,
        reference=dense_evaluation(desk, prompts, report.name, _with_words(progress, "dense model")),
        max_bytes=question.max_mib << 20,
        folder=scores_folder(shelf, loaded, prompts),
        on_partial=on_partial,
        on_progress=progress,
    )
    item = keep_comparison(shelf, comparison, f"{len(comparison.masks)} masks on {name}")
    for other in unfinished(shelf):
        if (other.model, other.question) == (desk.model, question):
            forget(other)
    return item


def _with_words(progress: Progress, words: str) -> Progress:
    """Return a progress with `words` before each message."""
    return lambda done, total, message: progress(done, total, f"{words}: {message}")


def ways_of(recording: Recording, question: Question, damage: Damage | None) -> tuple[list[Any], dict[str, str]]:
    """Return the ways of a question, and by method why some are missing."""
    model = recording.model
    return many_masks(
        recording,
        range(1, question.most + 1),
        criteria=question.criteria,
        strategies=question.strategies,
        damage=damage,
        locks=model.locks.unprotected() if question.unprotect else model.locks,
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
    question = Question(**fields | {key: tuple(fields[key]) for key in ("criteria", "strategies")})
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


def _options(question: Question) -> dict[str, Any]:
    return {"attention": "attention" in question.needs, "token_maps": False, "batch_size": 1}


def _recording(desk: Desk, choose: Item, question: Question) -> Recording | None:
    """Return the newest whole recording of the model on the prompts with all measures that the question needs."""
    if unfinished_folder(desk.shelf, desk.model, choose, _options(question)).exists():
        return None
    recordings = whole_recordings(desk, choose.prompts)
    found = next((one for one in recordings if "attention" not in question.needs or one.has("important_cosine")), None)
    return None if found is None else in_groups_of(found, open_item(choose))
