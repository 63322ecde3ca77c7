"""Packing: several questions in one sequence get the logits each would get alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import ask, ids_of

from vlm_analysis import LoadedModel, Prompt
from vlm_analysis.pocket.build import build_image_processor, build_tokenizer
from vlm_analysis.pocket.packing import PackedBatch, Packer, answer_logits, answers_right, block_mask
from vlm_analysis.pocket.tasks import make_example

Pictures = list[tuple[object, list[tuple[str, str]]]]
SHAPES, BARS = make_example("count-steps", 4), make_example("bar-steps", 9)
PICTURES: Pictures = [
    (
        SHAPES.image,
        [("how many shapes are there?", "5"), (SHAPES.question, SHAPES.answer), ("is there a red cross?", "no")],
    ),
    (BARS.image, [(BARS.question, BARS.answer), ("which bar is tallest?", "red")]),
]


@pytest.fixture(scope="module")
def packer(loaded: LoadedModel) -> Packer:
    return Packer(loaded.model, build_tokenizer(), build_image_processor())


@torch.no_grad()
def split_logits(loaded: LoadedModel, packer: Packer, pictures: Pictures) -> tuple[PackedBatch, list[torch.Tensor]]:
    """Return the packed batch and the logits of each answer apart."""
    batch = packer.pack(pictures)  # type: ignore[arg-type]
    logits = answer_logits(loaded.model, batch)
    return batch, [logits[batch.answer == number] for number in range(int(batch.answer.max()) + 1)]


def test_packed_questions_get_the_logits_of_single_ones(loaded: LoadedModel, packer: Packer) -> None:
    _, together = split_logits(loaded, packer, PICTURES)
    single = [(image, [pair]) for image, pairs in PICTURES for pair in pairs]
    alone = [split_logits(loaded, packer, [one])[1][0] for one in single]
    assert len(together) == len(alone) == 5
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-5, rtol=1e-5)


def test_packed_questions_get_the_logits_of_the_ordinary_processor_and_model(
    loaded: LoadedModel, packer: Packer
) -> None:
    _, together = split_logits(loaded, packer, PICTURES)
    single = [(image, pair) for image, pairs in PICTURES for pair in pairs]
    for logits, (image, (question, answer)) in zip(together, single, strict=True):
        ids = ids_of(loaded, answer)
        inputs = ask(loaded, Prompt((image,), question), ids)  # type: ignore[arg-type]
        with torch.no_grad():
            wanted = loaded.model(**inputs, use_cache=False).logits[0, -len(ids) - 1 : -1]
        np.testing.assert_allclose(logits.numpy(), wanted.numpy(), atol=1e-5, rtol=1e-5)


def test_targets_are_the_answers_with_their_ends(loaded: LoadedModel, packer: Packer) -> None:
    batch = packer.pack(PICTURES)  # type: ignore[arg-type]
    wanted = [ids_of(loaded, answer) for _, pairs in PICTURES for _, answer in pairs]
    assert [batch.targets[batch.answer == number].tolist() for number in range(5)] == wanted
    following = batch.sources + torch.tensor([0, 1])
    assert torch.equal(batch.input_ids[following[:, 0], following[:, 1]], batch.targets)


def test_a_question_sees_the_image_and_itself_only() -> None:
    seen = block_mask(torch.tensor([[0, 0, 1, 1, 2, 2, -1]]), torch.float32)[0, 0] == 0
    assert seen.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]


def test_questions_that_would_make_a_row_too_long_are_left_out_but_never_the_first(packer: Packer) -> None:
    full = packer.pack(PICTURES)  # type: ignore[arg-type]
    for most in (1, 60, 80, 10_000):
        batch = packer.pack(PICTURES, most_tokens=most)  # type: ignore[arg-type]
        assert int(batch.answer.max()) + 1 >= len(PICTURES)
        assert batch.answer.unique().tolist() == list(range(int(batch.answer.max()) + 1))
        if most >= 60:
            assert batch.input_ids.shape[1] <= most
    assert torch.equal(batch.input_ids, full.input_ids)


def test_an_answer_is_right_only_if_all_its_tokens_are(packer: Packer) -> None:
    batch = packer.pack(PICTURES)  # type: ignore[arg-type]
    logits = torch.nn.functional.one_hot(batch.targets, 93).float()
    assert answers_right(logits, batch).tolist() == [True] * 5
    end_of_second = int((batch.answer == 1).nonzero()[-1])
    logits[end_of_second] = 0
    assert answers_right(logits, batch).tolist() == [True, False, True, True, True]
