"""The Contest: dropped layers, narrow layers, vision tokens that skip layers and mixes of these at one budget. Opens without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.change import Change
from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.kinds.drop import Drop
from vlm_analysis.edits.kinds.narrow import Narrow
from vlm_analysis.edits.kinds.vision import Vision
from vlm_analysis.edits.learnt import Learnt
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.answers import pooled
from vlm_analysis.evaluation.evaluation import (
    Evaluation,
    check_same_work,
    domains_of,
    on_all,
    retention,
    retention_interval,
)
from vlm_analysis.evaluation.paired import paired_differences
from vlm_analysis.evaluation.telling import telling_score_of, title_of
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recovery.tunings import TUNINGS
from vlm_analysis.words import brief, counted, sentence

DEPTH, WIDTH, VISION, MIX = CONTESTANTS = ("depth", "width", "vision", "mix")
_OF_CHANGE: dict[type[Change], str] = {Drop: DEPTH, Narrow: WIDTH, Vision: VISION}
PARAMETERS, TIME = BUDGETS = ("parameters", "time")
COLUMNS = (
    "kind",
    "recovered",
    "domain",
    "n",
    "retention",
    "low",
    "high",
    "exact_match",
    "kl_to_dense",
    "answer_nll",
    "saved",
    "speedup",
    "tried",
    "method",
    "edit",
)
AGAIN = "Run the contest again."
NO_DIFFERENCE = "no difference can be told"


@dataclass(frozen=True, eq=False)
class Entry:
    """The edit of one kind that was picked on the choosing prompts, as it is or recovered.

    Attributes:
        kind: "depth", "width", "vision" or "mix".
        method: how the edit was made, in words.
        evaluation: its scores on the reported prompts; its edit is the one that was evaluated.
        recovered: "" for the edit as it was picked, else the way of its recovery, as "small".
        chosen_score: its mean retention over the domains of the choosing prompts; None where no domain has one. Of a recovered edit that
            of the edit as it was picked.
        tried: how many edits of the kind were measured on the choosing prompts.
        speedup: how many times as fast a prefill is, with the ends of its 90 % interval over rounds (`speedup`); None where it was not
            timed.
        note: what is to be said of it, as that nothing was learnt.
    """

    kind: str
    method: str
    evaluation: Evaluation
    recovered: str = ""
    chosen_score: float | None = None
    tried: int = 1
    speedup: tuple[float, float, float] | None = None
    note: str = ""

    def __repr__(self) -> str:
        return brief(self, self.title, self.method)

    @property
    def edit(self) -> Edit:
        return self.evaluation.edit

    @cached_property
    def cut(self) -> Edit:
        """Return the edit without what was learnt."""
        return replace(self.edit, changes=tuple(one for one in self.edit.changes if not isinstance(one, Learnt)))

    @property
    def title(self) -> str:
        """Return its kind, and how it was recovered: "depth", "depth + small"."""
        return f"{self.kind} + {self.recovered}" if self.recovered else self.kind

    @property
    def alone(self) -> str:
        """Return the kind that a mix has alone, as "depth" where it drops layers and changes nothing else; "" of others."""
        kinds = {_OF_CHANGE.get(type(change), MIX) for change in self.cut.changes}
        return kinds.pop() if self.kind == MIX and len(kinds) == 1 else ""

    @property
    def saved(self) -> float:
        """Return the share of the decoder layers' parameters that goes; NaN where these were not counted."""
        model = self.evaluation.model
        whole = sum(model.layer_parameters)
        return self.cut.saved_parameters(model) / whole if whole else np.nan


@dataclass(frozen=True, eq=False)
class Contest:
    """The best edit of each kind at one budget: picked on some prompts, reported on others.

    Attributes:
        share: the budget: how much goes.
        of: of what: "parameters" of the decoder layers, or the measured "time" of a prefill.
        dense: the dense model on the reported prompts.
        entries: one for each kind and way of recovery; the edits as they were picked are without one.
        chosen_on, n_chosen_on: fingerprint of the choosing prompts, on which edits are recovered too, and how many they are.
        n_shared: how many of the reported prompts are among them, or share a picture with one: they flatter all entries.
        missing: by kind why it has no entry.
        recovery: by way the settings with which every edit is recovered.
        timed: on what prefills were timed, in words; "" where they were not.
        stopped: what ended before its end, in a sentence, as a search at its limit of time; "" where nothing did.

    Raises:
        EvaluationError: there is no entry or one twice, an unknown kind or budget, or entries of different models or prompts.
    """

    share: float
    of: str
    dense: Evaluation
    entries: tuple[Entry, ...]
    chosen_on: str
    n_chosen_on: int
    n_shared: int = 0
    missing: Mapping[str, str] = field(default_factory=dict)
    recovery: Mapping[str, Any] = field(default_factory=dict)
    timed: str = ""
    stopped: str = ""

    def __post_init__(self) -> None:
        named = [(entry.kind, entry.recovered) for entry in self.entries]
        fits = {
            "a share between 0 and 1": 0 < self.share < 1,
            f"a budget of {' or '.join(BUDGETS)}": self.of in BUDGETS,
            "an entry or more": bool(named),
            "each entry once": len(set(named)) == len(named),
            f"kinds among {', '.join(CONTESTANTS)}": {kind for kind, _ in named} | {*self.missing} <= {*CONTESTANTS},
            "the dense model to compare with": self.dense.is_dense,
            "each recovered edit beside the edit as it was picked": all((kind, "") in named for kind, _ in named),
        }
        if unmet := [expected for expected, holds in fits.items() if not holds]:
            raise EvaluationError(f"The contest is damaged: expected {unmet[0]}, got another. {AGAIN}")
        for entry in self.entries:
            check_same_work(entry.evaluation, self.dense)
        domains = [list(one.by_prompt["domain"]) for one in self.shared]  # raises where no prompt is in all
        if any(one != domains[0] for one in domains):
            raise EvaluationError(f"The entries of the contest have the same prompts in other domains. {AGAIN}")

    def __repr__(self) -> str:
        return brief(self, self.model.name, f"{self.share:.0%} of {self.of}", *(one.title for one in self.entries))

    @property
    def model(self) -> ModelInfo:
        return self.dense.model

    @property
    def prompts(self) -> str:
        """Return the fingerprint of the prompts that it reports on."""
        return self.dense.prompts

    @property
    def budget(self) -> str:
        """Return the budget in words: "30% of the decoder layers' parameters"."""
        what = "of the decoder layers' parameters" if self.of == PARAMETERS else "of a prefill's time"
        return f"{self.share:.0%} {what}"

    @property
    def ways(self) -> tuple[str, ...]:
        """Return how edits were recovered, "" first for as they were picked."""
        return tuple(dict.fromkeys(("", *(entry.recovered for entry in self.entries))))

    @cached_property
    def metric(self) -> str:
        """Return the score that retention is taken of: exact match, unless the dense model matches no answer exactly."""
        return telling_score_of(self.dense, *(entry.evaluation for entry in self.entries))

    @cached_property
    def shared(self) -> tuple[Evaluation, ...]:
        """Return the evaluations of the dense model and of each entry, on the prompts that all have."""
        return on_all([self.dense, *(entry.evaluation for entry in self.entries)])

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains; behind several, the name that stands for all of them."""
        return domains_of(self.shared[0])

    def entry(self, kind: str, recovered: str = "") -> Entry | None:
        """Return the entry of a kind and way of recovery; None where there is none."""
        return next((one for one in self.entries if (one.kind, one.recovered) == (kind, recovered)), None)

    def ranked(self, recovered: str = "") -> tuple[Entry, ...]:
        """Return the entries that were recovered so, the one that keeps most of all prompts first; of equal ones that of less KL."""
        found = [entry for entry in self.entries if entry.recovered == recovered]
        overall = self.overall.set_index(["kind", "recovered"])

        def rank(entry: Entry) -> tuple[float, float]:
            row = overall.loc[(entry.kind, entry.recovered)]
            return tuple(np.nan_to_num([-row["retention"], row["kl_to_dense"]], nan=np.inf).tolist())  # type: ignore[return-value]

        return tuple(sorted(found, key=rank))

    def best(self, recovered: str = "") -> Entry:
        """Return the first of `ranked`.

        Raises:
            EvaluationError: no entry was recovered so.
        """
        if not (ranked := self.ranked(recovered)):
            raise EvaluationError(
                f"No entry was recovered so: expected one of {', '.join(way or 'none' for way in self.ways)}, got {recovered[:80]!r}. "
                "Choose one."
            )
        return ranked[0]

    @property
    def overall(self) -> pd.DataFrame:
        """Return the rows of `table` over all prompts, one for each entry."""
        return self._table[self._table["domain"] == self.domains[-1]].reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """Return `COLUMNS`, a row for each entry and domain, and for all prompts where there are several domains.

        `retention` is of `metric`, `low` and `high` are the ends of its 90 % interval over groups, NaN where there is none; `saved` is the
        share of the decoder layers' parameters that goes, `speedup` that of a prefill, NaN where it was not timed.
        """
        return self._table.copy()

    @cached_property
    def _table(self) -> pd.DataFrame:
        dense, *evaluations = self.shared
        rows = [
            {"kind": entry.kind, "recovered": entry.recovered, **self._numbers(evaluation, dense, domain)}
            | {"saved": entry.saved, "speedup": entry.speedup[0] if entry.speedup else np.nan, "tried": entry.tried}
            | {"method": entry.method, "edit": entry.edit.words()}
            for entry, evaluation in zip(self.entries, evaluations, strict=True)
            for domain in self.domains
        ]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _numbers(self, evaluation: Evaluation, dense: Evaluation, domain: str) -> dict[str, Any]:
        if len(self.domains) > 1 and domain == self.domains[-1]:
            evaluation, dense = pooled(evaluation, domain), pooled(dense, domain)
        scores = evaluation.by_domain.loc[domain].astype(float).to_dict()
        low, high = retention_interval(evaluation, dense, domain, metric=self.metric)
        kept = float(retention(evaluation, dense, self.metric)[domain])
        told = {name: scores[name] for name in ("exact_match", "kl_to_dense", "answer_nll")}
        return {"domain": domain, "n": int(scores["n"]), "retention": kept, "low": low, "high": high, **told}

    def beside(self, one: Entry, other: Entry) -> tuple[float, float, float]:
        """Return how much more of all prompts' answers one entry keeps than another, with the ends of its paired 90 % interval.

        Both are compared on the same prompts (`paired_differences`); NaN ends where there is no interval.
        """
        first, second = (self.shared[1 + self.entries.index(entry)] for entry in (one, other))
        row = paired_differences(first, second, self.shared[0], self.metric).iloc[-1]
        return float(row["difference"]), float(row["low"]), float(row["high"])

    def verdict(self) -> str:
        """Return in sentences which kind keeps most, without recovery and after each, and what is to be said beside it.

        Where the 90 % interval of `beside` holds 0, or there is none, no difference can be told. Each interval holds for itself.
        """
        says = [_found(self, way) for way in self.ways]
        says += [
            f"The best mix found is {entry.alone} alone."
            for entry in self.entries
            if entry.alone and not entry.recovered
        ]
        says += [f"{sentence(kind)} has no entry: {why}" for kind, why in self.missing.items()]
        says += [f"{sentence(entry.title)}: {entry.note}" for entry in self.entries if entry.note]
        says += [self.stopped] if self.stopped else []
        return " ".join(says)

    def fresh_words(self) -> str:
        """Return on how many prompts it reports and was chosen, and how many of them flatter it."""
        n = len(self.shared[0].by_prompt)
        if not self.n_shared:
            return f"Measured on {counted(n, 'prompt')}; chosen on {counted(self.n_chosen_on, 'other')}."
        return (
            f"Measured on {counted(n, 'prompt')}; chosen on {self.n_chosen_on}. {self.n_shared} of those measured on are among these, or "
            "share a picture with one: that flatters all entries."
        )


def _found(contest: Contest, way: str) -> str:
    """Return which kind keeps most after a way of recovery."""
    (first, *others), opening = contest.ranked(way), _opening(contest, way)
    if not others:
        return f"{opening}, {first.kind} alone has an entry: it keeps {_kept(contest, first)} of {_what(contest)}."
    said = [_against(contest, first, other) for other in others]
    words = "; ".join(one for one, _ in said)
    if not any(sure for _, sure in said):
        return f"{opening}, {NO_DIFFERENCE}: {first.kind} keeps {_kept(contest, first)} of {_what(contest)}, against {words}."
    return f"{opening}, {first.kind} keeps most: {_kept(contest, first)} of {_what(contest)}, against {words}."


def _opening(contest: Contest, way: str) -> str:
    if way:
        return f"{'With the same fine-tuning' if way in TUNINGS else 'After the same repair'} ({way})"
    saves = {f"{entry.saved:.0%}" for entry in contest.entries} - {"nan%"} if contest.of == PARAMETERS else set()
    rounded = f" ({' to '.join(sorted({min(saves), max(saves)}))} as cut)" if saves - {f"{contest.share:.0%}"} else ""
    return f"With {contest.budget} gone{rounded}"


def _against(contest: Contest, first: Entry, other: Entry) -> tuple[str, bool]:
    """Return what another entry keeps, with the difference; and whether that can be told."""
    share = f"{_kept(contest, other)} by {other.kind}"
    if first.edit == other.edit:
        return f"{share}, the same edit", False
    difference, low, high = contest.beside(first, other)
    if not np.isfinite(low):
        return f"{share} ({NO_DIFFERENCE})", False
    interval = f"{100 * difference:+.0f} points, 90 % interval {100 * low:+.0f} to {100 * high:+.0f}"
    return f"{share} ({interval}{'' if low > 0 else ': ' + NO_DIFFERENCE})", low > 0


def _kept(contest: Contest, entry: Entry) -> str:
    overall = contest.overall.set_index(["kind", "recovered"])["retention"]
    kept = float(overall[entry.kind, entry.recovered])
    return "no known share" if np.isnan(kept) else f"{kept:.0%}"


def _what(contest: Contest) -> str:
    return (
        "the dense model's answers"
        if contest.metric == "exact_match"
        else f"the dense model's {title_of(contest.metric)}"
    )


def chosen_score(evaluation: Evaluation, dense: Evaluation, metric: str | None = None) -> float | None:
    """Return the mean retention over the domains that have one, by which the edit of a kind is picked; None where none has one."""
    kept = retention(evaluation, dense, metric or telling_score_of(dense, evaluation))
    known = kept[np.isfinite(kept)]
    return float(known.mean()) if len(known) else None
