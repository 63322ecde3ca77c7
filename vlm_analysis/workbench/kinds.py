"""The table of what the workspace keeps; nothing else lists all kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import open_edit, save_edit
from vlm_analysis.errors import EvaluationError, PromptError
from vlm_analysis.evaluation.cost import open_cost, save_cost
from vlm_analysis.evaluation.evaluation import Evaluation, open_evaluation, save_evaluation
from vlm_analysis.evaluation.scan import VisionScan
from vlm_analysis.evaluation.scanfile import open_scan, save_scan
from vlm_analysis.guard.schema import fields, listed, row, text, whole
from vlm_analysis.prompts.cells import MAX_ROWS
from vlm_analysis.prompts.opening import open_prompts
from vlm_analysis.prompts.prompts import PromptSet, SetAside
from vlm_analysis.prompts.writing import write_prompts
from vlm_analysis.recording.answerprobe import AnswerProbe
from vlm_analysis.recording.probefile import open_answer_probe, save_answer_probe
from vlm_analysis.recording.recording import open_recording, save_recording
from vlm_analysis.recovery.ledger import open_ledger, save_ledger
from vlm_analysis.saved import Form
from vlm_analysis.selection.compared.comparison import Comparison, open_comparison, save_comparison
from vlm_analysis.selection.contest.contest import Contest
from vlm_analysis.selection.contest.file import open_contest, save_contest
from vlm_analysis.selection.width.file import open_width_scores, save_width_scores
from vlm_analysis.selection.width.scores import WidthScores
from vlm_analysis.workbench.details import MOST_NOTES, domain_details, edit_details


@dataclass(frozen=True)
class Kind:
    """A kind of saved work; its name in `KINDS` is the folder's.

    Attributes:
        ending: of its files; "" for folders.
        save, open: write a value to a path, and return the value at one; None where a path is not enough.
        details: returns the details of a value for its sidecar.
        about: the part of a value that has its `model`, and its `prompts` as a fingerprint, where it has them.
    """

    ending: str
    save: Callable[[Any, Path], object] | None
    open: Callable[[Path], Any] | None
    details: Callable[[Any], dict[str, Any]] = lambda value: edit_details(value.edit)
    about: Callable[[Any], Any] = lambda value: value


SET_ASIDE_FILE = "set_aside.json"
SET_ASIDE = Form(
    ("prompts_set_aside",),
    1,
    "list of prompts set aside",
    "Save the prompts again from their source.",
    PromptError,
    fields({"rows": listed(row(whole(0, MAX_ROWS), text(), text(), text()), 1, MAX_ROWS)}),
)


def keep_prompts_in(prompts: PromptSet, folder: Path) -> None:
    """Write prompts into a folder, and those that are set aside into a file of their own."""
    write_prompts(prompts, folder)
    if prompts.aside:
        SET_ASIDE.save(folder / SET_ASIDE_FILE, {"rows": prompts.aside})


def open_kept_prompts(folder: Path) -> PromptSet:
    """Return the prompts of a folder of `keep_prompts_in`.

    Raises:
        PromptError: they cannot be read.
    """
    prompts = open_prompts(folder)
    if not (folder / SET_ASIDE_FILE).exists():
        return prompts
    aside = SET_ASIDE.open(folder / SET_ASIDE_FILE, lambda content: [SetAside(*one) for one in content["rows"]])
    return PromptSet(prompts, prompts.problems, read_as=prompts.read_as, aside=aside)


def save_sweep(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Write evaluations of many edits into a folder, in their order."""
    folder.mkdir(exist_ok=True)
    for number, evaluation in enumerate(evaluations):
        save_evaluation(evaluation, folder / f"{number:05d}.json")


def open_sweep(folder: Path) -> list[Evaluation]:
    """Return the evaluations of a saved sweep, in their order.

    Raises:
        EvaluationError: there is none, or one is damaged.
    """
    evaluations = [open_evaluation(path) for path in sorted(folder.glob("*.json"))]
    if not evaluations:
        raise EvaluationError(f"There are no evaluations in {folder.name}. Measure again.")
    return evaluations


def _of_mask(mask: Edit) -> dict[str, Any]:
    kinds = sorted({change.kind for change in mask.changes})
    return edit_details(mask) | {"notes": mask.notes[:MOST_NOTES], "kinds": kinds}


def _counts(comparison: Comparison) -> dict[str, Any]:
    dense = comparison.dense
    return {"n_masks": len(comparison.masks), "n": len(dense.by_prompt), "n_layers": dense.model.n_layers}


def _of_scan(scan: VisionScan) -> dict[str, Any]:
    return {"n_layers": scan.model.n_layers, "n": scan.by_prompt["id"].nunique(), "form": scan.form}


def _of_width(scores: WidthScores) -> dict[str, Any]:
    return {"n_layers": scores.model.n_layers, "n": scores.n_answers, "how": scores.how}


def _of_contest(contest: Contest) -> dict[str, Any]:
    return {
        "n_layers": contest.model.n_layers,
        "n": len(contest.dense.by_prompt),
        "share": contest.share,
        "of": contest.of,
    }


def _of_probe(probe: AnswerProbe) -> dict[str, Any]:
    return {"n_layers": probe.model.n_layers, "n": len(probe.ids), "n_tasks": len(probe.parts)}


KINDS = {
    "prompts": Kind(
        "", keep_prompts_in, open_kept_prompts, lambda value: {"n": len(value), **domain_details(value.domains)}
    ),
    "sweeps": Kind("", save_sweep, open_sweep, lambda value: {"n": len(value)}, lambda value: value[0]),
    "masks": Kind(".json", save_edit, open_edit, _of_mask),
    "evaluations": Kind(".json", save_evaluation, open_evaluation),
    "stories": Kind(".json", None, None),  # of version 0.1; now they are comparisons
    "costs": Kind(".json", save_cost, open_cost),
    "ledgers": Kind(".json", save_ledger, open_ledger),
    "contests": Kind(".json", save_contest, open_contest, _of_contest),
    "recordings": Kind(
        ".npz",
        save_recording,
        open_recording,
        lambda value: {"n_layers": value.n_layers, "n": value.n_prompts, **domain_details(value.domain_names)},
    ),
    "scans": Kind(".npz", save_scan, open_scan, _of_scan),
    "widths": Kind(".npz", save_width_scores, open_width_scores, _of_width),
    "probes": Kind(".npz", save_answer_probe, open_answer_probe, _of_probe),
    "comparisons": Kind(".npz", save_comparison, open_comparison, _counts, lambda value: value.dense),
}
