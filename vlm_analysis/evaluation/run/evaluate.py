"""Evaluate an edit: one teacher-forced pass per prompt gives exact match, NLL, agreement and KL together.

Plain greedy decoding reproduces an answer exactly if and only if, with the answer fed in, the argmax at each of its
positions (the end token included) is the answer's token; so no text needs to be generated. Text is generated only on
request, and only for prompts that are not matched exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.choices import NO_CHOICE, choice_scores
from vlm_analysis.evaluation.evaluation import CHOICE_COLUMNS, COLUMNS, Evaluation, with_extras, with_groups
from vlm_analysis.evaluation.matching import normalised_match, numeric_match
from vlm_analysis.models.decoding import MAX_NEW_TOKENS, before_placeholder, decode, greedy_ids
from vlm_analysis.models.inputs import (
    Encoded,
    EncodedPrompts,
    answer_tokens,
    batches,
    collate,
    encode,
    pad_token,
    takes_logits_to_keep,
)
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet

MAX_REFERENCE_BYTES = MAX_ENCODED_BYTES = MAX_STATE_BYTES = 1 << 30
MOST_IN_BATCH = 32
MORE_TOKENS = 16  # a response may be this much longer than its answer; our choice
GIVEN_ANSWER, DENSE_RESPONSE, DENSE_CHOICE, CHOICE = "given", "dense response", "dense choice", "choice"


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
    """Score the edited model on every prompt.

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
        PromptError: a prompt that this model cannot take.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    edit = edit or Edit(loaded.n_layers)
    dense = reference.dense_log_probs if reference else None
    evaluation = evaluate_prepared(
        work, edit, dense, batch_size=batch_size or batch_for(loaded), on_progress=on_progress
    )
    return write_responses(loaded, prompt_set, evaluation, on_progress=on_progress) if responses else evaluation


def batch_for(loaded: LoadedModel) -> int:
    """Return the default batch size: at most 32, and small enough for a sweep to keep the states of all layers in 1 GiB.

    Computed from the model's bound on vision tokens (1024 where there is none) plus 128 tokens per prompt. It depends on the model only:
    all evaluations of the same prompts run in the same batches.
    """
    tokens = (loaded.max_vision_tokens or 1024) + 128
    hidden = loaded.model.config.get_text_config(decoder=True).hidden_size
    prompt = loaded.n_layers * tokens * hidden * loaded.model.dtype.itemsize
    return max(1, min(MOST_IN_BATCH, MAX_STATE_BYTES // prompt))


@dataclass(frozen=True)
class Answer:
    """The answer that a prompt is scored on: its tokens, its text and its source."""

    ids: tuple[int, ...]
    text: str
    source: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prompts encoded with the answers they are scored on; many edits share them.

    Attributes:
        answers, encoded: one row per prompt, then one for each choice that is not its prompt's answer.
        alternatives: for each prompt the row of each of its choices, in their order; () without choices.
    """

    loaded: LoadedModel
    prompts: PromptSet
    answers: tuple[Answer, ...]
    encoded: EncodedPrompts
    alternatives: tuple[tuple[int, ...], ...]


def prepare(
    loaded: LoadedModel,
    prompts: PromptSet,
    reference: Evaluation | None = None,
    *,
    max_bytes: int = MAX_ENCODED_BYTES,
    on_progress: Progress | None = None,
) -> Prepared:
    """Return the prompts ready to be scored; those without an answer get the dense model's response or choice.

    Inputs beyond `max_bytes` are encoded again whenever they are needed.
    """
    progress = on_progress or no_progress
    answers = _answers(loaded, prompts, reference, progress)
    pairs = [(prompt, answer.ids) for prompt, answer in zip(prompts, answers, strict=True)]
    alternatives = []
    for index, prompt in enumerate(prompts):
        rows = []
        for choice in prompt.choices or ():
            own = choice == answers[index].text
            rows.append(index if own else len(answers))
            if not own:
                answers.append(Answer(answer_tokens(loaded, choice), choice, CHOICE))
                pairs.append((prompt, answers[-1].ids))
        alternatives.append(tuple(rows))
    encoded = EncodedPrompts(loaded, pairs, max_bytes=max_bytes, on_progress=progress)
    return Prepared(loaded, prompts, tuple(answers), encoded, tuple(alternatives))


def dense_log_probs(
    work: Prepared, *, batch_size: int = 8, on_progress: Progress | None = None
) -> tuple[np.ndarray, ...]:
    """Return the dense model's (answer_tokens, vocabulary) float32 log-probabilities, one array per prompt."""
    log_probs = dict(
        _log_probs(work, work.loaded.model, batch_size, on_progress or no_progress, "running the dense model")
    )
    return tuple(log_probs[index] for index in range(len(work.prompts)))


def evaluate_prepared(
    work: Prepared,
    edit: Edit,
    dense: tuple[np.ndarray, ...] | None,
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score one edit on prepared prompts against the dense log-probabilities (see `evaluate`).

    Without them (`None`: they were too large to keep, or the evaluation comes from a file) the dense model runs again.
    """
    model, is_dense, n_prompts = apply_edit(work.loaded.model, edit), edit.is_dense, len(work.prompts)
    if dense is None and not is_dense:
        dense = dense_log_probs(work, batch_size=batch_size, on_progress=on_progress)
    scores: dict[int, dict[str, Any]] = {}
    log_probs_of: dict[int, np.ndarray] = {}
    room = MAX_REFERENCE_BYTES
    for index, scored in _log_probs(work, model, batch_size, on_progress or no_progress, "evaluating"):
        own = index < n_prompts
        base = None if not own else scored if is_dense or dense is None else dense[index]
        scores[index] = answer_scores(scored, base, work.answers[index].ids, work.loaded.end_tokens)
        if own and is_dense and room >= 0:
            room -= scored.nbytes
            log_probs_of[index] = scored
    whole = tuple(log_probs_of[index] for index in range(n_prompts)) if is_dense and room >= 0 else None
    return evaluation_of(work, edit, scores, whole)


def evaluation_of(
    work: Prepared,
    edit: Edit,
    scores: Mapping[int, dict[str, Any]],
    dense_log_probs: tuple[np.ndarray, ...] | None = None,
) -> Evaluation:
    """Return the Evaluation of an edit from the scores of its rows by row index (see `answer_scores`).

    Choices count for a prompt once all of them are scored.
    """
    indices = [index for index in sorted(scores) if index < len(work.prompts)]
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
    if any(work.alternatives):
        choices = [_choice_scores(work, index, scores) for index in indices]
        frame = with_extras(frame, {column: [one[column] for one in choices] for column in CHOICE_COLUMNS})
    return Evaluation(edit, work.loaded.info, work.prompts.fingerprint, frame, dense_log_probs)


def _choice_scores(work: Prepared, index: int, scores: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    rows = work.alternatives[index]
    if not rows or any(row not in scores for row in rows):
        return NO_CHOICE
    nlls, lengths = [scores[row]["answer_nll"] for row in rows], [len(work.answers[row].ids) for row in rows]
    return choice_scores([work.answers[row].text for row in rows], nlls, lengths, work.answers[index].text)


def write_responses(
    loaded: LoadedModel, prompts: PromptSet, evaluation: Evaluation, *, on_progress: Progress | None = None
) -> Evaluation:
    """Return the evaluation with the model's response to each prompt, and whether it matches the answer (`RESPONSE_COLUMNS`).

    Where the answer is matched exactly, it is the response. Otherwise the model decodes greedily until its end token, with at most 16
    tokens more than the answer, and at most 64 unless the answer itself is longer.

    Raises:
        EvaluationError: the evaluation is of another model or other prompts.
    """
    if evaluation.model.fingerprint != loaded.fingerprint or evaluation.prompts != prompts.fingerprint:
        raise EvaluationError("The evaluation is of another model or other prompts. Evaluate again.")
    progress, model, responses = on_progress or no_progress, apply_edit(loaded.model, evaluation.edit), list[str]()
    table = evaluation.by_prompt
    rows = zip(prompts, table["answer"], table["answer_ids"], table["exact_match"], strict=True)
    for prompt, answer, ids, is_exact in rows:
        progress(len(responses), len(prompts), "writing the responses")
        most = min(len(ids) + MORE_TOKENS, max(MAX_NEW_TOKENS, len(ids)))
        responses.append(answer if is_exact else decode(loaded, greedy_ids(loaded, model, prompt, most)))
    progress(len(prompts), len(prompts), "writing the responses")
    pairs = list(zip(responses, table["answer"], strict=True))
    matches = {
        "normalised_match": [normalised_match(*pair) for pair in pairs],
        "numeric_match": [numeric_match(*pair) for pair in pairs],
    }
    return replace(evaluation, by_prompt=with_extras(table, {"response": responses, **matches}))


def respond(
    loaded: LoadedModel, prompt: Prompt, edit: Edit | None = None, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> str:
    """Return the edited model's response to one prompt, decoded greedily."""
    model = loaded.model if edit is None else apply_edit(loaded.model, edit)
    return decode(loaded, greedy_ids(loaded, model, prompt, max_new_tokens))


def answer_scores(
    scored: np.ndarray, dense: np.ndarray | None, answer_ids: Sequence[int], ends: Collection[int] = ()
) -> dict[str, Any]:
    """Return the four metrics of one answer, or only `answer_nll` without the dense model's log-probabilities.

    Args:
        scored, dense: (answer_tokens, vocabulary) float32 log-probabilities of the edited and of the dense model.
        answer_ids: the answer's tokens with its end token.
        ends: end tokens of the model; any of them matches the end of the answer.
    """
    ids = np.asarray(answer_ids)
    wide = scored.astype(np.float64)
    nll = float(-wide[np.arange(len(ids)), ids].mean())
    if dense is None:
        return {"answer_nll": nll}
    choice, dense_choice = scored.argmax(axis=1), dense.argmax(axis=1)
    same, dense_wide = scored is dense, dense.astype(np.float64)
    broken = bool(np.isnan(wide).any())  # an argmax over NaN is not a choice
    incomparable = broken or bool(np.isnan(dense_wide).any())
    kl = 0.0 if same else float(kl_of_tokens(dense_wide, wide).mean())
    return {
        "exact_match": not broken and bool((choice[:-1] == ids[:-1]).all() and _same_end(choice[-1], ids[-1], ends)),
        "answer_nll": nll,
        "token_agreement": np.nan if incomparable else float((choice == dense_choice).mean()),
        "kl_to_dense": np.nan if incomparable else max(kl, 0.0),
    }


def kl_of_tokens(dense: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """Return the (n_tokens,) KL(dense ‖ edited) in nats of (n_tokens, vocabulary) float64 log-probabilities."""
    share = np.exp(dense)
    with np.errstate(invalid="ignore"):  # a token the dense model rules out (−inf) adds nothing
        kl: np.ndarray = np.where(share == 0, 0.0, share * (dense - edited)).sum(axis=1)
    return kl


def _same_end(choice: int, expected: int, ends: Collection[int]) -> bool:
    return choice == expected or (expected in ends and choice in ends)


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


def _answers(loaded: LoadedModel, prompts: PromptSet, reference: Evaluation | None, progress: Progress) -> list[Answer]:
    """Return each prompt's answer, or the dense model's response (with its end token, unless cut) where it has none.

    A response is cut before an image placeholder; where nothing is left, the answer is empty.
    """
    answers = []
    for index, prompt in enumerate(prompts):
        if reference is not None:
            row = reference.by_prompt.iloc[index]
            answers.append(Answer(tuple(row["answer_ids"]), row["answer"], row["answer_source"]))
        elif prompt.answer is not None:
            answers.append(Answer(answer_tokens(loaded, prompt.answer), prompt.answer, GIVEN_ANSWER))
        elif prompt.choices is not None:
            progress(index, len(prompts), "choosing reference answers with the dense model")
            answers.append(_dense_choice(loaded, prompt, prompt.choices))
        else:
            progress(index, len(prompts), "writing reference answers with the dense model")
            response_ids = greedy_ids(loaded, loaded.model, prompt, MAX_NEW_TOKENS)
            tokens = before_placeholder(loaded, response_ids) or loaded.end_tokens[:1]
            answers.append(Answer(tokens, decode(loaded, tokens), DENSE_RESPONSE))
    return answers


@torch.inference_mode()
def _dense_choice(loaded: LoadedModel, prompt: Prompt, choices: Sequence[str]) -> Answer:
    """Return the choice that the dense model finds most likely as the answer."""
    tokens = [answer_tokens(loaded, choice) for choice in choices]
    nlls = []
    for ids in tokens:
        (logits,) = answer_logits(loaded, loaded.model, [encode(loaded, prompt, ids)])
        nlls.append(answer_scores(logits.float().log_softmax(dim=-1).cpu().numpy(), None, ids)["answer_nll"])
    choice = choice_scores(choices, nlls, [len(ids) for ids in tokens], "")["choice"]
    if choice is None:
        raise EvaluationError(
            f"Prompt {prompt.id!r} has no answer, and {loaded.name} prefers none of its choices: expected likelihoods, got {nlls}. "
            "Give it an answer, or load the model in another precision."
        )
    return Answer(tokens[choices.index(choice)], choice, DENSE_CHOICE)


@torch.inference_mode()
def _log_probs(
    work: Prepared, model: Any, batch_size: int, progress: Progress, message: str
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row index with the (answer_tokens, vocabulary) float32 log-probabilities at its answer positions."""
    done = 0
    progress(0, len(work.encoded), message)
    for indices in batches(work.encoded, batch_size):
        logits_of = answer_logits(work.loaded, model, [work.encoded[index] for index in indices])  # the inputs end here
        for index, logits in zip(indices, logits_of, strict=True):
            yield index, logits.float().log_softmax(dim=-1).cpu().numpy()
        done += len(indices)
        progress(done, len(work.encoded), message)


def answer_logits(loaded: LoadedModel, model: Any, items: Sequence[Encoded]) -> list[torch.Tensor]:
    """Return for each item the logits (answer_tokens, vocabulary) that predict its answer tokens, from one batched pass.

    The head runs only at those positions if the model's forward takes `logits_to_keep`.
    """
    batch = collate(items, pad_token(loaded))
    spans = [range(item.n_prompt_tokens - 1, item.n_tokens - 1) for item in items]
    positions = sorted(set().union(*spans))
    width = batch["input_ids"].shape[1]
    takes = takes_logits_to_keep(model)
    keep = {"logits_to_keep": torch.tensor(positions, device=loaded.device)} if takes else {}
    with interruptible(model):
        logits = model(**batch, **keep, use_cache=False).logits
    if logits.shape[1] == width:  # some models take the argument and ignore it
        row_of = {position: position for position in positions}
    elif logits.shape[1] == len(positions):
        row_of = {position: index for index, position in enumerate(positions)}
    else:
        raise EvaluationError(f"{loaded.name} returned {logits.shape[1]} logits: expected {len(positions)} or {width}.")
    return [logits[row, [row_of[position] for position in span]] for row, span in enumerate(spans)]
