"""Evaluate an edit: one teacher-forced pass per prompt gives exact match, NLL, agreement and KL together.

Plain greedy decoding reproduces an answer exactly if and only if, with the answer fed in, the argmax at each of its
positions (the end token included) is the answer's token; so no text needs to be generated. Text is generated only on
request, and only for prompts that are not matched exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError, PromptError
from vlm_analysis.evaluation.choices import NO_CHOICE, choice_scores
from vlm_analysis.evaluation.evaluation import (
    ANSWERS,
    CHOICE_COLUMNS,
    COLUMNS,
    Evaluation,
    accepted_answers,
    with_extras,
    with_groups,
)
from vlm_analysis.evaluation.matching import normalised_match, numeric_match
from vlm_analysis.evaluation.run.metrics import answer_scores
from vlm_analysis.evaluation.run.prepared import Answered, Prepared, answer_logits, prepare
from vlm_analysis.evaluation.scores import best_of_accepted
from vlm_analysis.models.decoding import MAX_NEW_TOKENS, greedy_text
from vlm_analysis.models.inputs import answer_tokens
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet

MAX_REFERENCE_BYTES = MAX_STATE_BYTES = 1 << 30
MOST_IN_BATCH = 32
MORE_TOKENS = 16  # a response may be this much longer than its answer; our choice


def evaluate(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    edit: Edit | None = None,
    *,
    reference: Evaluation | None = None,
    batch_size: int | None = None,
    responses: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score the edited model on every prompt; one that the model or its processor refuses, or whose picture is gone, is set aside
    (`Evaluation.set_aside`).

    Args:
        loaded: the dense model.
        prompts: a PromptSet, or any sequence of prompts. One without an answer is scored on the dense model's own response, or on the
            choice that the dense model finds most likely. Each choice of a prompt is scored as an answer.
        edit: the edit to evaluate, such as a prune mask. None, or one without changes, evaluates the dense model: its agreement is 1
            and its KL 0.
        reference: the dense Evaluation on the same prompts; saves running the dense model again.
        batch_size: prompts of similar length that run together; `batch_for(loaded)` by default. In float32 it changes the numbers by
            less than 1e-5, in bfloat16 by much more: compare evaluations with the same batch size.
        responses: also let the model write its response wherever the answer is not matched exactly (see `write_responses`).
        on_progress: called after each batch; raising `Cancelled` in it stops the work.

    Raises:
        EvaluationError: the reference is not the dense evaluation of this model and these prompts.
        EditError: the edit does not fit the model; for example, it drops a locked layer.
        PromptError: the model can take none of the prompts.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    edit = edit or Edit(loaded.n_layers)
    dense = reference.dense_log_probs if reference else None
    evaluation = evaluate_prepared(
        work, edit, dense, batch_size=batch_size or batch_for(loaded), on_progress=on_progress
    )
    if responses:
        evaluation = write_responses(loaded, prompt_set, evaluation, on_progress=on_progress)
    return evaluation


def batch_for(loaded: LoadedModel) -> int:
    """Return the default batch size: at most 32, and small enough for a sweep to keep the states of all layers in 1 GiB.

    Computed from the model's bound on vision tokens (1024 where there is none) plus 128 tokens per prompt. It depends on the model only:
    all evaluations of the same prompts run in the same batches.
    """
    tokens = (loaded.max_vision_tokens or 1024) + 128
    hidden = loaded.model.config.get_text_config(decoder=True).hidden_size
    prompt = loaded.n_layers * tokens * hidden * loaded.model.dtype.itemsize
    return max(1, min(MOST_IN_BATCH, MAX_STATE_BYTES // prompt))


def dense_log_probs(
    work: Prepared, *, batch_size: int = 8, on_progress: Progress | None = None
) -> tuple[np.ndarray | None, ...]:
    """Return the dense model's (answer_tokens, vocabulary) float32 log-probabilities (see `Evaluation.dense_log_probs`)."""
    dense, progress = Edit(work.loaded.n_layers), on_progress or no_progress
    return _of_prompts(work, dict(_log_probs(work, dense, batch_size, progress, "running the dense model")))


def evaluate_prepared(
    work: Prepared,
    edit: Edit,
    dense: tuple[np.ndarray | None, ...] | None,
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score one edit on prepared prompts against the dense log-probabilities (see `evaluate`).

    Without them (`None`: they were too large to keep, or the evaluation comes from a file) the dense model runs again.
    """
    is_dense = edit.is_dense
    if dense is None and not is_dense:
        dense = dense_log_probs(work, batch_size=batch_size, on_progress=on_progress)
    scores: dict[int, dict[str, Any]] = {}
    log_probs_of: dict[int, np.ndarray] = {}
    room = MAX_REFERENCE_BYTES
    for index, scored in _log_probs(work, edit, batch_size, on_progress or no_progress, "evaluating"):
        own = index < work.n_compared
        base = None if not own else scored if is_dense or dense is None else dense[index]
        scores[index] = answer_scores(scored, base, work.answers[index].ids, work.loaded.end_tokens)
        if own and is_dense and room >= 0:
            room -= scored.nbytes
            log_probs_of[index] = scored
    kept = _of_prompts(work, log_probs_of) if is_dense and room >= 0 else None
    return evaluation_of(work, edit, best_of_accepted(scores, work.accepted), kept)


def _of_prompts(work: Prepared, log_probs: Mapping[int, np.ndarray]) -> tuple[np.ndarray | None, ...]:
    return tuple(log_probs[row] if work.scored([row]) else None for row in range(work.n_compared))


def evaluation_of(
    work: Answered,
    edit: Edit,
    scores: Mapping[int, dict[str, Any]],
    dense_log_probs: tuple[np.ndarray | None, ...] | None = None,
) -> Evaluation:
    """Return the Evaluation of an edit from the scores of its rows by row index (see `answer_scores`, `best_of_accepted`).

    Choices count for a prompt once all of them are scored.
    """
    indices = [index for index in work.scored(sorted(scores)) if index < len(work.prompts)]
    rows = [
        {
            "id": work.prompts[index].id,
            "domain": work.prompts[index].domain,
            **scores[index],
            "answer": work.answers[index].text,
            "answer_source": work.answers[index].source,
            "answer_ids": list(work.answers[index].ids),
        }
        for index in indices
    ]
    frame = with_groups(
        pd.DataFrame(rows, columns=list(COLUMNS)), [work.prompts.groups.names[index] for index in indices]
    )
    if work.accepted:
        accepted = [work.prompts[index].answers for index in indices]
        frame = with_extras(frame, {ANSWERS: [list(texts) if texts else None for texts in accepted]})
    if any(work.alternatives):
        choices = [_choice_scores(work, index, scores) for index in indices]
        frame = with_extras(frame, {column: [one[column] for one in choices] for column in CHOICE_COLUMNS})
    fingerprint = work.prompts.fingerprint
    return Evaluation(edit, work.info, fingerprint, frame, dense_log_probs, set_aside=work.set_aside)


def _choice_scores(work: Answered, index: int, scores: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    rows = work.alternatives[index]
    if not rows or any(row not in scores for row in rows):
        return NO_CHOICE
    nlls, lengths = [scores[row]["answer_nll"] for row in rows], [len(work.answers[row].ids) for row in rows]
    return choice_scores([work.answers[row].text for row in rows], nlls, lengths, work.answers[index].text)


def write_responses(
    loaded: LoadedModel, prompts: PromptSet, evaluation: Evaluation, *, on_progress: Progress | None = None
) -> Evaluation:
    """Return the evaluation with the model's response to each prompt, and whether it matches the answer (`RESPONSE_COLUMNS`).

    Where the only accepted answer is matched exactly, it is the response. Otherwise the model decodes greedily until its end token, with
    at most 16 tokens more than the longest accepted answer, and at most 64 unless that itself is longer. A prompt that cannot be asked any
    more (its picture is gone) is set aside.

    Raises:
        EvaluationError: the evaluation is of another model or other prompts.
        PromptError: no prompt is left.
    """
    if evaluation.model.fingerprint != loaded.fingerprint or evaluation.prompts != prompts.fingerprint:
        raise EvaluationError("The evaluation is of another model or other prompts. Evaluate again.")
    progress, model = on_progress or no_progress, apply_edit(loaded.model, evaluation.edit)
    table, by_id = evaluation.by_prompt, {prompt.id: prompt for prompt in prompts}
    responses, lost = dict[int, str](), dict[str, str]()
    rows = zip(table["id"], table["answer"], table["answer_ids"], table["exact_match"], strict=True)
    for row, (name, answer, ids, is_exact) in enumerate(rows):
        progress(row, len(table), "writing the responses")
        prompt = by_id[name]
        try:
            if is_exact and not prompt.answers:
                responses[row] = answer
                continue
            longest = max([len(ids), *(len(answer_tokens(loaded, one)) for one in prompt.answers or ())])
            most = min(longest + MORE_TOKENS, max(MAX_NEW_TOKENS, longest))
            responses[row] = greedy_text(loaded, model, prompt, most)
        except PromptError as error:
            lost[name] = str(error)
    progress(len(table), len(table), "writing the responses")
    if not responses:
        raise none_left(loaded.name, lost)
    return replace(_with_responses(evaluation, responses), set_aside=evaluation.set_aside | lost)


def _with_responses(evaluation: Evaluation, responses: Mapping[int, str]) -> Evaluation:
    """Return the evaluation of the prompts with a response, by its row, and how it matches the answer."""
    whole = evaluation.by_prompt
    table = whole if len(responses) == len(whole) else whole.iloc[list(responses)].reset_index(drop=True)
    pairs = list(zip(responses.values(), accepted_answers(table), strict=True))
    matches = {
        "normalised_match": [any(normalised_match(response, one) for one in answers) for response, answers in pairs],
        "numeric_match": [any(numeric_match(response, one) for one in answers) for response, answers in pairs],
    }
    return replace(evaluation, by_prompt=with_extras(table, {"response": list(responses.values()), **matches}))


def respond(
    loaded: LoadedModel, prompt: Prompt, edit: Edit | None = None, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> str:
    """Return the edited model's response to one prompt, decoded greedily."""
    model = loaded.model if edit is None else apply_edit(loaded.model, edit)
    return greedy_text(loaded, model, prompt, max_new_tokens)


def check_reference(reference: Evaluation | None, loaded: LoadedModel, prompts: PromptSet) -> None:
    """Raise EvaluationError unless the reference is None or the dense evaluation of this model on these prompts."""
    if reference is None:
        return
    if not reference.is_dense:
        raise EvaluationError(
            f"The reference must be the dense evaluation; it {reference.edit.words()}. Evaluate without an edit."
        )
    if reference.model.fingerprint != loaded.fingerprint or reference.prompts != prompts.fingerprint:
        raise EvaluationError(
            "The reference is of another model or other prompts. Evaluate the dense model on these prompts first."
        )


@torch.inference_mode()
def _log_probs(
    work: Prepared, edit: Edit, batch_size: int, progress: Progress, message: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row index with the (answer_tokens, vocabulary) float32 log-probabilities at its answer positions."""
    done, model = 0, apply_edit(work.loaded.model, edit)
    progress(0, len(work.encoded), message)
    for rows in work.batches(batch_size):
        scored, logits_of = _logits(work, model, rows, edit)
        for index, logits in zip(scored, logits_of, strict=True):
            yield index, logits.float().log_softmax(dim=-1).cpu().numpy()
        done += len(rows)
        progress(done, len(work.encoded), message)


def _logits(work: Prepared, model: Any, rows: list[int], edit: Edit) -> tuple[list[int], list[torch.Tensor]]:
    """Return the rows of a batch that the model does not refuse, and the logits at their answer positions."""
    while rows:
        try:
            return rows, answer_logits(work.loaded, model, [work.encoded[row] for row in rows])
        except PromptError as error:
            work.refuse(rows, edit, error)
        rows = work.scored(rows)
    return [], []
