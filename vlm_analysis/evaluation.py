"""The Evaluation: what a mask did to the answers, prompt by prompt. Opens without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from vlm_analysis.errors import EvaluationError
from vlm_analysis.files import write_atomically
from vlm_analysis.masks import PruneMask, mask_from_json, mask_to_json, plain
from vlm_analysis.model_info import ModelInfo

SCHEMA_VERSION = 1
METRICS = ("exact_match", "answer_nll", "token_agreement", "kl_to_dense")
N_RESAMPLES = 500
COLUMNS = ("id", "domain", *METRICS, "answer", "answer_source", "answer_ids")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of one mask on one prompt set, from one teacher-forced pass over the answer tokens and one end token.

    Attributes:
        mask: the evaluated mask; one that drops nothing is the dense model.
        model, prompts: whom the numbers belong to (`prompts` is a fingerprint).
        by_prompt: one row a prompt with the columns `COLUMNS`. `exact_match` (bool): every argmax is the answer's token;
            `answer_nll`: mean negative log-likelihood in nats; `token_agreement`: share of positions where the pruned argmax
            is the dense one; `kl_to_dense`: mean KL(dense ‖ pruned) in nats. `answer` is the scored text, `answer_source` is
            "given" or "dense response", `answer_ids` the list of scored tokens.
        dense_log_probs: kept in memory by a dense evaluation, one (answer_tokens, vocabulary) float32 array a prompt, so that
            pruned models are compared without running the dense one again; never saved.
    """

    mask: PruneMask
    model: ModelInfo
    prompts: str
    by_prompt: pd.DataFrame
    dense_log_probs: tuple[np.ndarray, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.by_prompt.columns]
        if missing or self.by_prompt.empty:
            raise EvaluationError(
                f"An evaluation needs at least one prompt and the columns {list(COLUMNS)}; missing: {missing}."
            )

    @property
    def by_domain(self) -> pd.DataFrame:
        """Return the equal-weight mean of each metric over the prompts of a domain, indexed by domain, with `n`."""
        groups = self.by_prompt.groupby("domain", sort=False)
        means = groups[list(METRICS)].mean().astype(np.float64)
        return means.assign(n=groups.size())

    @property
    def is_dense(self) -> bool:
        return self.mask.budget == 0


def retention(pruned: Evaluation, dense: Evaluation, metric: str = "exact_match") -> pd.Series:
    """Return pruned over dense score per domain; NaN where the dense score is 0.

    Raises:
        EvaluationError: the two do not belong to the same model and prompts.
    """
    check_same_work(pruned, dense)
    base = dense.by_domain[metric]
    return (pruned.by_domain[metric] / base.where(base > 0)).rename("retention")


def retention_interval(
    pruned: Evaluation,
    dense: Evaluation,
    domain: str,
    *,
    metric: str = "exact_match",
    share: float = 0.9,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the interval that holds `share` of the retentions of a domain under a paired bootstrap over its prompts.

    Each of 500 draws takes the same prompts, with replacement, for both models; draws in which the dense score is 0 are
    left out. NaN where none is left.

    Raises:
        EvaluationError: the two do not belong to the same model and prompts.
    """
    check_same_work(pruned, dense)
    rows = (dense.by_prompt["domain"] == domain).to_numpy()
    scores = np.stack([evaluation.by_prompt[metric].to_numpy(dtype=np.float64)[rows] for evaluation in (pruned, dense)])
    count = scores.shape[1]
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=N_RESAMPLES)
    kept, base = scores @ drawn.T.astype(np.float64)
    ratios = kept[base > 0] / base[base > 0]
    if ratios.size == 0:
        return np.nan, np.nan
    low, high = np.quantile(ratios, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


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
    text = evaluation_to_json(evaluation)
    return write_atomically(Path(path), lambda part: part.write_text(text, "utf-8"))


def evaluation_to_json(evaluation: Evaluation) -> str:
    """Return the evaluation file's text; a score that is NaN or infinite is null, as JSON knows neither."""
    rows = evaluation.by_prompt.loc[:, list(COLUMNS)].replace([np.inf, -np.inf], np.nan).astype(object)
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "strata-evaluation",
        "mask": json.loads(mask_to_json(evaluation.mask)),
        "model": asdict(evaluation.model),
        "prompts": evaluation.prompts,
        "by_prompt": rows.where(rows.notna(), None).to_dict(orient="records"),
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def open_evaluation(path: Path) -> Evaluation:
    """Open an evaluation written by `save_evaluation`; needs neither torch nor the model.

    Raises:
        EvaluationError: the file is missing, cut short, of another kind or version.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"No evaluation can be read at {path}: {error}. Evaluate again.") from error
    return evaluation_from_json(text, path.name)


def evaluation_from_json(text: str, name: str = "The text") -> Evaluation:
    """Return the evaluation of an evaluation file's text (see `open_evaluation`)."""
    try:
        content = json.loads(text)
        if content["kind"] != "strata-evaluation" or content["schema_version"] != SCHEMA_VERSION:
            raise EvaluationError(f"{name} is not an evaluation of version {SCHEMA_VERSION}. Evaluate again.")
        frame = pd.DataFrame(content["by_prompt"], columns=list(COLUMNS))
        if not all(isinstance(right, bool) for right in frame["exact_match"]):
            raise EvaluationError(f"{name} is not a whole evaluation: a prompt lacks its exact match. Evaluate again.")
        if not all(isinstance(text, str) for column in ("id", "domain", "answer") for text in frame[column]):
            raise EvaluationError(
                f"{name} is not a whole evaluation: a prompt lacks its id, domain or answer. Evaluate again."
            )
        if not all(isinstance(ids, list) for ids in frame["answer_ids"]):
            raise EvaluationError(
                f"{name} is not a whole evaluation: a prompt lacks its answer's tokens. Evaluate again."
            )
        numeric = {metric: np.float64 for metric in METRICS if metric != "exact_match"}
        return Evaluation(
            mask=mask_from_json(json.dumps(content["mask"]), name),
            model=ModelInfo.from_json(content["model"]),
            prompts=content["prompts"],
            by_prompt=frame.astype({**numeric, "exact_match": bool}),
        )
    except EvaluationError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(f"{name} is not a whole evaluation: {error}. Evaluate again.") from error
