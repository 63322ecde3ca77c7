"""Teacher-forced exact match is what real decoding writes, on hundreds of examples and on a model whose prompt sees itself whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conformance.build import tiny_model
from conformance.images import TOKENS, processor_of
from oracles import ask, ids_of
from PIL import Image

from vlm_analysis import Edit, Evaluation, LoadedModel, Prompt, PromptSet, PruneMask, evaluate, load_model
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.pocket.tasks import GENERAL, MATH, make_examples

BATCH = 24


@cache
def drawn(n_each: int) -> PromptSet:
    """Return held-out examples of every task, half of each domain; every third has the answer of another one of its task."""
    prompts = []
    for domain in (MATH, GENERAL):
        examples = make_examples(domain, n_each)
        for place, one in enumerate(examples):
            same = [other.answer for other in examples if other.task == one.task and other.answer != one.answer]
            answer = same[place % len(same)] if same and place % 3 == 0 else one.answer
            prompts.append(Prompt((one.image,), one.question, one.domain, f"{one.task}-{one.seed}", answer))
    return PromptSet(prompts)


@pytest.fixture(scope="module")
def pali(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny PaliGemma of random weights."""
    size = {
        "vocab_size": 1600,
        "text_config.vocab_size": 1600,
    }  # its processor adds 1,152 tokens for places and outlines
    model, processor = tiny_model("paligemma", TOKENS | size), processor_of("paligemma")
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    folder = tmp_path_factory.mktemp("models") / "pali"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def noisy() -> PromptSet:
    """Prompts of noise and of different lengths, without answers."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    return PromptSet(
        Prompt((Image.fromarray(picture),), " ".join(f"w{word}" for word in rng.integers(1, 100, 2 + place % 3)))
        for place, picture in enumerate(pixels)
    )


@pytest.fixture(scope="module")
def dense(pali: LoadedModel, noisy: PromptSet) -> Evaluation:
    return evaluate(pali, noisy)


def alike(inputs: Sequence[dict[str, torch.Tensor]]) -> Iterator[list[int]]:
    """Yield places of inputs that are equally long, so that a batch of them needs no padding."""
    groups = defaultdict(list)
    for place, one in enumerate(inputs):
        groups[one["input_ids"].shape[1]].append(place)
    for places in groups.values():
        yield from (places[first : first + BATCH] for first in range(0, len(places), BATCH))


def written(model: Any, inputs: Sequence[dict[str, torch.Tensor]], n_tokens: Sequence[int]) -> list[list[int]]:
    """Return the first tokens that greedy decoding writes after each of the inputs."""
    found: dict[int, list[int]] = {}
    for places in alike(inputs):
        batch = {name: torch.cat([inputs[place][name] for place in places]) for name in inputs[places[0]]}
        most = max(n_tokens[place] for place in places)
        made = model.generate(**batch, max_new_tokens=most, do_sample=False, pad_token_id=0)
        tail = made[:, batch["input_ids"].shape[1] :].tolist()
        found |= {place: row[: n_tokens[place]] for place, row in zip(places, tail, strict=True)}
    return [found[place] for place in range(len(inputs))]


class TestPocket:
    @pytest.mark.parametrize("mask", [None, PruneMask(16, (5, 11))], ids=["dense", "pruned"])
    @pytest.mark.parametrize("n_each", [15, pytest.param(270, marks=pytest.mark.slow)])
    def test_exact_match_is_what_greedy_decoding_writes(
        self, loaded: LoadedModel, n_each: int, mask: Edit | None
    ) -> None:
        some = drawn(n_each)
        answers = [ids_of(loaded, str(prompt.answer)) for prompt in some]
        model = loaded.model if mask is None else apply_edit(loaded.model, mask)
        real = written(model, [ask(loaded, prompt) for prompt in some], [len(ids) for ids in answers])
        right = [tokens == ids for tokens, ids in zip(real, answers, strict=True)]
        assert len(some) / 5 < sum(right) < len(some) * 4 / 5
        assert evaluate(loaded, some, mask).by_prompt["exact_match"].tolist() == right

    def test_respond_writes_the_answer_of_every_exact_match(self, loaded: LoadedModel, packs: PromptSet) -> None:
        some = packs[::18]
        for mask in (None, PruneMask(16, (7,))):
            for prompt, right in zip(some, evaluate(loaded, some, mask).by_prompt["exact_match"], strict=True):
                written = respond(loaded, prompt, mask, max_new_tokens=24)
                assert written == prompt.answer or not right


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of numpy, on transformers' ways
class TestTokenTypes:
    """PaliGemma's prompt tokens see each other, later ones too; those of an answer are of another type and see what is before."""

    @pytest.mark.parametrize("dropped", [(), (3,)], ids=["dense", "pruned"])
    def test_exact_match_is_what_greedy_decoding_writes(
        self, pali: LoadedModel, noisy: PromptSet, dense: Evaluation, dropped: tuple[int, ...]
    ) -> None:
        mask = PruneMask(pali.n_layers, dropped)
        inputs = []
        for prompt in noisy:
            made = pali.processor(
                text=[f"<image>{prompt.question}"], images=list(prompt.load_images()), return_tensors="pt"
            )
            inputs.append({name: value for name, value in made.items() if name != "labels"})
            assert (made["token_type_ids"] == 0).all()
        real = written(apply_edit(pali.model, mask), inputs, [6] * len(noisy))
        spoilt = [
            [token + (place % 2 and spot == place % 6) for spot, token in enumerate(tokens)]
            for place, tokens in enumerate(real)
        ]
        asked = replace(dense, by_prompt=dense.by_prompt.assign(answer_ids=spoilt), dense_log_probs=None)
        found = evaluate(pali, noisy, mask, reference=asked).by_prompt["exact_match"].tolist()
        assert found == [place % 2 == 0 for place in range(len(noisy))]

    def test_the_dense_model_repeats_its_own_responses(self, dense: Evaluation) -> None:
        assert dense.by_prompt["exact_match"].all()
