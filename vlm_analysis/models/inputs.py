"""Make the tensors of one forward pass from a Prompt, with every token's group.

The chat template of the model's own processor renders the prompt, its images first or where the question's marks put them; a reference
answer is appended token by token as generation would append it, so that one pass scores it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import torch

from vlm_analysis.errors import ModelError, PromptError, short
from vlm_analysis.guard.child import ChildError, no_panic
from vlm_analysis.models.asking import found_special, in_one_text, render
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.memory import is_out_of_memory
from vlm_analysis.models.refused import OF_THE_MODEL
from vlm_analysis.models.vision import vision_tokens
from vlm_analysis.progress import Progress, no_progress
from vlm_analysis.prompts.places import order_of, texts_of
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.words import TOKEN_GROUPS

VISION, TEXT, ANSWER = 0, 1, 2
_ZERO_OVER_ANSWER = (
    "mm_token_type_ids",
)  # generation extends these with zeros, other per-token inputs with their last value
_SUFFIX_TYPES = ("paligemma",)  # token type 0 is a prompt with full attention, 1 an answer with causal attention
_PER_TOKEN = (
    "cross_attention_mask",
)  # (1, n_tokens, …); every other input of three dimensions or more belongs to an image
_ALONE = ("target_sizes",)  # from processors that pack the patches of all images into one row, which rules out batches


@dataclass(frozen=True, eq=False)
class Encoded:
    """One prompt as a batch of one.

    Attributes:
        tensors: the model's inputs; per-token ones are (1, n_tokens) and cover the answer.
        kinds: (n_tokens,) VISION, TEXT or ANSWER.
        answer_ids: the answer's tokens and one end token; empty without an answer.
        n_images: images of the prompt.
        id: of the prompt, for messages.
    """

    tensors: dict[str, torch.Tensor]
    kinds: np.ndarray
    answer_ids: tuple[int, ...]
    n_images: int = 1
    id: str = ""

    @property
    def n_tokens(self) -> int:
        return len(self.kinds)

    @property
    def n_prompt_tokens(self) -> int:
        return self.n_tokens - len(self.answer_ids)

    def group_mask(self) -> np.ndarray:
        """Return the (5, n_tokens) membership of each token in the groups of `TOKEN_GROUPS`."""
        vision, text, answer = (self.kinds == kind for kind in (VISION, TEXT, ANSWER))
        last = np.arange(self.n_tokens) == self.n_prompt_tokens - 1
        members = {"vision": vision, "text": text, "answer": answer, "last": last, "all": vision | text}
        return np.stack([members[group] for group in TOKEN_GROUPS])

    def token_counts(self) -> dict[str, int]:
        """Return the number of tokens in each of `TOKEN_GROUPS`."""
        return dict(zip(TOKEN_GROUPS, self.group_mask().sum(axis=1).tolist(), strict=True))


def render_prompt(loaded: LoadedModel, prompt: Prompt) -> str:
    """Return the prompt's text as the model's chat template writes it, ready for the answer.

    Without a template (base models, PaliGemma, BLIP-2) it is one image token per image, if the processor has one, and then the
    question, unchanged, or the tokens where its marks stand (our choice). Templates that write images first do so whatever the marks say.

    Raises:
        PromptError: the question holds one of the model's special tokens, or the chat template fails or leaves out a part of it.
    """
    texts = texts_of(prompt.parts)
    for text in dict.fromkeys([*texts, "".join(texts)]):  # a template that writes images first may join them
        _refuse_special_tokens(loaded, text, f"Prompt {prompt.id!r} cannot be asked: its question")
    if loaded.template is None:
        return in_one_text(loaded.processor, prompt.parts)
    try:
        rendered = render(loaded.processor, loaded.template, [("user", prompt.parts)], open_answer=True)
    except (ChildError, ValueError) as error:
        raise PromptError(
            f"Prompt {prompt.id!r} cannot be asked: the chat template of {loaded.name} failed: {short(error).rstrip('.')}. Take it out, or "
            "use another checkpoint."
        ) from error
    lost = next((text for text in texts[1:] if text.strip() not in rendered), None)
    if lost is not None:
        raise PromptError(
            f"Prompt {prompt.id!r} cannot be asked: expected all texts between its pictures, got none for {short(repr(lost), 60)} from the "
            f"chat template of {loaded.name}. Take the marks of pictures out of its question."
        )
    return rendered


def _refuse_special_tokens(loaded: LoadedModel, text: str, what: str) -> None:
    token = found_special(loaded.processor, loaded.special_tokens, text)
    if token is not None:
        raise PromptError(f"{what} holds the special token {token!r}. Reword it.")


def encode(loaded: LoadedModel, prompt: Prompt, answer_ids: Sequence[int] = ()) -> Encoded:
    """Return the model inputs of one prompt, with the tokens of an answer appended (see `answer_tokens`).

    Raises:
        PromptError: an image cannot be read, the question holds a special token, the processor refuses the prompt, or it is longer than
            the model's context.
        ModelError: the processor does not belong to the model.
    """
    text = render_prompt(loaded, prompt)
    images = _loaded_images(prompt)
    try:
        with no_panic():
            output = loaded.processor(text=[text], images=images, return_tensors="pt")
    except OF_THE_MODEL as error:
        if is_out_of_memory(error):
            raise
        raise PromptError(
            f"Prompt {prompt.id!r} cannot be prepared for {loaded.name}: {short(error).rstrip('.')}. Images: "
            f"{short([image.size for image in images])} (width, height). Take it out or change its images; if every prompt fails so, the "
            "checkpoint's processor files are incomplete."
        ) from error
    tensors = {name: _placed(value, loaded) for name, value in output.items() if torch.is_tensor(value)}
    tensors.pop(
        "labels", None
    )  # from PaliGemma's processor; with them a forward computes a loss over logits that are not returned
    n_prompt = tensors["input_ids"].shape[1]
    answer_ids = tuple(answer_ids)
    _check_length(loaded, prompt, n_prompt, len(answer_ids))
    kinds = np.full(n_prompt + len(answer_ids), TEXT, dtype=np.int8)
    is_vision = _is_vision(loaded, tensors)
    if images and not is_vision.any():
        raise ModelError(
            f"The processor of {loaded.name} put no image tokens into prompt {prompt.id!r}, so the model would not see its images: "
            "expected the token that its configuration names. Use the processor that belongs to the checkpoint."
        )
    kinds[:n_prompt][is_vision] = VISION
    kinds[n_prompt:] = ANSWER
    if answer_ids:
        tensors = {name: _extended(name, value, n_prompt, answer_ids) for name, value in tensors.items()}
        if loaded.model.config.model_type in _SUFFIX_TYPES and "token_type_ids" in tensors:
            tensors["token_type_ids"][:, n_prompt:] = 1
    return Encoded(tensors, kinds, answer_ids, len(images), str(prompt.id))


def _check_length(loaded: LoadedModel, prompt: Prompt, n_prompt: int, n_answer: int) -> None:
    most = loaded.context_length
    if most is not None and n_prompt + n_answer > most:
        answer = f" and {n_answer} of its answer" if n_answer else ""
        raise PromptError(
            f"Prompt {prompt.id!r} is longer than the context of {loaded.name}: expected at most {most:,} tokens, got {n_prompt:,}"
            f"{answer}. Shorten its text, or load the model with fewer vision tokens an image."
        )


def _loaded_images(prompt: Prompt) -> list[Any]:
    try:
        images = prompt.load_images()
    except PromptError as error:
        raise PromptError(f"Prompt {prompt.id!r} cannot be asked: {error}") from error
    return [images[place] for place in order_of(prompt.parts)]


def answer_tokens(loaded: LoadedModel, answer: str | None, prompt: str | None = None) -> tuple[int, ...]:
    """Return the tokens of a reference answer and one end token; () for None.

    Raises:
        PromptError: the answer holds one of the model's special tokens; it names `prompt`, its id.
    """
    if answer is None:
        return ()
    what = "An answer cannot be scored: it" if prompt is None else f"Prompt {prompt!r} cannot be scored: its answer"
    _refuse_special_tokens(loaded, answer, what)
    ids = loaded.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    return (*ids, loaded.end_tokens[0])


def collate(items: Sequence[Encoded], pad_token: int) -> dict[str, torch.Tensor]:
    """Return one batch, padded on the right: under causal attention no token attends to the padding."""
    longest = max(item.n_tokens for item in items)
    batch = {}
    for name in items[0].tensors:
        values = [item.tensors[name] for item in items]
        if all(_is_per_token(name, value, item.n_tokens) for value, item in zip(values, items, strict=True)):
            fill = pad_token if name == "input_ids" else 0
            after = [0] * (2 * (values[0].ndim - 2))
            values = [
                torch.nn.functional.pad(value, (*after, 0, longest - value.shape[1]), value=fill) for value in values
            ]
        batch[name] = torch.cat(values)
    return batch


@dataclass(frozen=True)
class Shape:
    """The length of a prompt with its answer, and what must be equal to join it with others in a batch."""

    n_tokens: int
    joins: tuple[tuple[Any, ...], ...]
    alone: bool


def shape_of(item: Encoded) -> Shape:
    """Return the shape of an encoded prompt."""
    joins = tuple(
        (name, *value.shape[2 if name in _PER_TOKEN else 1 :])
        for name, value in item.tensors.items()
        if value.ndim > 2 or not _is_per_token(name, value, item.n_tokens)
    )
    return Shape(item.n_tokens, joins, any(name in _ALONE for name in item.tensors))


class EncodedPrompts(Sequence[Encoded]):
    """Prompts with their answers, each encoded once; those beyond `max_bytes` are encoded again at every access.

    Args:
        pairs: a prompt and the tokens of its answer, or None for a place that is left out.

    Attributes:
        shapes: of all prompts, to make batches without encoding again; None for those that are left out.
        refused: by their place, why the model cannot take the others of these.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        pairs: Sequence[tuple[Prompt, tuple[int, ...]] | None],
        *,
        max_bytes: int,
        on_progress: Progress = no_progress,
    ) -> None:
        self._loaded, self._pairs = loaded, tuple(pairs)
        self._items: dict[int, Encoded] = {}
        self.refused: dict[int, str] = {}
        shapes: list[Shape | None] = [None] * len(self._pairs)
        room = max_bytes
        for index, pair in enumerate(self._pairs):
            on_progress(index, len(self._pairs), "preparing the prompts")
            if pair is None:
                continue
            try:
                item = encode(loaded, *pair)
            except PromptError as error:
                self.refused[index] = str(error)
                continue
            shapes[index] = shape_of(item)
            size = item.kinds.nbytes + sum(value.nbytes for value in item.tensors.values())
            if size <= room:
                self._items[index] = item
                room -= size
        self.shapes = tuple(shapes)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Encoded, ...]: ...
    def __getitem__(self, index: int | slice) -> Encoded | tuple[Encoded, ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        number = range(len(self))[index]
        if number in self._items:
            return self._items[number]
        pair = self._pairs[number]
        assert pair is not None  # a place that is left out is in no batch
        return encode(self._loaded, *pair)

    def __len__(self) -> int:
        return len(self._pairs)


def batches(items: Sequence[Encoded], batch_size: int) -> Iterator[list[int]]:
    """Yield the indices of each batch: prompts of similar length whose image tensors can be joined; those left out are in none."""
    if batch_size < 1:
        raise PromptError(f"A batch needs at least one prompt, got batch_size={batch_size}.")

    all_shapes = items.shapes if isinstance(items, EncodedPrompts) else [shape_of(item) for item in items]
    shapes = {index: shape for index, shape in enumerate(all_shapes) if shape is not None}
    joinable = {index: ((index,) if shape.alone else ()) + shape.joins for index, shape in shapes.items()}
    order = sorted(shapes, key=lambda index: (str(joinable[index]), shapes[index].n_tokens, index))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == batch_size or joinable[index] != joinable[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def image_grids(item: Encoded, loaded: LoadedModel) -> tuple[tuple[int, int, int], ...]:
    """Return (first token, rows, columns) of the vision tokens of each image, where they lie on a known grid.

    From the processor's grid if it returns one, else from the runs of vision tokens: a run of a square number is a square; of an
    image cut into tiles the last run is used, which shows the whole image. Empty where the grid is unknown.
    """
    starts = np.flatnonzero(np.diff(np.concatenate([[0], item.kinds == VISION]).astype(np.int8)) == 1)
    ends = np.flatnonzero(np.diff(np.concatenate([item.kinds == VISION, [0]]).astype(np.int8)) == -1) + 1
    merge = getattr(getattr(loaded.processor, "image_processor", None), "merge_size", None)
    if "image_grid_thw" in item.tensors and merge:
        sides = [
            (int(rows) // merge, int(columns) // merge) for _, rows, columns in item.tensors["image_grid_thw"].tolist()
        ]
    else:
        runs = ends - starts
        if item.n_images == 1:
            starts, runs = starts[-1:], runs[-1:]
        sides = [(math.isqrt(run), math.isqrt(run)) for run in runs.tolist()]
        ends = starts + runs
    if len(sides) != len(starts) or [rows * columns for rows, columns in sides] != (ends - starts).tolist():
        return ()
    return tuple((int(first), rows, columns) for first, (rows, columns) in zip(starts, sides, strict=True))


def takes_logits_to_keep(model: Any) -> bool:
    """Return whether the model's forward can compute only some of the logits."""
    own = vars(model).get("forward")  # accelerate's, which tells of the one below it
    return _takes_logits_to_keep(type(model)) if own is None else "logits_to_keep" in inspect.signature(own).parameters


@functools.cache
def _takes_logits_to_keep(kind: type) -> bool:
    return "logits_to_keep" in inspect.signature(kind.forward).parameters  # type: ignore[attr-defined]


def pad_token(loaded: LoadedModel) -> int:
    """Return a token to pad with; it is masked out, so any token works where the tokenizer names none."""
    token = loaded.processor.tokenizer.pad_token_id
    return 0 if token is None else int(token)


def _placed(value: torch.Tensor, loaded: LoadedModel) -> torch.Tensor:
    return value.to(loaded.device, loaded.model.dtype) if value.is_floating_point() else value.to(loaded.device)


def _is_per_token(name: str, value: torch.Tensor, n_tokens: int) -> bool:
    return (value.ndim == 2 or name in _PER_TOKEN) and tuple(value.shape[:2]) == (1, n_tokens)


def _is_vision(loaded: LoadedModel, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    """Return which prompt tokens receive image features (bool)."""
    found = vision_tokens(loaded.model.config, tensors)
    if found is None:
        raise ModelError(
            f"{loaded.name}: no image token in its configuration, so vision tokens cannot be told from text."
        )
    return found[0].cpu().numpy()


def _extended(name: str, value: torch.Tensor, n_prompt: int, answer_ids: tuple[int, ...]) -> torch.Tensor:
    if not _is_per_token(name, value, n_prompt):
        return value
    if name == "input_ids":
        tail = value.new_tensor([answer_ids])
    elif name in _ZERO_OVER_ANSWER:
        tail = value.new_zeros(1, len(answer_ids))
    else:
        tail = value[:, -1:].expand(1, len(answer_ids), *value.shape[2:])
    return torch.cat([value, tail], dim=1)
