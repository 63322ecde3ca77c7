"""The Evaluation: what a mask did to the answers, prompt by prompt. Opens without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlm_analysis.edits.edit import Edit
from vlm_analysis.edits.files import edit_content, edit_for
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.intervals import (
    LEAST_GROUPS,
    SHARE,
    count_groups,
    group_numbers,
    kept_bands,
    ratio_bands,
    share_bands,
    tailed_bands,
)
from vlm_analysis.guard.schema import LONGEST, TEXTS, different, fields, flag, listed, maybe, number, table, text, whole
from vlm_analysis.model_info import SCHEMA as MODEL, ModelInfo
from vlm_analysis.saved import FINGERPRINT, Form
from vlm_analysis.words import METRIC_TITLES, brief, prompts_in, total_of_domains

_TOLERANCE = 1e-3  # of divergences and likelihoods in half precision, which can be a little below their least
_ROW = fields(
    {
        "id": text(LONGEST, 1),
        "domain": text(LONGEST, 1),
        "exact_match": flag,
        "answer_nll": maybe(number(-_TOLERANCE)),
        "token_agreement": maybe(number(0, 1)),
        "kl_to_dense": maybe(number(-_TOLERANCE)),
        "answer": text(),
        "answer_source": text(100),
        "answer_ids": listed(whole()),
    }
)
SCHEMA = fields(
    {"mask": table(), "model": MODEL, "prompts": FINGERPRINT, "by_prompt": listed(_ROW, 1)}, {"set_aside": TEXTS}
)
FORM = Form(("strata-evaluation",), 1, "evaluation", "Evaluate again.", EvaluationError, SCHEMA)
METRICS = ("exact_match", "answer_nll", "token_agreement", "kl_to_dense")
EXTRA_METRICS = ("normalised_match", "numeric_match", "choice_match", "choice_match_norm")
IN_NATS = ("answer_nll", "kl_to_dense")
RIGHT_OR_WRONG = ("exact_match", *EXTRA_METRICS)
COLUMNS = ("id", "domain", *METRICS, "answer", "answer_source", "answer_ids")
RESPONSE_COLUMNS = ("response", "normalised_match", "numeric_match")
CHOICE_COLUMNS = ("choice", "choice_match", "choice_match_norm")
GROUP = "group"  # a column where some prompts share a group; without it each prompt is alone in its own
ANSWERS = (
    "answers"  # a column where some prompts have several accepted answers: their list, the scored one first; else None
)
EXTRA_COLUMNS = (GROUP, ANSWERS, *RESPONSE_COLUMNS, *CHOICE_COLUMNS)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one edit on one prompt set, from one teacher-forced pass over the answer tokens and one end token.

    Attributes:
        edit: what was done to the model; one without changes is the dense model.
        model, prompts: whom the numbers belong to (`prompts` is a fingerprint).
        by_prompt: one row a prompt with the columns `COLUMNS`. `exact_match` (bool): every argmax is the answer's token;
            `answer_nll`: mean negative log-likelihood in nats; `token_agreement`: share of positions where the pruned argmax
            is the dense one; `kl_to_dense`: mean KL(dense ‖ pruned) in nats. `answer` is the scored text, `answer_source` is
            "given", "dense response" or "dense choice", `answer_ids` the list of scored tokens. Where responses were asked for also
            `RESPONSE_COLUMNS`: `response` is what the model wrote, `normalised_match` and `numeric_match` (1 or 0) whether it is the
            answer (see `matching`). Where prompts have choices also `CHOICE_COLUMNS` (see `choices`): `choice` is the most likely one,
            `choice_match` (1 or 0) whether it is the answer, `choice_match_norm` the same by likelihood per token. None and NaN
            where a prompt was not asked. Where prompts share a group also `group`, its name (see `PromptSet.groups`). Where prompts have
            several accepted answers also `answers`, their list: then `exact_match`, `token_agreement` and the matches of a response are
            the best over any of them, `answer_nll` and `kl_to_dense` those of `answer`.
        dense_log_probs: kept in memory by a dense evaluation, one (answer_tokens, vocabulary) float32 array a prompt asked for, then one a
            further accepted answer, None for those set aside, so that pruned models are compared without running the dense one again;
            never saved.
        set_aside: the prompts that were asked for but refused by the model or its processor, by id, each with the reason. They have no row;
            `prompts` is the fingerprint of all prompts asked for.
    """

    edit: Edit
    model: ModelInfo
    prompts: str
    by_prompt: pd.DataFrame
    dense_log_probs: tuple[np.ndarray | None, ...] | None = field(default=None, repr=False)
    set_aside: dict[str, str] = field(default_factory=dict, kw_only=True)

    def __repr__(self) -> str:
        scores = (f"{METRIC_TITLES[name]} {self.by_prompt[name].mean():.3g}" for name in ("exact_match", "kl_to_dense"))
        return brief(self, self.model.name, repr(self.edit), prompts_in(self.by_prompt["domain"]), *scores)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.by_prompt.columns]
        if missing or self.by_prompt.empty:
            raise EvaluationError(
                f"An evaluation needs at least one prompt and the columns {list(COLUMNS)}; missing: {missing}."
            )

    @property
    def by_domain(self) -> pd.DataFrame:
        """Return the equal-weight mean of each metric over the prompts of a domain, indexed by domain, with `n`.

        A metric of `EXTRA_METRICS` is the mean over the prompts that have it.
        """
        return self._by_domain.copy()

    @cached_property
    def _by_domain(self) -> pd.DataFrame:
        groups = self.by_prompt.groupby("domain", sort=False)
        means = groups[list(self.metrics)].mean().astype(np.float64)
        return means.assign(n=groups.size())

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Return `METRICS` and those of `EXTRA_METRICS` that any prompt has."""
        frame = self.by_prompt
        return (*METRICS, *(name for name in EXTRA_METRICS if name in frame and frame[name].notna().any()))

    @property
    def shared_groups(self) -> tuple[str, ...]:
        """Return the name of each prompt's group; () where each is alone in its group, or none was kept."""
        return tuple(self.by_prompt[GROUP]) if GROUP in self.by_prompt else ()

    @property
    def n_groups(self) -> int:
        """Return how many groups the prompts are in."""
        return len(set(self.shared_groups)) or len(self.by_prompt)

    @property
    def groups_by_domain(self) -> dict[str, int]:
        """Return how many groups the prompts of each domain are in."""
        groups = self.shared_groups or range(len(self.by_prompt))
        return {
            str(name): int(n)
            for name, n in pd.Series(groups).groupby(self.by_prompt["domain"].to_numpy()).nunique().items()
        }

    @property
    def is_dense(self) -> bool:
        return self.edit.is_dense

    @property
    def mask(self) -> Edit:
        """Return the edit under its name in version 0.1."""
        return self.edit


def with_extras(frame: pd.DataFrame, extras: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return the table with columns of `EXTRA_COLUMNS` set, in their order: texts as objects, metrics as float64."""
    typed = {
        name: pd.Series(list(values), index=frame.index, dtype=np.float64 if name in EXTRA_METRICS else object)
        for name, values in extras.items()
    }
    typed_frame = frame.assign(**typed)
    return typed_frame[[column for column in (*COLUMNS, *EXTRA_COLUMNS) if column in typed_frame]]


def accepted_answers(by_prompt: pd.DataFrame) -> list[list[str]]:
    """Return the accepted answers of each prompt of an evaluation, the scored one first."""
    lists = by_prompt[ANSWERS] if ANSWERS in by_prompt else [None] * len(by_prompt)
    return [several or [answer] for several, answer in zip(lists, by_prompt["answer"], strict=True)]


def as_kept(metric: str, edited: Any, dense: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return two scores of each prompt as amounts of which more is better, so that their ratio is a retention.

    KL is e to its negative power, of which the dense model has 1; NLL the likelihood of an answer's token over the dense model's.
    """
    edited, dense = np.asarray(edited, np.float64), np.asarray(dense, np.float64)
    if metric not in IN_NATS:
        return edited, dense
    return np.exp(dense - edited), np.where(np.isnan(dense), np.nan, 1.0)


def with_groups(frame: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Return the table with the column `group` of each prompt's group; without it where none share one."""
    if len(set(groups)) < len(groups):
        return with_extras(frame, {GROUP: groups})
    return frame.drop(columns=GROUP) if GROUP in frame else frame


def on_all(evaluations: Sequence[Evaluation]) -> tuple[Evaluation, ...]:
    """Return the evaluations on the prompts that all have (see `on_both`), in the order of the first.

    Raises:
        EvaluationError: they have no prompt in common.
    """
    first = reduce(lambda one, other: on_both(one, other)[0], evaluations)
    return tuple(on_both(first, one)[1] for one in evaluations)


def domains_of(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the domains; behind several, the name that stands for all of them."""
    names = tuple(map(str, evaluation.by_domain.index))
    return names if len(names) == 1 else (*names, total_of_domains(names))


def on_both(one: Evaluation, other: Evaluation) -> tuple[Evaluation, Evaluation]:
    """Return both evaluations on the prompts that both have, in the order of the first; what one set aside, both set aside.

    Raises:
        EvaluationError: they have no prompt in common.
    """
    ids, other_ids = list(one.by_prompt["id"]), list(other.by_prompt["id"])
    if ids == other_ids:
        return one, other
    shared, place = set(ids) & set(other_ids), {name: row for row, name in enumerate(other_ids)}
    set_aside = one.set_aside | other.set_aside

    def on_shared(evaluation: Evaluation, rows: list[int]) -> Evaluation:
        table = evaluation.by_prompt.iloc[rows].reset_index(drop=True)
        return replace(evaluation, by_prompt=table, set_aside=set_aside)

    rows = [row for row, name in enumerate(ids) if name in shared]
    return on_shared(one, rows), on_shared(other, [place[ids[row]] for row in rows])


def retention(pruned: Evaluation, dense: Evaluation, metric: str = "exact_match") -> pd.Series:
    """Return pruned over dense score per domain, on the prompts that both have; NaN where the dense score is 0.

    Of KL and NLL it is that of `as_kept`.

    Raises:
        EvaluationError: the two do not belong to the same model and prompts, or one lacks the metric.
    """
    _check_comparable(pruned, dense, metric)
    pruned, dense = on_both(pruned, dense)
    if metric in IN_NATS:
        kept, _ = as_kept(metric, pruned.by_prompt[metric], dense.by_prompt[metric])
        return pd.Series(kept).groupby(dense.by_prompt["domain"], sort=False).mean().rename("retention")
    base = dense.by_domain[metric]
    return (pruned.by_domain[metric] / base.where(base > 0)).rename("retention")


def retention_interval(
    pruned: Evaluation,
    dense: Evaluation,
    domain: str,
    *,
    metric: str = "exact_match",
    share: float = SHARE,
) -> tuple[float, float]:
    """Return the interval of a domain's retention at the level `share` (see `retention_bands`).

    Prompts without a metric of `EXTRA_METRICS` do not count.

    Raises:
        EvaluationError: the two do not belong to the same model and prompts, or one lacks the metric.
    """
    _check_comparable(pruned, dense, metric)
    pruned, dense = on_both(pruned, dense)
    rows = (dense.by_prompt["domain"] == domain).to_numpy()
    scores = np.stack(as_kept(metric, *(one.by_prompt[metric].to_numpy(np.float64) for one in (pruned, dense))))
    if metric in EXTRA_METRICS:
        rows = rows & ~np.isnan(scores).any(axis=0)
    numbers = group_numbers(pruned.shared_groups or dense.shared_groups, len(rows))[rows]
    low, high = retention_bands(scores[:1, rows], scores[1, rows], metric, numbers, share=share)
    return float(low[0]), float(high[0])


def retention_bands(
    kept: np.ndarray, base: np.ndarray, metric: str, numbers: np.ndarray | None = None, *, share: float = SHARE
) -> np.ndarray:
    """Return the (2, n) low and high ends of the retention of each row of `kept` (n, n_prompts) over `base` (n_prompts,).

    Of right or wrong answers (`RIGHT_OR_WRONG`) the interval comes from counts (`kept_bands`), else from Student's t (`ratio_bands`).
    `numbers` are the prompts' groups (see `group_numbers`), by default each its own. NaN where the dense score is 0, and where there are
    fewer than five groups.
    """
    numbers = np.arange(len(base)) if numbers is None else numbers
    return (kept_bands if metric in RIGHT_OR_WRONG else ratio_bands)(kept, base, numbers, share)


def score_intervals(evaluation: Evaluation) -> pd.DataFrame:
    """Return columns domain, metric, n, groups, value, low, high: the mean of each metric with its 90 % interval over groups.

    Of right or wrong answers the interval is exact (`share_bands`), of KL and NLL that of `tailed_bands`, of token agreement
    Student's t (`ratio_bands`). NaN ends where there is none.
    """
    frame, rows = evaluation.by_prompt, []
    numbers = group_numbers(evaluation.shared_groups, len(frame))
    for domain in evaluation.by_domain.index:
        for metric in evaluation.metrics:
            values = frame[metric].to_numpy(dtype=np.float64)
            asked = (frame["domain"] == domain).to_numpy() & ~np.isnan(values)
            its, of = values[asked], numbers[asked]
            low, high = _score_bands(its, metric, of)
            rows.append((domain, metric, len(its), count_groups(of), its.mean() if len(its) else np.nan, low, high))
    return pd.DataFrame(rows, columns=["domain", "metric", "n", "groups", "value", "low", "high"])


def _score_bands(values: np.ndarray, metric: str, numbers: np.ndarray) -> tuple[float, float]:
    if count_groups(numbers) < LEAST_GROUPS:
        return np.nan, np.nan
    if metric in RIGHT_OR_WRONG:
        ends = share_bands(values[None] > 0, np.ones((1, len(values)), bool), numbers)
    elif metric == "token_agreement":
        ends = ratio_bands(values[None], np.ones(len(values)), numbers)
    else:
        ends = tailed_bands(values[None], numbers)
    return float(ends[0, 0]), float(ends[1, 0])


def _check_comparable(pruned: Evaluation, dense: Evaluation, metric: str) -> None:
    check_same_work(pruned, dense)
    for evaluation, name in ((pruned, "pruned"), (dense, "dense")):
        if metric not in evaluation.metrics:
            raise EvaluationError(
                f"The {name} evaluation has no {metric!r}: expected one of {', '.join(evaluation.metrics)}. "
                "Evaluate with responses, or on prompts with choices."
            )


def check_same_work(one: Evaluation, other: Evaluation) -> None:
    """Raise EvaluationError unless both evaluations are of the same model and the same prompts."""
    if one.model.fingerprint != other.model.fingerprint:
        raise EvaluationError(
            f"The evaluations are of different models: {one.model.name} and {other.model.name}. Evaluate both on one."
        )
    if one.prompts != other.prompts:
        raise EvaluationError("The evaluations are of different prompt sets. Evaluate both on the same prompts.")


def save_evaluation(evaluation: Evaluation, path: Path) -> Path:
    """Write the evaluation as JSON; the file appears whole or not at all. Returns the path."""
    return FORM.save(path, evaluation_content(evaluation))


def open_evaluation(path: Path) -> Evaluation:
    """Open an evaluation written by `save_evaluation`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version.
    """
    return FORM.open(path, evaluation_of)


def evaluation_content(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the file says; a score that is NaN or infinite is null, as JSON knows neither."""
    columns = [column for column in (*COLUMNS, *EXTRA_COLUMNS) if column in evaluation.by_prompt]
    rows = evaluation.by_prompt.loc[:, columns].replace([np.inf, -np.inf], np.nan).astype(object)
    return {
        "mask": edit_content(evaluation.edit),
        "model": asdict(evaluation.model),
        "prompts": evaluation.prompts,
        "by_prompt": rows.where(rows.notna(), None).to_dict(orient="records"),
        "set_aside": evaluation.set_aside,
    }


def evaluation_of(content: dict[str, Any]) -> Evaluation:
    """Return the evaluation of a content made by `evaluation_content`.

    Raises:
        StrataError, ValueError, LookupError, TypeError: it is damaged.
    """
    frame = pd.DataFrame(content["by_prompt"], columns=list(COLUMNS))
    different(frame["id"].tolist(), "ids of prompts")
    model = ModelInfo.from_json(content["model"])
    numeric = {metric: np.float64 for metric in METRICS if metric != "exact_match"}
    return Evaluation(
        edit=edit_for(content["mask"], model),
        model=model,
        prompts=content["prompts"],
        by_prompt=with_extras(frame.astype({**numeric, "exact_match": bool}), _extras(content["by_prompt"])),
        set_aside=content.get("set_aside", {}),
    )


def _extras(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns beyond `COLUMNS` of a file's rows; a row that lacks one which others have is a KeyError."""
    present = set().union(*rows)
    extras = {column: [row[column] for row in rows] for column in EXTRA_COLUMNS if column in present}
    for column, values in extras.items():
        fits = _is_score if column in EXTRA_METRICS else _are_texts if column == ANSWERS else _is_text
        if not all(value is None or fits(value) for value in values):
            raise ValueError(f"its column {column!r} is damaged")
    return extras


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value in (0, 1)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)
