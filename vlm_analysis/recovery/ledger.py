"""The Ledger: what a cut model gets back, beside what the dense model is and what the same tuning makes of it. Opens without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.answers import pooled
from vlm_analysis.evaluation.evaluation import (
    FORM as EVALUATION,
    Evaluation,
    domains_of,
    evaluation_content,
    evaluation_of,
    on_all,
    retention,
    retention_interval,
)
from vlm_analysis.evaluation.telling import telling_score_of
from vlm_analysis.guard.schema import fields, flag, listed, maybe, number, table, text, whole
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.recovery.ways import steps_of
from vlm_analysis.saved import FINGERPRINT, Form
from vlm_analysis.words import brief

_ROW = fields(
    {
        "way": text(200),
        "of_dense": flag,
        "evaluation": table(),
        "seconds": maybe(number(0)),
        "n_bytes": maybe(whole(0)),
        "learnt_bytes": whole(0),
        "note": text(),
    }
)
SCHEMA = fields(
    {"rows": listed(_ROW, 2, 100), "learnt_on": FINGERPRINT, "n_learnt_on": whole(1), "n_chosen_on": whole(0)}
)
FORM = Form(("strata-ledger",), 1, "ledger of recovery", "Measure the recovery again.", EvaluationError, SCHEMA)
METRICS = ("exact_match", "answer_nll", "kl_to_dense")
REFERENCES = (
    "dense",
    "tuned",
)  # whose answers retention is taken of: the dense model's, and those of the dense model tuned alike
COLUMNS = (
    "row",
    "domain",
    "n",
    *METRICS,
    *(f"{name}_of_{reference}" for reference in REFERENCES for name in ("retention", "low", "high")),
    "seconds",
    "n_bytes",
    "learnt_bytes",
    "note",
)


@dataclass(frozen=True, eq=False)
class Row:
    """One model of a ledger.

    Attributes:
        way: how it was recovered, "ridge", "small" or "ridge+small"; "" where nothing was learnt.
        of_dense: whether that was done to the dense model, not to the cut one.
        evaluation: its scores on the reported prompts; its edit is the recovered one.
        seconds: of learning it; 0 where nothing was to be learnt, None where that is not known.
        n_bytes: of its weights; None where the precision's width is not known.
        learnt_bytes: of what was learnt, as it is kept beside the edit.
        note: why a step of the way changed nothing; "" where all did.
    """

    way: str
    of_dense: bool
    evaluation: Evaluation
    seconds: float | None = 0.0
    n_bytes: int | None = None
    learnt_bytes: int = 0
    note: str = ""

    @property
    def title(self) -> str:
        """Return what was done, in words: "dense", "cut", "repaired (ridge) and tuned (small)"."""
        return self.titled(self.way, self.of_dense)

    @staticmethod
    def titled(way: str, of_dense: bool) -> str:
        """Return the title of the row of a way."""
        steps = steps_of(way) if way else ()
        done = " and ".join(f"{'tuned' if step in TUNINGS else 'repaired'} ({step})" for step in steps)
        if of_dense:
            return f"dense, {done}" if done else "dense"
        return done or "cut"


@dataclass(frozen=True, eq=False)
class Ledger:
    """What a cut model gets back, on prompts that nothing was learnt on.

    Attributes:
        rows: the dense model first, then the cut one, then the ways in the order asked for; where one of them tunes, last the dense
            model tuned alike.
        learnt_on: fingerprint of the prompts that was learnt on.
        n_learnt_on: how many they are.
        n_chosen_on: how many of the reported prompts the cut was chosen on, as far as is known: they flatter it.

    Raises:
        EvaluationError: the first two rows are not the dense and the cut model, or rows are not of one model and prompt set.
    """

    rows: tuple[Row, ...]
    learnt_on: str
    n_learnt_on: int
    n_chosen_on: int = 0

    def __post_init__(self) -> None:
        heads = [(row.way, row.of_dense) for row in self.rows[:2]]
        if heads != [("", True), ("", False)] or not self.rows[0].evaluation.is_dense:
            raise EvaluationError(
                "The ledger is damaged: expected the dense and the cut model first, got other rows. " + FORM.advice
            )
        if len({(row.way, row.of_dense) for row in self.rows}) < len(self.rows):
            raise EvaluationError(
                "The ledger is damaged: expected each way once, got one of them twice. " + FORM.advice
            )
        for row in self.rows[1:]:
            if (row.evaluation.model.fingerprint, row.evaluation.prompts) != (self.model.fingerprint, self.prompts):
                raise EvaluationError("The rows of the ledger are of different models or prompts. " + FORM.advice)
        domains = [
            list(evaluation.by_prompt["domain"]) for evaluation in self.shared
        ]  # raises where no prompt is in all rows
        if any(one != domains[0] for one in domains):
            raise EvaluationError("The rows of the ledger have the same prompts in other domains. " + FORM.advice)

    def __repr__(self) -> str:
        return brief(self, self.model.name, self.edit.words(), *(row.title for row in self.rows))

    @property
    def model(self) -> ModelInfo:
        return self.dense.model

    @property
    def prompts(self) -> str:
        """Return the fingerprint of the prompts that it reports on."""
        return self.dense.prompts

    @property
    def dense(self) -> Evaluation:
        return self.rows[0].evaluation

    @property
    def cut(self) -> Evaluation:
        return self.rows[1].evaluation

    @property
    def edit(self) -> Edit:
        """Return what was done to the model before anything was learnt."""
        return self.cut.edit

    @property
    def recovered(self) -> tuple[Row, ...]:
        """Return the rows of the cut model that something was done to."""
        return tuple(row for row in self.rows if row.way and not row.of_dense)

    @property
    def dense_tuned(self) -> Row | None:
        """Return the row of the dense model tuned alike."""
        return next((row for row in self.rows if row.way and row.of_dense), None)

    @cached_property
    def metric(self) -> str:
        """Return the score that retention is taken of: exact match, unless the dense model matches no answer exactly."""
        return telling_score_of(self.dense, *(row.evaluation for row in self.rows[1:]))

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains; behind several, the name that stands for all of them."""
        return domains_of(self.shared[0])

    @cached_property
    def shared(self) -> tuple[Evaluation, ...]:
        """Return the evaluation of each row on the prompts that all rows have."""
        return on_all([row.evaluation for row in self.rows])

    @property
    def overall(self) -> pd.DataFrame:
        """Return the rows of `table` over all prompts, one for each model."""
        return self._table[self._table["domain"] == self.domains[-1]].reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """Return `COLUMNS`, a row for each model and domain, and for all prompts where there are several domains.

        `retention_of_dense` is over the dense model's score, `retention_of_tuned` over that of the dense model tuned alike, each of
        `metric` and with the ends of its 90 % interval over groups; NaN where there is none.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        tuned = None if self.dense_tuned is None else self.shared[self.rows.index(self.dense_tuned)]
        references = dict(zip(REFERENCES, (self.shared[0], tuned), strict=True))
        rows = [
            {"row": row.title, **numbers, "seconds": row.seconds, "n_bytes": row.n_bytes}
            | {"learnt_bytes": row.learnt_bytes, "note": row.note}
            for row, evaluation in zip(self.rows, self.shared, strict=True)
            for numbers in self._numbers(evaluation, references)
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _numbers(self, evaluation: Evaluation, references: dict[str, Evaluation | None]) -> list[dict[str, Any]]:
        """Return the scores and retentions of one model, by domain."""
        several = len(self.domains) > 1
        found = []
        for domain in self.domains:
            whole = several and domain == self.domains[-1]
            its = pooled(evaluation, domain) if whole else evaluation
            scores = its.by_domain.loc[domain].astype(float).to_dict()
            row = {"domain": domain, "n": int(scores["n"]), **{name: scores[name] for name in METRICS}}
            for name, reference in references.items():
                kept = (np.nan, np.nan, np.nan)
                if reference is not None:
                    kept = _kept(its, pooled(reference, domain) if whole else reference, domain, self.metric)
                row |= dict(zip((f"retention_of_{name}", f"low_of_{name}", f"high_of_{name}"), kept, strict=True))
            found.append(row)
        return found


def _kept(edited: Evaluation, reference: Evaluation, domain: str, metric: str) -> tuple[float, float, float]:
    """Return a retention with the ends of its interval; a model beside itself has none."""
    share = float(retention(edited, reference, metric)[domain])
    if edited.edit == reference.edit:
        return share, np.nan, np.nan
    return share, *retention_interval(edited, reference, domain, metric=metric)


def save_ledger(ledger: Ledger, path: Path) -> Path:
    """Write the ledger as JSON; the file appears whole or not at all. Returns the path."""
    rows = [
        {
            "way": row.way,
            "of_dense": row.of_dense,
            "evaluation": EVALUATION.content(evaluation_content(row.evaluation)),
            "seconds": row.seconds,
            "n_bytes": row.n_bytes,
            "learnt_bytes": row.learnt_bytes,
            "note": row.note,
        }
        for row in ledger.rows
    ]
    about = {"learnt_on": ledger.learnt_on, "n_learnt_on": ledger.n_learnt_on, "n_chosen_on": ledger.n_chosen_on}
    return FORM.save(path, {"rows": rows, **about})


def open_ledger(path: Path) -> Ledger:
    """Open a ledger written by `save_ledger`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version.
    """
    return FORM.open(path, _ledger_of)


def _ledger_of(content: dict[str, Any]) -> Ledger:
    rows = []
    for one in content["rows"]:
        if one["way"]:
            steps_of(one["way"])
        about: dict[str, Any] = {name: one[name] for name in ("seconds", "n_bytes", "learnt_bytes", "note")}
        rows.append(Row(one["way"], one["of_dense"], EVALUATION.part(one["evaluation"], evaluation_of), **about))
    return Ledger(tuple(rows), content["learnt_on"], content["n_learnt_on"], content["n_chosen_on"])
