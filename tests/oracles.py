"""Slow and plain ways to the numbers of the package, written apart from it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vlm_analysis import LoadedModel, Recording
from vlm_analysis.model_info import ModelInfo
from vlm_analysis.recording.measures import empty_rows
from vlm_analysis.words import TOKEN_GROUPS

END_TEXT = "<|im_end|>"
# Settings with which `generate` writes other tokens than the most likely ones.
SWERVING = {
    "do_sample": True,
    "temperature": 2.0,
    "num_beams": 3,
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 3.0,
    "min_new_tokens": 5,
    "suppress_tokens": [67, 69],
    "forced_eos_token_id": 9,
    "bad_words_ids": [[70]],
    "max_time": 0.0,
}


def ask(loaded: LoadedModel, prompt: Any, answer_ids: Sequence[int] = ()) -> dict[str, torch.Tensor]:
    """Return the inputs of one prompt, made with the processor alone and Qwen's chat form spelt out."""
    pictures = "<|vision_start|><|image_pad|><|vision_end|>" * len(prompt.images)
    text = f"<|im_start|>user\n{pictures}{prompt.question}<|im_end|>\n<|im_start|>assistant\n"
    made = dict(loaded.processor(text=[text], images=list(prompt.load_images()), return_tensors="pt"))
    tail = torch.tensor([list(answer_ids)], dtype=torch.long)
    made["input_ids"] = torch.cat([made["input_ids"], tail], dim=1)
    made["attention_mask"] = torch.ones_like(made["input_ids"])
    made["mm_token_type_ids"] = (made["input_ids"] == loaded.model.config.image_token_id).long()
    return made


def ids_of(loaded: LoadedModel, answer: str) -> list[int]:
    """Return the tokens of an answer and its end."""
    return loaded.processor.tokenizer(answer + END_TEXT, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def walk(loaded: LoadedModel, inputs: dict[str, torch.Tensor]) -> tuple[list[Any], list[Any]]:
    """Return every decoder layer's true input and raw output, float64 (tokens, hidden), by calling the layers one by one."""
    model = loaded.model.model
    decoder = model.language_model
    ids = inputs["input_ids"]
    is_image = ids[0] == loaded.model.config.image_token_id
    seen = model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    hidden = decoder.embed_tokens(ids)
    hidden[0, is_image] = seen.pooler_output
    positions, _ = model.get_rope_index(
        ids, mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    turns = decoder.rotary_emb(hidden, positions)
    n_tokens = ids.shape[1]
    causal = torch.full((1, 1, n_tokens, n_tokens), torch.finfo(torch.float32).min).triu(1)
    entering, leaving = [], []
    for index, layer in enumerate(decoder.layers):
        output = layer(hidden, attention_mask=causal, position_embeddings=turns, position_ids=positions[0])
        entering.append(hidden[0].double().numpy())
        leaving.append(output[0].double().numpy())
        hidden = output.clone()
        if index < len(seen.deepstack_features):
            hidden[0, is_image] += seen.deepstack_features[index]
    return entering, leaving


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of two (tokens, hidden) arrays."""
    return (one * other).sum(1) / np.sqrt((one * one).sum(1) * (other * other).sum(1))


def group_members(loaded: LoadedModel, inputs: dict[str, torch.Tensor], n_answer: int) -> dict[str, np.ndarray]:
    """Return which tokens belong to each group, from the token ids alone."""
    ids = inputs["input_ids"][0].numpy()
    place = np.arange(len(ids))
    answer = place >= len(ids) - n_answer
    vision = ids == loaded.model.config.image_token_id
    last = place == len(ids) - n_answer - 1
    return {"vision": vision, "text": ~vision & ~answer, "answer": answer, "last": last, "all": ~answer}


class Skip(torch.nn.Module):
    """Stands where a decoder layer stood and hands its input on."""

    def __init__(self, like: torch.nn.Module) -> None:
        super().__init__()
        for name in ("layer_type", "attention_type"):
            if hasattr(like, name):
                setattr(self, name, getattr(like, name))

    def forward(self, hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        return hidden_states


def skipping(model: Any, layers: Any, dropped: Iterable[int]) -> Any:
    """Return a deep copy of `model` in which the dropped layers hand their input on; `layers(model)` finds the list."""
    copied = copy.deepcopy(model)
    for index in dropped:
        layers(copied)[index] = Skip(layers(copied)[index])
    return copied


def qwen_layers(model: Any) -> Any:
    return model.model.language_model.layers


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of every tensor of a model."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_weights(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = model.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


def changed_copy(loaded: LoadedModel) -> LoadedModel:
    """Return the loaded model with weights of its own, free to be spoilt."""
    return LoadedModel(
        copy.deepcopy(loaded.model), loaded.processor, loaded.name, loaded.source, loaded.max_vision_tokens
    )


def made_recording(
    rows: Sequence[tuple[str, Sequence[float]]], *, group: str = "all", empty: Sequence[int] = ()
) -> Recording:
    """Return a recording whose prompts have these (domain, cosine of each layer) in `group`; `empty` prompts lack the group."""
    n_prompts, n_layers = len(rows), len(rows[0][1])
    index = TOKEN_GROUPS.index(group)
    made = empty_rows(n_prompts, n_layers)
    made["span"] = 0.5
    for number, (_, values) in enumerate(rows):
        if number not in empty:
            made["cosine"][number, :, index] = values
            made["token_counts"][number, index] = 3
            made["nonfinite"][number] = np.isnan(values)
    return Recording(
        model=ModelInfo("made", "f" * 64, n_layers, protected={0: "first"}, locked={1: "store"}),
        prompts="p" * 64,
        prompt_ids=tuple(f"prompt-{number}" for number in range(n_prompts)),
        domains=tuple(domain for domain, _ in rows),
        rows=made,
        settings={"batch_size": 1},
    )


@torch.no_grad()
def by_hand(model: Any, layers: Mapping[int, float], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the dense model's logits with hooks that scale what MLPs give."""
    blocks = model.get_decoder().layers
    hooks = [
        blocks[layer].mlp.register_forward_hook(lambda _, __, output, factor=factor: output * factor)
        for layer, factor in layers.items()
    ]
    try:
        return model(**inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
