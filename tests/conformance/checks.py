"""What pruning must do on every class, each check against an oracle of its own.

The oracle of a pruned model is the dense model in which the dropped layers run but hand on what they were given: a hook
puts their input where their output was. So it shares no code with the view.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, ProcessorMixin

from vlm_analysis import Edit, LoadedModel, PruneMask
from vlm_analysis.models.layers import find_decoder_layers, locked_layers, protected_layers
from vlm_analysis.models.weights import aligned

N_TOKENS, N_NEW = 13, 8
WORDS = range(3, 100)  # tokens beside them end a text or mean an image; a random model must not write them

Inputs = dict[str, torch.Tensor]


def text_inputs(kind: str = "") -> Inputs:
    """Return a prompt of ordinary tokens, longer than the tiny models' windows and chunks.

    The classes of the BLIP family and Kosmos-2 do not run without an image; they get noise for one.
    """
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 100, (1, N_TOKENS), generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind not in ("blip", "blip-2", "instructblip", "instructblipvideo", "kosmos-2"):
        return inputs
    inputs["pixel_values"] = torch.rand(1, 3, 32, 32, generator=generator)
    if kind == "kosmos-2":
        inputs["image_embeds_position_mask"] = (torch.arange(N_TOKENS) < 4).long()[None]
    elif kind != "blip":
        ids[0, :4] = 150
    if kind.startswith("instruct"):
        inputs["qformer_input_ids"] = torch.arange(3, 9)[None]
        inputs["qformer_attention_mask"] = torch.ones(1, 6, dtype=torch.long)
    if kind == "instructblipvideo":
        inputs["pixel_values"] = inputs["pixel_values"][None]
    return inputs


@torch.no_grad()
def logits(model: Any, inputs: Inputs) -> torch.Tensor:
    """Return the logits of every position."""
    return model(**inputs, use_cache=False).logits


@contextlib.contextmanager
def skipped(layers: nn.ModuleList, dropped: Sequence[int]) -> Iterator[None]:
    """Inside, the dropped layers hand on their input; blocks of layers that a model counts by position are counted anew."""

    def hand_on(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    hooks = [layers[index].register_forward_hook(hand_on, with_kwargs=True) for index in dropped]
    starts = [getattr(layer, "is_block_boundary", None) for layer in layers]
    _count_blocks(layers, starts, dropped)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _restore_blocks(layers, starts)


def _count_blocks(layers: nn.ModuleList, starts: Sequence[bool | None], dropped: Sequence[int]) -> None:
    """Let the n-th layer that stays begin a block where the n-th layer of all began one."""
    if None in starts:
        return
    kept = [index for index in range(len(layers)) if index not in dropped]
    for index in range(len(layers)):
        layers[index].is_block_boundary = starts[kept.index(index)] if index in kept else False


def _restore_blocks(layers: nn.ModuleList, starts: Sequence[bool | None]) -> None:
    for layer, start in zip(layers, starts, strict=True):
        if start is not None:
            layer.is_block_boundary = start


def masks(model: Any) -> list[Edit]:
    """Return a mask without one, and one without two of the layers that nothing speaks for."""
    n_layers = len(find_decoder_layers(model))
    risky = locked_layers(model).keys() | protected_layers(model).keys()
    free = [index for index in range(n_layers) if index not in risky]
    return [PruneMask(n_layers, tuple(chosen)) for chosen in (free[:1], free[1:3] or free[:1])]


def cached(model: Any, inputs: Inputs) -> list[int]:
    """Return the tokens `generate` writes greedily."""
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    length = {"max_new_tokens": N_NEW, "min_new_tokens": N_NEW}
    tokens = model.generate(**inputs, **length, do_sample=False, suppress_tokens=[0, 1, 2, *range(WORDS.stop, 400)])
    return tokens[0, -N_NEW:].tolist()


def uncached(model: Any, inputs: Inputs) -> list[int]:
    """Return the tokens of greedy decoding with the whole sequence run anew for each."""
    inputs = dict(inputs)
    for _ in range(N_NEW):
        token = logits(model, inputs)[:, -1, WORDS.start : WORDS.stop].argmax(-1, keepdim=True) + WORDS.start
        suffix = model.config.model_type == "paligemma"  # where tokens of type 0 are a prompt that sees what follows
        inputs = {name: _longer(name, value, token, inputs, suffix=suffix) for name, value in inputs.items()}
    return inputs["input_ids"][0, -N_NEW:].tolist()


def _longer(name: str, value: torch.Tensor, token: torch.Tensor, inputs: Inputs, *, suffix: bool) -> torch.Tensor:
    if name == "cross_attention_mask":
        return torch.cat([value, value[:, -1:]], dim=1)
    if value.shape != inputs["input_ids"].shape or name.startswith("pixel"):
        return value
    ones, zeros = torch.ones_like(token), torch.zeros_like(token)
    kinds = ones if suffix else zeros
    tail = {"input_ids": token, "attention_mask": ones, "token_type_ids": kinds}.get(name, zeros)
    return torch.cat([value, tail.to(value.dtype)], dim=1)


def loaded_as(model: Any, processor: Any, source: Path) -> LoadedModel:
    """Return a tiny model as `load_model` would, from a folder that holds the processor's files."""
    whole = isinstance(processor, ProcessorMixin)  # one class copies a font of its video part besides
    ProcessorMixin.save_pretrained(processor, source) if whole else processor.save_pretrained(source)
    return LoadedModel(model, _WithTokenizer(processor), model.config.model_type, str(source))


class _WithTokenizer:
    """A processor; where a class has none that can be built here, the tokenizer alone."""

    def __init__(self, processor: Any) -> None:
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.image_processor = getattr(processor, "image_processor", None)
        self.chat_template = getattr(processor, "chat_template", None)


def reloaded(folder: Path, config: Any) -> Any:
    """Return the model that plain transformers makes of an exported folder; no weight may be missing or left over.

    Its weights are moved to aligned memory, as the view's are: where in the file they lie decides the last bits on a CPU.
    """
    auto = (
        AutoModelForImageTextToText
        if type(config) in AutoModelForImageTextToText._model_mapping
        else AutoModelForCausalLM
    )
    fresh, notes = auto.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {name: sorted(map(str, found)) for name, found in notes.items() if found}
    assert not problems, problems
    return aligned(fresh.eval())
