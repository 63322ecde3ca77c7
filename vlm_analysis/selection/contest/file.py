"""The file of a Contest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.evaluation import FORM as EVALUATION, evaluation_content, evaluation_of
from vlm_analysis.guard.schema import TEXTS, fields, listed, maybe, number, one_of, row, table, text, whole
from vlm_analysis.saved import FINGERPRINT, Form
from vlm_analysis.selection.contest.contest import AGAIN, BUDGETS, CONTESTANTS, Contest, Entry

_RATIO = number(1e-6, 1e6)
_ENTRY = fields(
    {
        "kind": one_of(*CONTESTANTS),
        "method": text(1000),
        "evaluation": table(),
        "recovered": text(200),
        "chosen_score": maybe(number(0)),
        "tried": whole(1),
        "speedup": maybe(row(_RATIO, _RATIO, _RATIO)),
        "note": text(),
    }
)
SCHEMA = fields(
    {
        "share": number(0, 1),
        "of": one_of(*BUDGETS),
        "dense": table(),
        "entries": listed(_ENTRY, 1, 100),
        "chosen_on": FINGERPRINT,
        "n_chosen_on": whole(1),
        "n_shared": whole(0),
        "missing": TEXTS,
        "recovery": table(),
        "timed": text(1000),
        "stopped": text(),
    }
)
FORM = Form(("strata-contest",), 1, "contest", AGAIN, EvaluationError, SCHEMA)
_PLAIN = ("share", "of", "chosen_on", "n_chosen_on", "n_shared", "timed", "stopped")
_OF_ENTRY = ("kind", "method", "recovered", "chosen_score", "tried", "speedup", "note")


def save_contest(contest: Contest, path: Path) -> Path:
    """Write the contest as JSON; the file appears whole or not at all. Returns the path."""
    entries = [
        {name: getattr(entry, name) for name in _OF_ENTRY}
        | {"evaluation": EVALUATION.content(evaluation_content(entry.evaluation))}
        for entry in contest.entries
    ]
    about = {name: getattr(contest, name) for name in _PLAIN}
    about |= {"missing": dict(contest.missing), "recovery": dict(contest.recovery)}
    dense = EVALUATION.content(evaluation_content(contest.dense))
    return FORM.save(path, {**about, "dense": dense, "entries": entries})


def open_contest(path: Path) -> Contest:
    """Open a contest written by `save_contest`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version.
    """
    return FORM.open(path, _contest_of)


def _contest_of(content: dict[str, Any]) -> Contest:
    entries = []
    for one in content["entries"]:
        about: dict[str, Any] = {name: one[name] for name in _OF_ENTRY}
        about["speedup"] = None if about["speedup"] is None else tuple(map(float, about["speedup"]))
        entries.append(Entry(evaluation=EVALUATION.part(one["evaluation"], evaluation_of), **about))
    about = {name: content[name] for name in (*_PLAIN, "missing", "recovery")}
    return Contest(dense=EVALUATION.part(content["dense"], evaluation_of), entries=tuple(entries), **about)
