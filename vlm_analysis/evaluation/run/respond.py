"""Responses of the dense and the pruned model to one prompt, token by token, and their divergence at each token.

`generate` prepares the decoding (end tokens, cache) and returns it as a generator of tokens; two of these can take turns. A model with
its own `generate` cannot take turns: it writes its whole response at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from transformers import GenerationMixin

from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.run.metrics import kl_of_tokens
from vlm_analysis.evaluation.run.prepared import answer_logits
from vlm_analysis.models.decoding import MAX_NEW_TOKENS, before_placeholder, decode, greedy_ids, plain_greedy, room
from vlm_analysis.models.inputs import encode, pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming
from vlm_analysis.prompts.prompts import Prompt

HALF_CHARACTER = "\ufffd"
_OWN_LOOP = ("generate", "_sample")  # a model class that overrides one of these does not decode by the loop below


@dataclass(frozen=True)
class PartialResponse:
    """The response of one model so far; `ids` include the end token once it is written."""

    text: str = ""
    ids: tuple[int, ...] = ()
    ended: bool = False


@dataclass(frozen=True)
class Step:
    """The responses of both models after one more token each; one that has ended does not change."""

    dense: PartialResponse
    pruned: PartialResponse


@dataclass(frozen=True, eq=False)
class Divergence:
    """How the pruned model diverges from the dense response at each of its tokens, with the dense response fed in.

    Attributes:
        tokens: the text of each token.
        kl: (n_tokens,) KL(dense ‖ pruned) of the next-token distributions in nats; NaN where a model gives no finite number.
        differs: (n_tokens,) bool, where the first choices of the two models are different tokens.
    """

    tokens: tuple[str, ...]
    kl: np.ndarray
    differs: np.ndarray

    @property
    def first(self) -> int | None:
        """Return the first position (from 0) at which the first choices differ; None where they never do."""
        positions = np.flatnonzero(self.differs)
        return int(positions[0]) if len(positions) else None


def stream_both(
    loaded: LoadedModel, prompt: Prompt, edit: Edit, *, max_new_tokens: int = MAX_NEW_TOKENS
) -> Iterator[Step]:
    """Yield the responses of the dense and the pruned model after each token; the last texts are those of `respond`.

    An unfinished text leaves out a last character whose bytes are incomplete. Between two steps both models are in their ordinary state:
    no hook is in place, and inference mode is off.

    Raises:
        Cancelled: raised by `stop_if_asked`, before a layer.
        EditError: the edit does not fit the model.
        PromptError: a prompt that this model cannot take.
    """
    pruned_model = apply_edit(loaded.model, edit)
    dense, pruned = PartialResponse(), PartialResponse()
    turns = (_responses(loaded, model, prompt, max_new_tokens) for model in (loaded.model, pruned_model))
    for new_dense, new_pruned in zip_longest(*turns):
        dense, pruned = new_dense or dense, new_pruned or pruned
        yield Step(dense, pruned)


def compare_responses(loaded: LoadedModel, prompt: Prompt, edit: Edit, dense_ids: Sequence[int]) -> Divergence:
    """Return how the pruned model diverges from the dense response, from one pass of each model over it.

    Up to the first difference both would write the same, so their responses diverge there.

    Args:
        dense_ids: the tokens of the dense response, its end token included if it was written (`PartialResponse.ids`). They are
            compared up to the first image placeholder, which the models cannot take.

    Raises:
        Cancelled, MaskError, PromptError: as `stream_both`.
    """
    dense_ids = before_placeholder(loaded, dense_ids)
    if not dense_ids:
        return Divergence((), np.zeros(0), np.zeros(0, dtype=bool))
    encoded = encode(loaded, prompt, dense_ids)
    with torch.inference_mode():
        dense, pruned = (
            answer_logits(loaded, model, [encoded])[0].float().log_softmax(dim=-1).cpu().numpy().astype(np.float64)
            for model in (loaded.model, apply_edit(loaded.model, edit))
        )
    kl = kl_of_tokens(dense, pruned)
    broken = np.isnan(dense).any(axis=1) | np.isnan(pruned).any(axis=1)  # an argmax over NaN is not a choice
    differs = (dense.argmax(axis=1) != pruned.argmax(axis=1)) | broken
    tokens = tuple(loaded.processor.tokenizer.decode([token]) for token in dense_ids)
    return Divergence(tokens, np.where(broken, np.nan, np.maximum(kl, 0.0)), differs)


def _responses(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int) -> Iterator[PartialResponse]:
    """Yield the response of a model after each token; only once, at the end, where its decoding has no steps."""
    with naming([str(prompt.id)], loaded.name):
        tokens = _tokens(loaded, model, prompt, max_new_tokens)
        if tokens is None:
            all_ids = greedy_ids(loaded, model, prompt, max_new_tokens)
            yield PartialResponse(decode(loaded, all_ids), tuple(all_ids), ended=True)
            return
        ids: list[int] = []
        for token, ended in tokens:
            ids.append(token)
            text = decode(loaded, ids)
            yield PartialResponse(text if ended else text.rstrip(HALF_CHARACTER).rstrip(), tuple(ids), ended)


@torch.inference_mode()
def _tokens(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int) -> Iterator[tuple[int, bool]] | None:
    """Return the tokens that `generate` would write, each with whether it is the last; None where only `generate` can write them."""
    own_loop = any(getattr(type(model), name) is not getattr(GenerationMixin, name) for name in _OWN_LOOP)
    if own_loop or model.config.is_encoder_decoder:
        return None
    encoded = encode(loaded, prompt)
    with interruptible(model), plain_greedy(model, loaded.end_tokens):
        tokens: Iterator[tuple[int, bool]] | None = model.generate(
            **encoded.tensors,
            max_new_tokens=room(loaded, encoded.n_prompt_tokens, max_new_tokens),
            do_sample=False,
            pad_token_id=pad_token(loaded),
            custom_generate=_plain_greedy,
        )
    return tokens


def _plain_greedy(
    model: Any, input_ids: torch.Tensor, generation_config: Any, **prepared: Any
) -> Iterator[tuple[int, bool]] | None:
    """Return the decoding that `generate` prepared, not started; None where it runs compiled."""
    if model._valid_auto_compile_criteria(prepared, generation_config):
        return None
    return _decoding(model, input_ids, generation_config, **prepared)


@torch.inference_mode()
def _decoding(
    model: Any,
    input_ids: torch.Tensor,
    generation_config: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    **model_kwargs: Any,
) -> Iterator[tuple[int, bool]]:
    """Yield the token of each step and whether it is the last: the loop of `GenerationMixin._sample` for one prompt."""
    with interruptible(model):
        outputs = model._prefill(input_ids, generation_config, model_kwargs)
    while True:
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder=False)
        logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
        token = logits_processor(input_ids, logits).argmax(dim=-1)
        del outputs, logits  # those of the prompt's pass may be large
        input_ids = torch.cat([input_ids, token[:, None]], dim=-1)
        ended = bool(stopping_criteria(input_ids, None).all())
        yield int(token), ended
        if ended:
            return
        length = 1 if model_kwargs["use_cache"] else None
        inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=length, **model_kwargs)
        with interruptible(model), model._optimize_model_for_decode():
            outputs = model(**inputs, return_dict=True)
