"""Comparisons of every mask of every criterion, from a recording to a saved Comparison; what one was asked outlives a kill."""

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
from vlm_analysis.files import write_atomically
from vlm_analysis.progress import Progress
from vlm_analysis.recording.recording import Recording
from vlm_analysis.selection.criteria.criteria import CRITERIA
from vlm_analysis.selection.criteria.damage import Damage
from vlm_analysis.selection.strategies.many import many_masks
from vlm_analysis.selection.strategies.strategies import STRATEGIES
from vlm_analysis.workbench.damages import damage_of
from vlm_analysis.workbench.desk import Desk
from vlm_analysis.workbench.evaluations import dense_evaluation
from vlm_analysis.workbench.recordings import record_prompts, whole_recordings
from vlm_analysis.workbench.shelf import keep_comparison, open_item, scores_folder, unfinished_folder
from vlm_analysis.workbench.workspace import Item, Workspace

if TYPE_CHECKING:
    from vlm_analysis.models.load import LoadedModel
    from vlm_analysis.selection.compared.comparison import Comparison

ASKED = "asked.json"
MOST = {"most": MOST_LAYERS, "n_draws": 100, "max_mib": 1 << 20}


@dataclass(frozen=True)
class Question:
    """What a comparison is asked; plain, so that it can be taken up after a restart.

    Attributes:
        choose, report: ids of the prompt sets that masks are chosen on and reported on.
        criteria, strategies: keys of `CRITERIA` and `STRATEGIES`.
        most: the largest budget; all from 1 on are compared.
        unprotect: whether protected layers may go.
        max_mib: bound on the states kept for sharing.

    Raises:
        EvaluationError: something of another type, out of bounds, or not known.
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
            given = getattr(self, name)
            _expect(isinstance(given, tuple), f"a tuple of {name}", given)
            fits = all(isinstance(one, str) and one in known for one in given) and len(set(given)) == len(given)
            _expect(fits, f"different {name} among {', '.join(known)}", given)
        for name, bound in MOST.items():
            given = getattr(self, name)
            _expect(type(given) is int and 1 <= given <= bound, f"{name!r} in 1..{bound}", given)
        _expect(isinstance(self.unprotect, bool), "yes or no as 'unprotect'", self.unprotect)

    @property
    def asked(self) -> dict[str, Any]:
        """Return what `Bench.compare` is asked beside the prompt sets."""
        return {name: value for name, value in asdict(self).items() if name not in ("choose", "report")}

    @property
    def needs(self) -> set[str]:
        """Return what its criteria need beside a recording."""
        return {CRITERIA[criterion].needs for criterion in self.criteria}


@dataclass(frozen=True)
class Unfinished:
    """A comparison that was asked and has not ended: where it lies, of which model, and what was asked."""

    folder: Path
    model: str
    model_name: str
    name: str
    question: Question


def _expect(fits: bool, expected: str, got: object) -> None:
    if not fits:
        raise EvaluationError(f"The comparison cannot be asked: expected {expected}, got {str(got)[:200]}. Ask again.")


def compare_ways(
    desk: Desk,
    choose: Item,
    report: Item,
    question: Question,
    progress: Progress,
    on_partial: Callable[[Comparison], None] | None = None,
) -> Item:
    """Record and measure damage where that was not done yet, then evaluate every mask; returns the Item of the Comparison."""
    from vlm_analysis.workbench.pipeline import compare_masks

    name = report.name if choose.prompts == report.prompts else f"{report.name}, chosen on {choose.name}"
    loaded, shelf = desk.loaded, desk.shelf
    _remember(shelf, loaded, name, question)
    recording = _recording(desk, choose, question)
    if recording is None:
        saying, title = _saying(progress, f"recording {choose.name}"), f"{loaded.name} on {choose.name}"
        recording = open_item(record_prompts(desk, choose, title, _options(question), saying))
    damage = None
    if "damage" in question.needs:
        damage = damage_of(desk, choose, _saying(progress, f"each layer left out on {choose.name}"))
    progress(0, 1, "making the masks")
    ways, left_out = ways_of(recording, question, damage)
    prompts = open_item(report)
    made = compare_masks(
        loaded,
        prompts,
        ways,
        recording=recording,
        left_out=left_out,
        reference=dense_evaluation(desk, prompts, report.name, _saying(progress, "dense model")),
        max_bytes=question.max_mib << 20,
        folder=scores_folder(shelf, loaded, prompts),
        on_partial=on_partial,
        on_progress=progress,
    )
    item = keep_comparison(shelf, made, f"{len(made.masks)} masks on {name}")
    for left in unfinished(shelf):
        if (left.model, left.question) == (desk.model, question):
            forget(left)
    return item


def _saying(progress: Progress, words: str) -> Progress:
    """Return a progress that says what is done before the comparison itself."""
    return lambda done, total, message: progress(done, total, f"{words}: {message}")


def ways_of(recording: Recording, question: Question, damage: Damage | None) -> tuple[list[Any], dict[str, str]]:
    """Return the ways to masks that a question asks for, and by method why some are missing."""
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
    """Yield the comparisons that were cancelled or interrupted, or run now; a file that is not valid is passed over."""
    for path in sorted((shelf.root / "unfinished").glob(f"*/{ASKED}")):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            yield _note(path)


def _note(path: Path) -> Unfinished:
    """Return what a file of `_remember` tells.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: it is not one.
    """
    content = json.loads(path.read_text("utf-8"))
    model, model_name, name = (content[key] for key in ("model", "model_name", "name"))
    _expect(re.fullmatch("[0-9a-f]{64}", model) is not None, "the fingerprint of a model", model)
    "".join((model_name, name)).encode()  # what is no text, or half a character, cannot be shown
    asked = content["question"]
    question = Question(**{**asked, **{key: tuple(asked[key]) for key in ("criteria", "strategies")}})
    return Unfinished(path.parent, model, model_name, name, question)


def forget(found: Unfinished) -> None:
    """Remove an unfinished comparison, as a button's callback; what was measured for it stays known."""
    shutil.rmtree(found.folder, ignore_errors=True)


def _remember(shelf: Workspace, loaded: LoadedModel, name: str, question: Question) -> None:
    """Write down what was asked, in a folder that model and question name; it goes when the comparison is there."""
    told = {
        "model": loaded.fingerprint,
        "model_name": loaded.name,
        "name": name,
        "question": asdict(question),
    }
    text = json.dumps(told, sort_keys=True)
    asked = json.dumps([told["model"], told["question"]], sort_keys=True)  # no names: they may change until it goes on
    folder = shelf.root / "unfinished" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    try:
        write_atomically(folder / ASKED, lambda part: part.write_text(text, "utf-8"))
    except OSError as error:
        raise WorkspaceError(
            f"The comparison cannot be written to {folder}: {error.strerror or error}. Free some space, or set STRATA_HOME to another "
            "folder."
        ) from error


def _options(question: Question) -> dict[str, Any]:
    return {"attention": "attention" in question.needs, "token_maps": False, "batch_size": 1}


def _recording(desk: Desk, choose: Item, question: Question) -> Recording | None:
    """Return the newest whole recording of the model on the prompts that holds what the question needs."""
    if unfinished_folder(desk.shelf, desk.model, choose, _options(question)).exists():
        return None
    found = whole_recordings(desk, choose.prompts)
    return next((one for one in found if "attention" not in question.needs or one.has("important_cosine")), None)
