"""From prompts to tensors: every token in its group, the answer appended as generation would, no batch that cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import ask, ids_of
from PIL import Image

from vlm_analysis import LoadedModel, Prompt, PromptSet
from vlm_analysis.errors import PromptError
from vlm_analysis.models.inputs import Encoded, answer_tokens, batches, collate, encode, pad_token, render_prompt

VISION, TEXT, ANSWER, LAST, ALL = range(5)


def encoded(loaded: LoadedModel, prompts: PromptSet) -> list[Encoded]:
    return [encode(loaded, prompt, answer_tokens(loaded, prompt.answer)) for prompt in prompts]


def pair_of(few: PromptSet) -> Prompt:
    return Prompt((*few[0].images, *few[1].images), "how many shapes are there?", "pair", "pair", "3")


class TestPrompt:
    def test_the_prompt_is_rendered_in_the_models_chat_form(self, loaded: LoadedModel, few: PromptSet) -> None:
        question = few[0].question
        assert render_prompt(loaded, few[0]) == (
            f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert render_prompt(loaded, pair_of(few)).count("<|vision_start|>") == 2

    def test_the_tensors_are_those_of_the_processor_alone(self, loaded: LoadedModel, few: PromptSet) -> None:
        for prompt in (*few, pair_of(few)):
            assert prompt.answer is not None
            tensors = encode(loaded, prompt, answer_tokens(loaded, prompt.answer)).tensors
            wanted = ask(loaded, prompt, ids_of(loaded, prompt.answer))
            assert tensors.keys() == wanted.keys()
            for name, value in wanted.items():
                assert torch.equal(tensors[name], value), name

    @pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<|vision_start|>", "<|endoftext|>", "<unk>"])
    def test_a_special_token_in_the_question_is_refused_by_name(self, loaded: LoadedModel, token: str) -> None:
        prompt = Prompt((Image.new("RGB", (64, 64)),), f"what is {token} here?", id="q-7")
        with pytest.raises(PromptError, match=r"'q-7' cannot be asked.*special token") as caught:
            encode(loaded, prompt)
        assert token in str(caught.value)

    def test_a_new_line_in_the_question_is_allowed(self, loaded: LoadedModel) -> None:
        prompt = Prompt((Image.new("RGB", (64, 64)),), "what is\nthere?")
        assert encode(loaded, prompt).group_mask()[VISION].sum() == 16


class TestGroups:
    def test_groups_part_the_tokens(self, loaded: LoadedModel, few: PromptSet) -> None:
        for item in [*encoded(loaded, few), encode(loaded, few[0])]:
            groups = item.group_mask()
            assert groups.shape == (5, item.n_tokens)
            assert (groups[[VISION, TEXT, ANSWER]].sum(0) == 1).all()
            np.testing.assert_array_equal(groups[ALL], groups[VISION] | groups[TEXT])
            assert groups[LAST].sum() == 1

    def test_vision_is_where_the_image_tokens_stand(self, loaded: LoadedModel, few: PromptSet) -> None:
        for prompt, images in ((few[0], 1), (pair_of(few), 2)):
            item = encode(loaded, prompt, (9, 9))
            image_token = loaded.model.config.image_token_id
            np.testing.assert_array_equal(
                item.group_mask()[VISION], item.tensors["input_ids"][0].numpy() == image_token
            )
            assert item.group_mask()[VISION].sum() == 16 * images

    def test_the_answer_is_at_the_end_and_last_stands_before_it(self, loaded: LoadedModel, few: PromptSet) -> None:
        for item in encoded(loaded, few):
            assert np.flatnonzero(item.group_mask()[ANSWER]).tolist() == list(
                range(item.n_prompt_tokens, item.n_tokens)
            )
            assert np.flatnonzero(item.group_mask()[LAST]).tolist() == [item.n_prompt_tokens - 1]


class TestAnswer:
    def test_an_answer_is_its_tokens_and_one_end(self, loaded: LoadedModel, few: PromptSet) -> None:
        assert answer_tokens(loaded, None) == ()
        for prompt in few:
            assert prompt.answer is not None
            assert list(answer_tokens(loaded, prompt.answer)) == ids_of(loaded, prompt.answer)
            assert answer_tokens(loaded, prompt.answer)[-1] == 2

    @torch.no_grad()
    def test_the_appended_answer_is_seen_as_generation_sees_it(self, loaded: LoadedModel, few: PromptSet) -> None:
        for prompt in (few[2], few[4], pair_of(few)):
            start = encode(loaded, prompt)
            made = loaded.model.generate(
                **start.tensors,
                max_new_tokens=8,
                min_new_tokens=8,
                do_sample=False,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            )
            tokens = made.sequences[0, start.n_prompt_tokens :].tolist()
            whole = encode(loaded, prompt, tokens)
            logits = loaded.model(**whole.tensors, use_cache=False).logits[0, start.n_prompt_tokens - 1 : -1]
            np.testing.assert_allclose(logits.numpy(), torch.cat(made.logits).numpy(), atol=1e-4)


class TestBatches:
    def test_padding_is_on_the_right_and_masked_out(self, loaded: LoadedModel, few: PromptSet) -> None:
        items = encoded(loaded, few)
        batch = collate(items, 77)
        longest = max(item.n_tokens for item in items)
        for row, item in enumerate(items):
            assert torch.equal(batch["input_ids"][row, : item.n_tokens], item.tensors["input_ids"][0])
            assert (batch["input_ids"][row, item.n_tokens :] == 77).all()
            assert batch["attention_mask"][row].tolist() == [1] * item.n_tokens + [0] * (longest - item.n_tokens)
            assert (batch["mm_token_type_ids"][row, item.n_tokens :] == 0).all()
        assert batch["pixel_values"].shape[0] == 64 * len(items)
        assert batch["image_grid_thw"].shape == (len(items), 3)

    @torch.no_grad()
    def test_one_and_two_images_together_give_the_logits_each_has_alone(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        items = encoded(loaded, PromptSet([few[0], pair_of(few), few[5]]))
        seen = []
        for indices in batches(items, 8):
            batch = collate([items[index] for index in indices], pad_token(loaded))
            logits = loaded.model(**batch, use_cache=False).logits
            for row, index in enumerate(indices):
                alone = loaded.model(**items[index].tensors, use_cache=False).logits[0]
                np.testing.assert_allclose(logits[row, : items[index].n_tokens].numpy(), alone.numpy(), atol=1e-4)
                seen.append(index)
        assert sorted(seen) == [0, 1, 2]

    def test_images_of_shapes_that_cannot_be_joined_stay_apart(self) -> None:
        def item(shape: tuple[int, ...], n_tokens: int = 5) -> Encoded:
            ids = torch.zeros(1, n_tokens, dtype=torch.long)
            return Encoded({"input_ids": ids, "pixel_values": torch.zeros(shape)}, np.ones(n_tokens, np.int8), ())

        items = [item((1, 3, 8, 8)), item((1, 3, 8, 9)), item((2, 3, 8, 8), 7), item((1, 1, 3, 8, 8))]
        found = list(batches(items, 8))
        assert sorted(sorted(batch) for batch in found) == [[0, 2], [1], [3]]
        for batch in found:
            collate([items[index] for index in batch], 0)

    @given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 9))
    def test_every_prompt_is_in_one_batch_and_like_lengths_are_together(self, lengths: list[int], size: int) -> None:
        items = [Encoded({"input_ids": torch.zeros(1, n, dtype=torch.long)}, np.ones(n, np.int8), ()) for n in lengths]
        found = list(batches(items, size))
        assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
        assert all(0 < len(batch) <= size for batch in found)
        assert len(found) == -(-len(lengths) // size)
        ordered = [lengths[index] for batch in found for index in batch]
        assert ordered == sorted(lengths)

    @pytest.mark.parametrize("size", [0, -1])
    def test_a_batch_of_no_prompts_is_refused(self, loaded: LoadedModel, few: PromptSet, size: int) -> None:
        with pytest.raises(PromptError, match="at least one prompt"):
            list(batches(encoded(loaded, few[:1]), size))
