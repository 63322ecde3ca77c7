"""What became of each answer: lost, gained or kept, what both models said where that is known, and which of them to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import ANSWERS, Evaluation, on_both
from vlm_analysis.evaluation.telling import telling_score_of

OUTCOMES = {
    "lost": "Only the dense model matches the answer exactly.",
    "gained": "Only the edited model matches the answer exactly.",
    "right": "Both match the answer exactly.",
    "wrong": "Neither matches the answer exactly.",
    "differs": "Somewhere in the answer the edited model chooses another token than the dense one.",
    "same": "Along the whole answer both models choose the same tokens.",
}
COLUMNS = ("id", "domain", "answer", ANSWERS, "answer_source", "outcome", "extra_nll", "kl_to_dense", "token_agreement")
SAID = ("dense_says", "edited_says", "dense_choice", "edited_choice")
_WORST_FIRST = ("lost", "differs", "wrong", "right", "same", "gained")


def answer_changes(edited: Evaluation, dense: Evaluation) -> pd.DataFrame:
    """Return one row a prompt that both evaluations have, the most harmed first.

    Columns: `COLUMNS`, of which `answers` are all accepted ones, None where there is one, and `extra_nll` is the edited model's answer NLL
    above the dense one's in nats a token; `dense_exact` and `edited_exact` (bool); and `SAID`, texts, None where they are not known.
    `outcome` is a key of `OUTCOMES`: "differs" or "same" where exact match tells nothing (see `telling`), else one of the others. What a
    model says is its written response, else the answer where it is the only accepted one and matched exactly, as greedy decoding then
    writes it.

    Raises:
        EvaluationError: they have no prompt in common.
    """
    edited, dense = on_both(edited, dense)
    one, other = dense.by_prompt, edited.by_prompt
    changes = other[["id", "domain", "answer", "answer_source", "kl_to_dense", "token_agreement"]].copy()
    changes[ANSWERS] = _texts(other, ANSWERS)
    changes["extra_nll"] = other["answer_nll"] - one["answer_nll"]
    changes["dense_exact"], changes["edited_exact"] = one["exact_match"], other["exact_match"]
    changes["outcome"] = _outcomes(changes, telling_score_of(dense, edited) == "exact_match")
    for name, frame in (("dense", one), ("edited", other)):
        changes[f"{name}_says"] = _said(frame)
        changes[f"{name}_choice"] = _texts(frame, "choice")
    rank = changes["outcome"].map({outcome: place for place, outcome in enumerate(_WORST_FIRST)})
    harm = changes["extra_nll"].where(~changes["outcome"].isin(("differs", "same")), -changes["token_agreement"])
    order = np.lexsort((-changes["kl_to_dense"].fillna(np.inf), -harm.fillna(np.inf), rank))
    return changes.iloc[order].reset_index(drop=True)[[*COLUMNS, "dense_exact", "edited_exact", *SAID]]


def _outcomes(changes: pd.DataFrame, exact_tells: bool) -> np.ndarray:
    if not exact_tells:
        return np.where(changes["token_agreement"] < 1, "differs", "same")
    before, after = changes["dense_exact"].to_numpy(bool), changes["edited_exact"].to_numpy(bool)
    return np.select([before & ~after, ~before & after, before & after], ["lost", "gained", "right"], "wrong")


def _said(frame: pd.DataFrame) -> pd.Series:
    """Return what a model is known to say to each prompt, None where it was not asked."""
    several = _texts(frame, ANSWERS).notna()
    written = _texts(frame, "response")
    return written.where(written.notna() | several | ~frame["exact_match"].astype(bool), frame["answer"])


def _texts(frame: pd.DataFrame, column: str) -> pd.Series:
    texts = frame[column] if column in frame else pd.Series(None, index=frame.index, dtype=object)
    return texts.astype(object).where(texts.notna(), None)


def found(
    changes: pd.DataFrame,
    questions: Mapping[str, str],
    *,
    outcome: str = "",
    domain: str = "",
    search: str = "",
) -> pd.DataFrame:
    """Return the rows of `answer_changes` of an outcome and a domain ("" for any) that hold every word of a search.

    Words are looked for in the id, the question, the answer and what both models say; upper and lower case are the same.

    Args:
        questions: by id; a prompt without is searched in its other texts.
    """
    rows = changes
    if outcome:
        rows = rows[rows["outcome"] == outcome]
    if domain:
        rows = rows[rows["domain"] == domain]
    words = search.casefold().split()
    if not words:
        return rows
    texts = rows[["id", "answer", *SAID]].fillna("").astype(str).agg("\n".join, axis=1)
    texts = (texts + "\n" + rows["id"].map(questions).fillna("")).str.casefold()
    return rows[[all(word in text for word in words) for text in texts]]


def pooled(evaluation: Evaluation, name: str) -> Evaluation:
    """Return the evaluation with all its prompts in one domain, so that its scores are those of all prompts."""
    return replace(evaluation, by_prompt=evaluation.by_prompt.assign(domain=name))
