"""Evaluating a mask: one teacher-forced pass per prompt gives exact match, NLL, agreement and KL together.

Plain greedy decoding reproduces an answer exactly if and only if, with the answer fed in, the argmax at each of its
positions (the end token included) is the answer's token; so no text needs to be generated to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation import COLUMNS, Evaluation
from vlm_analysis.inputs import Encoded, answer_tokens, batches, collate, encode, pad_token, takes_logits_to_keep
from vlm_analysis.masks import PruneMask
from vlm_analysis.models import LoadedModel
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts import Prompt, PromptSet
from vlm_analysis.prune import prune

MAX_NEW_TOKENS = 64
MAX_REFERENCE_BYTES = 1 << 30
GIVEN, RESPONSE = "given", "dense response"


def evaluate(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    mask: PruneMask | None = None,
    *,
    reference: Evaluation | None = None,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score the model without the layers of `mask` on every prompt.

    Args:
        loaded: the dense model.
        prompts: a PromptSet, or any sequence of prompts. One without an answer is scored on the dense model's own response.
        mask: None, or one that drops nothing, evaluates the dense model: its agreement is 1 and its KL 0.
        reference: the dense Evaluation on the same prompts, so that the dense model is not run again.
        batch_size: prompts of like length run together.
        on_progress: called after each batch; raising `Cancelled` in it stops the work.

    Raises:
        EvaluationError: the reference is not the dense evaluation of this model and these prompts.
        MaskError: the mask does not fit the model or drops a locked layer.
        PromptError: a prompt that this model cannot be asked.
    """
    prompt_set = prompts if isinstance(prompts, PromptSet) else PromptSet(prompts)
    check_reference(reference, loaded, prompt_set)
    work = prepare(loaded, prompt_set, reference, on_progress=on_progress)
    mask = mask or PruneMask(loaded.n_layers)
    dense = reference.dense_log_probs if reference else None
    return evaluate_prepared(work, mask, dense, batch_size=batch_size, on_progress=on_progress)


@dataclass(frozen=True)
class Answer:
    """What a prompt is scored on: its tokens, its text and where it comes from."""

    ids: tuple[int, ...]
    text: str
    source: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """Prompts encoded with the answers they are scored on, so that many masks share the preparation."""

    loaded: LoadedModel
    prompts: PromptSet
    answers: tuple[Answer, ...]
    encoded: tuple[Encoded, ...]


def prepare(
    loaded: LoadedModel, prompts: PromptSet, reference: Evaluation | None = None, *, on_progress: Progress | None = None
) -> Prepared:
    """Return the prompts ready to be scored; prompts without an answer get the dense model's response."""
    answers = _answers(loaded, prompts, reference, on_progress or no_progress)
    encoded: list[Encoded] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        (on_progress or no_progress)(len(encoded), len(prompts), "preparing the prompts")
        encoded.append(encode(loaded, prompt, answer.ids))
    return Prepared(loaded, prompts, tuple(answers), tuple(encoded))


def dense_log_probs(
    work: Prepared, *, batch_size: int = 8, on_progress: Progress | None = None
) -> tuple[np.ndarray, ...]:
    """Return the dense model's (answer_tokens, vocabulary) float32 log-probabilities, one array a prompt."""
    return _log_probs(work, work.loaded.model, batch_size, on_progress or no_progress, "running the dense model")


def evaluate_prepared(
    work: Prepared,
    mask: PruneMask,
    dense: tuple[np.ndarray, ...] | None,
    *,
    batch_size: int = 8,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score one mask on prepared prompts against the dense log-probabilities (see `evaluate`).

    Without them (`None`: they were too large to keep, or come from a file) the dense model runs again.
    """
    scored = _log_probs(work, prune(work.loaded.model, mask), batch_size, on_progress or no_progress, "evaluating")
    is_dense = mask.budget == 0
    if is_dense:
        dense = scored
    elif dense is None:
        dense = dense_log_probs(work, batch_size=batch_size, on_progress=on_progress)
    scores = {
        index: answer_scores(scored[index], dense[index], answer.ids) for index, answer in enumerate(work.answers)
    }
    small = sum(array.nbytes for array in scored) <= MAX_REFERENCE_BYTES
    return evaluation_of(work, mask, scores, scored if is_dense and small else None)


def evaluation_of(
    work: Prepared,
    mask: PruneMask,
    scores: Mapping[int, dict[str, Any]],
    dense_log_probs: tuple[np.ndarray, ...] | None = None,
) -> Evaluation:
    """Return the Evaluation of a mask from the scores of its prompts by their place (see `answer_scores`)."""
    rows = [
        {
            "id": work.prompts[index].id,
            "domain": work.prompts[index].domain,
            **scores[index],
            "answer": work.answers[index].text,
            "answer_source": work.answers[index].source,
            "answer_ids": list(work.answers[index].ids),
        }
        for index in sorted(scores)
    ]
    return Evaluation(
        mask=mask,
        model=work.loaded.info,
        prompts=work.prompts.fingerprint,
        by_prompt=pd.DataFrame(rows, columns=list(COLUMNS)),
        dense_log_probs=dense_log_probs,
    )


def respond(
    loaded: LoadedModel, prompt: Prompt, mask: PruneMask | None = None, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> str:
    """Return what the model without the layers of `mask` answers to one prompt, decoded greedily."""
    model = loaded.model if mask is None else prune(loaded.model, mask)
    return decode(loaded, _generate(loaded, model, prompt, max_new_tokens))


def answer_scores(scored: np.ndarray, dense: np.ndarray, answer_ids: Sequence[int]) -> dict[str, Any]:
    """Return the four metrics of one answer.

    Args:
        scored, dense: (answer_tokens, vocabulary) float32 log-probabilities of the pruned and of the dense model.
        answer_ids: the answer's tokens with its end token.
    """
    ids = np.asarray(answer_ids)
    choice, dense_choice = scored.argmax(axis=1), dense.argmax(axis=1)
    same = scored is dense
    wide, dense_wide = scored.astype(np.float64), dense.astype(np.float64)
    share = np.exp(dense_wide)
    broken = bool(np.isnan(wide).any())  # an argmax over NaN is no choice
    incomparable = broken or bool(np.isnan(dense_wide).any())
    with np.errstate(invalid="ignore"):  # a token the dense model rules out (−inf) adds nothing
        kl = 0.0 if same else float(np.where(share == 0, 0.0, share * (dense_wide - wide)).sum(axis=1).mean())
    return {
        "exact_match": not broken and bool((choice == ids).all()),
        "answer_nll": float(-wide[np.arange(len(ids)), ids].mean()),
        "token_agreement": np.nan if incomparable else float((choice == dense_choice).mean()),
        "kl_to_dense": np.nan if incomparable else max(kl, 0.0),
    }


def check_reference(reference: Evaluation | None, loaded: LoadedModel, prompts: PromptSet) -> None:
    """Raise EvaluationError unless the reference is None or the dense evaluation of this model on these prompts."""
    if reference is None:
        return
    if not reference.is_dense:
        raise EvaluationError(
            f"The reference must be the dense evaluation; it drops {reference.mask.budget} layers. Evaluate without a mask."
        )
    if reference.model.fingerprint != loaded.fingerprint or reference.prompts != prompts.fingerprint:
        raise EvaluationError(
            "The reference is of another model or other prompts. Evaluate the dense model on these prompts first."
        )


def _answers(loaded: LoadedModel, prompts: PromptSet, reference: Evaluation | None, report: Progress) -> list[Answer]:
    """Return each prompt's answer; the dense model's own response (with its end token, unless cut) where none is given."""
    answers = []
    for index, prompt in enumerate(prompts):
        if reference is not None:
            row = reference.by_prompt.iloc[index]
            answers.append(Answer(tuple(row["answer_ids"]), row["answer"], row["answer_source"]))
        elif prompt.answer is not None:
            answers.append(Answer(answer_tokens(loaded, prompt.answer), prompt.answer, GIVEN))
        else:
            report(index, len(prompts), "writing reference answers with the dense model")
            tokens = _generate(loaded, loaded.model, prompt, MAX_NEW_TOKENS)
            answers.append(Answer(tuple(tokens), decode(loaded, tokens), RESPONSE))
    return answers


@torch.inference_mode()
def _log_probs(work: Prepared, model: Any, batch_size: int, report: Progress, message: str) -> tuple[np.ndarray, ...]:
    """Return for each prompt the (answer_tokens, vocabulary) float32 log-probabilities at its answer positions."""
    encoded = work.encoded
    found: dict[int, np.ndarray] = {}
    report(0, len(encoded), message)
    for indices in batches(encoded, batch_size):
        items = [encoded[index] for index in indices]
        for index, logits in zip(indices, answer_logits(work.loaded, model, items), strict=True):
            found[index] = logits.float().log_softmax(dim=-1).cpu().numpy()
        report(len(found), len(encoded), message)
    return tuple(found[index] for index in range(len(encoded)))


def answer_logits(loaded: LoadedModel, model: Any, items: Sequence[Encoded]) -> list[torch.Tensor]:
    """Return for each item the logits (answer_tokens, vocabulary) that predict its answer tokens, from one batched pass.

    The head runs at those positions only, where the model's forward takes `logits_to_keep`.
    """
    batch = collate(items, pad_token(loaded))
    wanted = [range(item.n_prompt_tokens - 1, item.n_tokens - 1) for item in items]
    positions = sorted(set().union(*wanted))
    width = batch["input_ids"].shape[1]
    takes = takes_logits_to_keep(model)
    keep = {"logits_to_keep": torch.tensor(positions, device=loaded.device)} if takes else {}
    logits = model(**batch, **keep, use_cache=False).logits
    if logits.shape[1] == width:  # some models take the argument and ignore it
        place = {position: position for position in positions}
    elif logits.shape[1] == len(positions):
        place = {position: index for index, position in enumerate(positions)}
    else:
        raise EvaluationError(f"{loaded.name} returned {logits.shape[1]} logits: expected {len(positions)} or {width}.")
    return [logits[row, [place[position] for position in spots]] for row, spots in enumerate(wanted)]


@torch.inference_mode()
def _generate(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int) -> list[int]:
    encoded = encode(loaded, prompt)
    tokens = model.generate(
        **encoded.tensors, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad_token(loaded)
    )
    return tokens[0, encoded.n_prompt_tokens :].tolist()


def decode(loaded: LoadedModel, tokens: list[int]) -> str:
    """Return the text of generated tokens, without special ones."""
    text: str = loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return text.strip()
