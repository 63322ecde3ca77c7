"""Plain greedy decoding: the most likely token at each step, independent of a checkpoint's generation settings.

Exact match and the dense reference are defined by this decoding, so all text is written this way. A checkpoint's sampling, beams,
penalties, forced and suppressed tokens and minimum lengths are ignored (our choice); its end tokens are used.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from transformers import GenerationConfig

from vlm_analysis.models.inputs import encode, pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.models.refused import naming
from vlm_analysis.prompts.prompts import Prompt

MAX_NEW_TOKENS = 64
# The generation settings that do not change the text, and the end tokens. Settings that transformers does not know are copied too.
_SETTINGS = (
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile", "prefill_chunk_size"),
)
_PLACEHOLDER = re.compile("(image|video|audio)_token_(id|index)")


@contextmanager
def plain_greedy(model: Any, ends: Sequence[int] = ()) -> Iterator[None]:
    """Make `generate` of a model decode plainly and greedily until one of its end tokens or of `ends`; its settings come back."""
    own, plain = model.generation_config, GenerationConfig()
    for name, value in vars(own).items():
        if name in _SETTINGS or name not in vars(plain):
            setattr(plain, name, copy.deepcopy(value))
    if ends:
        own_ends = plain.eos_token_id if isinstance(plain.eos_token_id, (list, tuple)) else [plain.eos_token_id]
        plain.eos_token_id = list(dict.fromkeys(end for end in (*own_ends, *ends) if end is not None))
    model.generation_config = plain
    try:
        yield
    finally:
        model.generation_config = own


@torch.inference_mode()
def greedy_ids(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int) -> list[int]:
    """Return the tokens of a model's response to one prompt, decoded greedily, with its end token unless cut.

    It is cut too where the context ends.
    """
    encoded = encode(loaded, prompt)
    most = room(loaded, encoded.n_prompt_tokens, max_new_tokens)
    with naming([encoded.id], loaded.name), interruptible(model), plain_greedy(model, loaded.end_tokens):
        tokens = model.generate(**encoded.tensors, max_new_tokens=most, do_sample=False, pad_token_id=pad_token(loaded))
    return tokens[0, encoded.n_prompt_tokens :].tolist()


def greedy_text(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int = MAX_NEW_TOKENS) -> str:
    """Return the text of a model's response to one prompt, decoded greedily (see `greedy_ids`)."""
    return decode(loaded, greedy_ids(loaded, model, prompt, max_new_tokens))


def room(loaded: LoadedModel, n_prompt_tokens: int, max_new_tokens: int) -> int:
    """Return how many tokens a response may have: `max_new_tokens`, or as many as the context has room for, one at least."""
    if loaded.context_length is None:
        return max_new_tokens
    return max(1, min(max_new_tokens, loaded.context_length - n_prompt_tokens))


def before_placeholder(loaded: LoadedModel, tokens: Sequence[int]) -> tuple[int, ...]:
    """Return a response up to its first image placeholder: a model may write one, but cannot take one without an image."""
    config = loaded.model.config
    names = [name for name in vars(config) if _PLACEHOLDER.fullmatch(name)]
    placeholders = {getattr(config, name) for name in names}
    end = next((index for index, token in enumerate(tokens) if token in placeholders), len(tokens))
    return tuple(tokens[:end])


def decode(loaded: LoadedModel, tokens: Sequence[int]) -> str:
    """Return the text of generated tokens, without special ones."""
    text: str = loaded.processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return text.strip()


def token_spans(loaded: LoadedModel, tokens: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each of these tokens where its part of their text (see `decode`) begins and ends; special tokens have an empty part.

    Read from texts of ever more tokens, as tokenizers without offsets have nothing else.
    """
    ends = [len(decode(loaded, tokens[:count])) for count in range(len(tokens) + 1)]
    return [(start, max(start, end)) for start, end in pairwise(ends)]
