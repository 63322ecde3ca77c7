"""Prompts made ready to be scored: encoded with the answers they are scored on. Those that the model refuses are set aside.

A prompt is refused by what reads its images, by the model's processor, or by the dense model's forward, which is known once it runs. It is
then left out of every batch as a whole, with its choices; the other prompts keep their batches, and so their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError, PromptError
from vlm_analysis.evaluation.choices import choice_scores
from vlm_analysis.evaluation.evaluation import Evaluation
from vlm_analysis.evaluation.run.metrics import answer_scores
from vlm_analysis.model_info import ModelInfo
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
from vlm_analysis.models.refused import naming, none_left
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.prompts import Prompt, PromptSet

MAX_ENCODED_BYTES = 1 << 30
GIVEN_ANSWER, DENSE_RESPONSE, DENSE_CHOICE, CHOICE = "given", "dense response", "dense choice", "choice"


@dataclass(frozen=True)
class Answer:
    """The answer that a prompt is scored on: its tokens, its text and its source."""

    ids: tuple[int, ...]
    text: str
    source: str


@dataclass(frozen=True, eq=False)
class Answered:
    """Prompts with the answers they are scored on: what the scores of their rows are told by, without the model.

    Attributes:
        info: of the model.
        answers: one row per prompt, then one for each further accepted answer, then one for each choice that is not its prompt's answer.
            Rows have the same numbers whichever prompts are refused.
        alternatives: for each prompt the row of each of its choices, in their order; () without choices.
        owners: for each row the index of its prompt.
        refused: by the index of a prompt, why it is set aside; `Prepared.refuse` adds to it.
        accepted: by the index of a prompt, the rows of its further accepted answers.
    """

    info: ModelInfo
    prompts: PromptSet
    answers: tuple[Answer, ...]
    alternatives: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    refused: dict[int, str] = field(default_factory=dict)
    accepted: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def n_compared(self) -> int:
        """Return how many rows are compared with the dense model: those of prompts and accepted answers, which come first."""
        return len(self.prompts) + sum(map(len, self.accepted.values()))

    @property
    def set_aside(self) -> dict[str, str]:
        """Return by id the prompts that are set aside, each with the reason: those that cannot be read, then those refused."""
        refused = {str(self.prompts[index].id): self.refused[index] for index in sorted(self.refused)}
        return dict(self.prompts.set_aside) | refused

    def scored(self, rows: Iterable[int]) -> list[int]:
        """Return those rows whose prompt is not set aside."""
        return [row for row in rows if self.owners[row] not in self.refused]

    def has_prompt(self, rows: Iterable[int]) -> bool:
        """Return whether a row among these is a prompt's own that is not set aside; rows behind the prompts are choices."""
        return any(row < len(self.prompts) for row in self.scored(rows))


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared(Answered):
    """Prompts encoded with the answers they are scored on; many edits share them.

    Attributes:
        encoded: a row for each of `answers`.
    """

    loaded: LoadedModel
    encoded: EncodedPrompts

    def batches(self, batch_size: int) -> Iterator[list[int]]:
        """Yield the rows of each batch, without prompts that are set aside by then."""
        for rows in batches(self.encoded, batch_size):
            if left := self.scored(rows):
                yield left

    def take_over(self, reference: Evaluation | None) -> None:
        """Set aside also the prompts that the dense evaluation lacks.

        Raises:
            PromptError: none is left.
        """
        if reference is not None:
            known = set(reference.by_prompt["id"])
            for index, prompt in enumerate(self.prompts):
                if prompt.id not in known:
                    self.refused.setdefault(index, _lacking(prompt, reference))
        if len(self.refused) == len(self.prompts):
            raise none_left(self.loaded.name, self.set_aside)

    @torch.inference_mode()
    def refuse(self, rows: Sequence[int], edit: Edit, error: PromptError) -> None:
        """Set aside the prompts of the rows that the dense model cannot run alone, after the edited model failed on all of them together.

        Raises:
            EvaluationError: the dense model runs each of them, so the edit is at fault, or what runs them together.
            PromptError: no prompt is left.
        """
        before = len(self.refused)
        for row in self.scored(rows):
            try:
                answer_logits(self.loaded, self.loaded.model, [self.encoded[row]])
            except PromptError as reason:
                self.refused.setdefault(self.owners[row], str(reason))
        if len(self.refused) == before:
            which = "in one batch" if edit.is_dense else f"by a model that {edit.words()}"
            raise EvaluationError(
                f"Prompts that {self.loaded.name} runs one by one cannot be run {which}. {error}"
            ) from error
        self.take_over(None)


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

    Raises:
        PromptError: the model can take none of the prompts.
    """
    progress, prompts = on_progress or no_progress, prompts.readable()
    answers, refused = _answers(loaded, prompts, reference, progress)
    pairs: list[tuple[Prompt, tuple[int, ...]] | None] = [
        None if index in refused else (prompt, answers[index].ids) for index, prompt in enumerate(prompts)
    ]
    owners, alternatives = list(range(len(prompts))), []

    def added(index: int, text: str, source: str) -> int:
        answers.append(_further(loaded, prompts[index], text, source, index, refused))
        pairs.append(None if index in refused else (prompts[index], answers[-1].ids))
        owners.append(index)
        return len(answers) - 1

    accepted = {
        index: tuple(added(index, text, GIVEN_ANSWER) for text in prompt.answers[1:])
        for index, prompt in enumerate(prompts)
        if prompt.answers
    }
    for index, prompt in enumerate(prompts):
        own = answers[index].text
        rows = [index if choice == own else added(index, choice, CHOICE) for choice in prompt.choices or ()]
        alternatives.append(tuple(rows))
    encoded = EncodedPrompts(loaded, pairs, max_bytes=max_bytes, on_progress=progress)
    for row, reason in encoded.refused.items():
        refused.setdefault(owners[row], reason)
    rows = tuple(answers), tuple(alternatives), tuple(owners), refused, accepted
    work = Prepared(loaded.info, prompts, *rows, loaded=loaded, encoded=encoded)
    work.take_over(reference)
    return work


def with_one_answer(prompt: Prompt) -> Prompt:
    """Return the prompt with what is learnt of it alone: its answer, else its choices, of which the dense model takes one."""
    return replace(prompt, answers=None, choices=prompt.choices if prompt.answer is None else None)


def _further(
    loaded: LoadedModel, prompt: Prompt, text: str, source: str, index: int, refused: dict[int, str]
) -> Answer:
    """Return a choice or a further accepted answer, without tokens where the prompt is refused, of which it may be the reason."""
    try:
        return Answer(() if index in refused else answer_tokens(loaded, text, prompt.id), text, source)
    except PromptError as error:
        refused[index] = str(error)
        return Answer((), text, source)


def _answers(
    loaded: LoadedModel, prompts: PromptSet, reference: Evaluation | None, progress: Progress
) -> tuple[list[Answer], dict[int, str]]:
    """Return each prompt's answer, and by index why prompts have none that can be scored; their answers have no tokens."""
    known = {} if reference is None else {row["id"]: row for row in reference.by_prompt.to_dict(orient="records")}
    answers, refused = [], {}
    for index, prompt in enumerate(prompts):
        try:
            if reference is not None and prompt.id not in known:
                raise PromptError(_lacking(prompt, reference))
            if reference is not None:
                row = known[prompt.id]
                answers.append(Answer(tuple(row["answer_ids"]), row["answer"], row["answer_source"]))
            else:
                if prompt.answer is None:
                    what = "writing" if prompt.choices is None else "choosing"
                    progress(index, len(prompts), f"{what} reference answers with the dense model")
                answers.append(_answer(loaded, prompt))
        except PromptError as error:
            refused[index] = str(error)
            answers.append(Answer((), prompt.answer or (prompt.choices or ("",))[0], GIVEN_ANSWER))
    return answers, refused


def _lacking(prompt: Prompt, reference: Evaluation) -> str:
    return reference.set_aside.get(
        str(prompt.id), f"Prompt {prompt.id!r} is not in the dense evaluation. Evaluate again."
    )


def _answer(loaded: LoadedModel, prompt: Prompt) -> Answer:
    """Return a prompt's answer, or the dense model's choice or response (with its end token, unless cut) where it has none.

    A response is cut before an image placeholder; where nothing is left, the answer is empty.
    """
    if prompt.answer is not None:
        return Answer(answer_tokens(loaded, prompt.answer, prompt.id), prompt.answer, GIVEN_ANSWER)
    if prompt.choices is not None:
        return _dense_choice(loaded, prompt, prompt.choices)
    response_ids = greedy_ids(loaded, loaded.model, prompt, MAX_NEW_TOKENS)
    tokens = before_placeholder(loaded, response_ids) or loaded.end_tokens[:1]
    return Answer(tokens, decode(loaded, tokens), DENSE_RESPONSE)


@torch.inference_mode()
def _dense_choice(loaded: LoadedModel, prompt: Prompt, choices: Sequence[str]) -> Answer:
    """Return the choice that the dense model finds most likely as the answer."""
    tokens = [answer_tokens(loaded, choice, prompt.id) for choice in choices]
    nlls = []
    for ids in tokens:
        (logits,) = answer_logits(loaded, loaded.model, [encode(loaded, prompt, ids)])
        nlls.append(answer_scores(logits.float().log_softmax(dim=-1).cpu().numpy(), None, ids)["answer_nll"])
    choice = choice_scores(choices, nlls, [len(ids) for ids in tokens], "")["choice"]
    if choice is None:
        raise PromptError(
            f"Prompt {prompt.id!r} has no answer, and {loaded.name} prefers none of its choices: expected likelihoods, got {nlls}. "
            "Give it an answer, or load the model in another precision."
        )
    return Answer(tokens[choices.index(choice)], choice, DENSE_CHOICE)


def answer_logits(loaded: LoadedModel, model: Any, items: Sequence[Encoded]) -> list[torch.Tensor]:
    """Return for each item the logits (answer_tokens, vocabulary) that predict its answer tokens, from one batched pass (see `Batch`)."""
    return list(Batch(loaded, items).logits(model))


class Batch:
    """Encoded prompts joined into one batch, which many models run."""

    def __init__(self, loaded: LoadedModel, items: Sequence[Encoded]) -> None:
        self._loaded, self._ids = loaded, [item.id for item in items]
        self._inputs = collate(items, pad_token(loaded))
        self._width = self._inputs["input_ids"].shape[1]
        self._spans = [range(item.n_prompt_tokens - 1, item.n_tokens - 1) for item in items]
        self._rows = torch.tensor([row for row, span in enumerate(self._spans) for _ in span], device=loaded.device)
        self._places = torch.tensor([place for span in self._spans for place in span], device=loaded.device)
        self._positions, self._among = self._places.unique(return_inverse=True)

    def logits(self, model: Any) -> tuple[torch.Tensor, ...]:
        """Return for each item the logits (answer_tokens, vocabulary) that predict its answer tokens, from one pass of a model.

        The head runs only at those positions if the model's forward takes `logits_to_keep`. All are parts of one tensor, in order.
        """
        keep = {"logits_to_keep": self._positions} if takes_logits_to_keep(model) else {}
        with naming(self._ids, self._loaded.name), interruptible(model):
            logits = model(**self._inputs, **keep, use_cache=False).logits
        if logits.shape[1] not in (self._width, len(self._positions)):
            raise EvaluationError(
                f"{self._loaded.name} returned {logits.shape[1]} logits: expected {len(self._positions)} or {self._width}."
            )
        whole = logits.shape[1] == self._width  # some models take the argument and ignore it
        found = logits[self._rows.to(logits.device), (self._places if whole else self._among).to(logits.device)]
        return found.split([len(span) for span in self._spans])
