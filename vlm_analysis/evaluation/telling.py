"""Which score tells something: exact match, unless the dense model matches no answer exactly, as with free-form answers.

Then (our choice) the score is agreement with the dense model, or KL to it where all models agree, or answer NLL where both say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from vlm_analysis.evaluation.evaluation import Evaluation, accepted_answers
from vlm_analysis.words import METRIC_TITLES, any_of, counted

TELLING = ("exact_match", "token_agreement", "kl_to_dense", "answer_nll")
ROUNDING = 1e-12
GIVEN = "given"  # the source of an answer that came with its prompt
KEPT = {
    "exact_match": "its {} answers",
    "token_agreement": "its choices of tokens in {} answers",
    "kl_to_dense": "its predictions in {} answers",
    "answer_nll": "the likelihood of {} answers",
}
_WHAT = {
    "token_agreement": "agreement with the dense model, the share of an answer's positions at which both choose the same token",
    "kl_to_dense": "nearness to the dense model, e to the power of −KL",
    "answer_nll": "likelihood of an answer's tokens, e to the power of the dense model's NLL minus this one's",
}


def telling_score(dense: pd.DataFrame, edited: Mapping[str, np.ndarray]) -> str:
    """Return the score to report, one of `TELLING`.

    Args:
        dense: the dense evaluation's `by_prompt`.
        edited: by metric, the (n_edits, n_prompts) scores of the edits that are reported.
    """
    gaps = {name: np.asarray(edited[name], np.float64) - dense[name].to_numpy(np.float64) for name in TELLING}
    return _first_that_tells(dense, gaps)


def telling_score_of(dense: Evaluation, *edited: Evaluation) -> str:
    """Return the score to report of some edits on prompts that the dense model was asked too."""
    base = dense.by_prompt.set_index("id")[list(TELLING)].astype(np.float64)
    gaps = [one.by_prompt.set_index("id")[list(TELLING)].astype(np.float64).sub(base) for one in edited or (dense,)]
    return _first_that_tells(dense.by_prompt, pd.concat(gaps))


def _first_that_tells(dense: pd.DataFrame, gaps: Mapping[str, np.ndarray] | pd.DataFrame) -> str:
    """Return exact match where the dense model matches any answer, else the first score with a gap; NaN is none.

    Its own responses, which prompts without an answer are scored on, count only where there is no other answer.
    """
    given = dense["answer_source"] == GIVEN
    if dense["exact_match"][given if given.any() else slice(None)].any():
        return "exact_match"
    differing = (name for name in TELLING[1:] if (np.abs(np.asarray(gaps[name])) > ROUNDING).any())
    return next(differing, "token_agreement")


def telling_line(metric: str) -> str:
    """Return which score of `TELLING` is reported in place of exact match, and why; "" for exact match."""
    if metric == "exact_match":
        return ""
    return f"The dense model matches no answer exactly, so the score in its place is {_WHAT[metric]}."


def accepted_line(evaluation: Evaluation) -> str:
    """Return on how many prompts any of several accepted answers counts, and for which scores; "" where none has several."""
    counts = [len(answers) for answers in accepted_answers(evaluation.by_prompt) if len(answers) > 1]
    if not counts:
        return ""
    return (
        f"On {len(counts)} of {counted(len(evaluation.by_prompt), 'prompt')} {any_of(min(counts), max(counts))} counts: exact match, token "
        "agreement and the matches of responses are the best over them; NLL and KL are those of the first."
    )


def unanswered_line(evaluation: Evaluation) -> str:
    """Return how many prompts are scored on what the dense model says itself; "" where all have an answer."""
    n_prompts = len(evaluation.by_prompt)
    n = n_prompts - int((evaluation.by_prompt["answer_source"] == GIVEN).sum())
    if not n:
        return ""
    have, own, are = ("has", "its", "it is") if n == 1 else ("have", "their", "they are")
    return (
        f"{n} of {counted(n_prompts, 'prompt')} {have} no answer of {own} own: {are} scored on the dense model's response (at most 64 "
        "tokens), or on the choice it finds most likely, so the dense model is always right there."
    )


def above_line(tops: Iterable[float]) -> str:
    """Return why an interval of retention ends above 1, where one of these ends does; "" where none does."""
    if not any(top > 1 for top in tops):
        return ""
    return (
        "An interval of retention may end above 100 %: on other prompts the edited model may answer some that the dense model misses, "
        "and these prompts are too few to tell."
    )


def told_lines(metric: str, evaluation: Evaluation) -> str:
    """Return which score of `TELLING` is reported and what answers it counts, a line for each thing to say; "" where there is none."""
    line = telling_line(metric)
    lines = (f"{line} Retention is that of it." if line else "", accepted_line(evaluation), unanswered_line(evaluation))
    return "".join(f"{one}\n" for one in lines if one)


def title_of(metric: str) -> str:
    """Return the title of a metric inside a sentence: "exact match", "KL to dense"."""
    title = METRIC_TITLES[metric]
    return title if title[:2].isupper() else title[:1].lower() + title[1:]
