"""Plain greedy decoding: at each step the most likely token, whatever a checkpoint's generation settings say.

Exact match and the dense reference stand for what a model writes this way, so everything that is written is written this way: sampling,
beams, penalties, forced, suppressed and least numbers of tokens of a checkpoint are left out. That is our choice; its end tokens count.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from vlm_analysis.models.inputs import encode, pad_token
from vlm_analysis.models.interrupt import interruptible
from vlm_analysis.models.load import LoadedModel
from vlm_analysis.prompts.prompts import Prompt

MAX_NEW_TOKENS = 64
# The generation settings that say how, not what a model writes; and its end tokens. Names that transformers does not know stay too.
_KEPT = (
    *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"),
    *("use_cache", "cache_implementation", "cache_config", "compile_config", "disable_compile", "prefill_chunk_size"),
)
_PLACEHOLDER = re.compile("(image|video|audio)_token_(id|index)")


@contextmanager
def plain_greedy(model: Any) -> Iterator[None]:
    """Let `generate` of a model decode greedily and nothing else; its own settings come back afterwards."""
    own, plain = model.generation_config, GenerationConfig()
    for name, value in vars(own).items():
        if name in _KEPT or name not in vars(plain):
            setattr(plain, name, copy.deepcopy(value))
    model.generation_config = plain
    try:
        yield
    finally:
        model.generation_config = own


@torch.inference_mode()
def greedy_ids(loaded: LoadedModel, model: Any, prompt: Prompt, max_new_tokens: int) -> list[int]:
    """Return the tokens that a model, dense or pruned, answers one prompt with, decoded greedily; with its end token, unless cut."""
    encoded = encode(loaded, prompt)
    with interruptible(model), plain_greedy(model):
        tokens = model.generate(
            **encoded.tensors, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad_token(loaded)
        )
    return tokens[0, encoded.n_prompt_tokens :].tolist()


def before_placeholder(loaded: LoadedModel, tokens: Sequence[int]) -> tuple[int, ...]:
    """Return a response up to its first placeholder of an image, which a model may write but cannot be given without the image."""
    config = loaded.model.config
    names = [name for name in vars(config) if _PLACEHOLDER.fullmatch(name)]
    placeholders = {getattr(config, name) for name in names}
    end = next((place for place, token in enumerate(tokens) if token in placeholders), len(tokens))
    return tuple(tokens[:end])


def decode(loaded: LoadedModel, tokens: Sequence[int]) -> str:
    """Return the text of generated tokens, without special ones."""
    text: str = loaded.processor.tokenizer.decode(list(tokens), skip_special_tokens=True)
    return text.strip()
