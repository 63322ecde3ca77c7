"""Recording: the numbers are those of a walk through the layers by hand, and the model is left as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import ask, changed_copy, cosine, group_members, ids_of, qwen_layers, same_weights, walk, weights_of
from PIL import Image

from vlm_analysis import MEASURES, Cancelled, LoadedModel, Prompt, PromptSet, Recording, record
from vlm_analysis.errors import PromptError
from vlm_analysis.recording.measures import triangle
from vlm_analysis.words import TOKEN_GROUPS

VISION, TEXT, ANSWER, LAST, ALL = range(5)


@pytest.fixture(scope="module")
def recording(loaded: LoadedModel, few: PromptSet) -> Recording:
    return record(loaded, few)


def n_hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class TestNumbers:
    def test_layers_and_spans_equal_a_float64_walk_through_the_layers(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        for number, prompt in enumerate(few):
            assert prompt.answer is not None
            answer = ids_of(loaded, prompt.answer)
            inputs = ask(loaded, prompt, answer)
            entering, leaving = walk(loaded, inputs)
            streams = [*entering, leaving[-1]]
            members = group_members(loaded, inputs, len(answer))
            for index, group in enumerate(TOKEN_GROUPS):
                chosen = members[group]
                layers = [cosine(x, y)[chosen].mean() for x, y in zip(entering, leaving, strict=True)]
                np.testing.assert_allclose(recording.rows["cosine"][number, :, index], layers, atol=1e-6)
                spans = [[cosine(x, y)[chosen].mean() for y in streams] for x in streams]
                np.testing.assert_allclose(recording.rows["span"][number, index], triangle(np.array(spans)), atol=1e-6)
                assert recording.rows["token_counts"][number, index] == chosen.sum()

    def test_a_span_of_one_layer_differs_from_the_layer_only_where_deepstack_adds_vision(
        self, recording: Recording
    ) -> None:
        for group, touched in (("vision", [0, 1]), ("all", [0, 1]), ("text", []), ("answer", []), ("last", [])):
            spans = np.diagonal(recording.span_similarity(None, group), offset=1)
            apart = np.abs(spans - recording.layer_similarity(None, group)) > 1e-6
            assert np.flatnonzero(apart).tolist() == touched, group

    def test_the_last_output_is_taken_before_the_final_norm(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        inputs = ask(loaded, few[0])
        entering, leaving = walk(loaded, inputs)
        normed = loaded.model.model.language_model.norm(torch.from_numpy(leaving[-1]).float()).detach().double().numpy()
        raw, after = (cosine(entering[-1], states).mean() for states in (leaving[-1], normed))
        assert raw == pytest.approx(recording.rows["cosine"][0, -1, ALL], abs=1e-6)
        assert abs(after - raw) > 1e-5  # the norm would have shown

    def test_spans_are_symmetric_with_a_diagonal_of_ones(self, recording: Recording) -> None:
        spans = recording.span_similarity("math", "text")
        np.testing.assert_array_equal(spans, spans.T)
        assert (np.diagonal(spans) == 1).all()

    def test_batches_of_four_give_the_numbers_of_batches_of_one(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        batched = record(loaded, few, batch_size=4)
        np.testing.assert_allclose(batched.rows["cosine"], recording.rows["cosine"], atol=1e-5)
        for name, measure in MEASURES.items():
            here, there = batched.rows[name], recording.rows[name]
            scale = np.maximum(1, np.abs(there)) if measure.kind == "<f8" else 1
            np.testing.assert_allclose(here / scale, there / scale, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(batched.rows["token_counts"], recording.rows["token_counts"])
        assert batched.settings["batch_size"] == 4

    def test_prompt_order_does_not_change_the_similarity(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        turned = record(loaded, few[::-1])
        assert turned.prompt_ids == recording.prompt_ids[::-1]
        for domain in (None, "math", "general"):
            for group in TOKEN_GROUPS:
                there, back = (r.layer_similarity(domain, group) for r in (recording, turned))
                np.testing.assert_allclose(there, back, atol=1e-12, rtol=0)


class TestGroups:
    def test_a_64_by_64_image_is_16_vision_tokens(self, recording: Recording) -> None:
        assert (recording.rows["token_counts"][:, VISION] == 16).all()

    def test_all_is_vision_and_text_and_last_is_one(self, recording: Recording) -> None:
        counts = recording.rows["token_counts"]
        np.testing.assert_array_equal(counts[:, ALL], counts[:, VISION] + counts[:, TEXT])
        assert (counts[:, LAST] == 1).all()

    def test_a_prompt_without_an_answer_has_a_nan_answer_group_and_is_counted(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        bare = Prompt(few[0].images, few[0].question, few[0].domain, few[0].id)
        found = record(loaded, [bare, few[1]])
        assert found.rows["token_counts"][:, ANSWER].tolist() == [0, recording.rows["token_counts"][1, ANSWER]]
        assert np.isnan(found.rows["cosine"][0, :, ANSWER]).all()
        assert np.isnan(found.rows["span"][0, ANSWER]).all()
        assert found.prompts_with(None, "answer") == 1
        np.testing.assert_allclose(
            found.layer_similarity(None, "answer"), recording.rows["cosine"][1, :, ANSWER], atol=1e-12
        )

    def test_an_appended_answer_changes_neither_the_prompt_tokens_nor_which_is_last(
        self, loaded: LoadedModel, few: PromptSet, recording: Recording
    ) -> None:
        bare = PromptSet(Prompt(p.images, p.question, p.domain, p.id) for p in few)
        found = record(loaded, bare)
        for group in (VISION, TEXT, LAST, ALL):
            np.testing.assert_allclose(
                found.rows["cosine"][..., group], recording.rows["cosine"][..., group], atol=1e-5
            )
            np.testing.assert_array_equal(
                found.rows["token_counts"][:, group], recording.rows["token_counts"][:, group]
            )

    def test_two_images_have_twice_the_vision_tokens(self, loaded: LoadedModel, few: PromptSet) -> None:
        pair = Prompt((*few[0].images, *few[1].images), few[0].question, "pair", "pair")
        found = record(loaded, [pair, *few], batch_size=8)
        assert found.rows["token_counts"][0, VISION] == 32


class TestTheModelIsLeftAsItWas:
    def test_weights_mode_and_hooks_are_unchanged(self, loaded: LoadedModel, few: PromptSet) -> None:
        before, hooks = weights_of(loaded.model), n_hooks(loaded.model)
        modes = [module.training for module in loaded.model.modules()]
        record(loaded, few[:2])
        assert same_weights(loaded.model, before)
        assert n_hooks(loaded.model) == hooks
        assert [module.training for module in loaded.model.modules()] == modes
        assert all(parameter.grad is None for parameter in loaded.model.parameters())

    @pytest.mark.parametrize("stop", [0, 1, 2])
    def test_cancelling_stops_and_removes_the_hooks(self, loaded: LoadedModel, few: PromptSet, stop: int) -> None:
        hooks, calls = n_hooks(loaded.model), []

        def cancel(done: int, total: int, message: str) -> None:
            calls.append((done, total))
            if done == stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            record(loaded, few, on_progress=cancel)
        assert n_hooks(loaded.model) == hooks
        assert list(dict.fromkeys(calls)) == [(done, 6) for done in range(stop + 1)]

    def test_a_failure_in_the_middle_removes_the_hooks(self, loaded: LoadedModel, few: PromptSet) -> None:
        spoilt = changed_copy(loaded)
        hooks = n_hooks(spoilt.model)

        class BreaksError(Exception):
            pass

        def fail(*_: object, **__: object) -> None:
            raise BreaksError

        qwen_layers(spoilt.model)[7].mlp.forward = fail
        with pytest.raises(BreaksError):
            record(spoilt, few)
        assert n_hooks(spoilt.model) == hooks

    def test_progress_runs_from_zero_to_all(self, loaded: LoadedModel, few: PromptSet) -> None:
        calls: list[tuple[int, int]] = []
        record(loaded, few, batch_size=4, on_progress=lambda done, total, message: calls.append((done, total)))
        assert calls[0] == (0, 6)
        assert calls[-1] == (6, 6)
        assert calls == sorted(calls)


class TestOddities:
    def test_a_nan_weight_is_counted_and_never_replaced(self, loaded: LoadedModel, few: PromptSet) -> None:
        spoilt = changed_copy(loaded)
        with torch.no_grad():
            qwen_layers(spoilt.model)[9].mlp.down_proj.weight[3, 3] = torch.nan
        found = record(spoilt, few[:2])
        n_tokens = found.rows["token_counts"][:, ALL] + found.rows["token_counts"][:, ANSWER]
        assert (found.rows["nonfinite"][:, :9] == 0).all()
        np.testing.assert_array_equal(found.rows["nonfinite"][:, 9:], np.repeat(n_tokens[:, None], 7, axis=1))
        similarity = found.layer_similarity()
        assert np.isfinite(similarity[:9]).all()
        assert np.isnan(similarity[9:]).all()

    def test_no_nan_is_counted_in_a_sound_model(self, recording: Recording) -> None:
        assert not recording.rows["nonfinite"].any()

    def test_the_recording_says_whose_it_is(self, loaded: LoadedModel, few: PromptSet, recording: Recording) -> None:
        assert recording.model == loaded.info
        assert recording.prompts == few.fingerprint
        assert recording.domains == tuple(prompt.domain for prompt in few)
        assert recording.settings["max_vision_tokens"] == 256
        assert recording.settings["batch_size"] == 1
        assert recording.keys == few.row_keys

    def test_no_prompts_and_a_batch_of_none_are_refused(self, loaded: LoadedModel, few: PromptSet) -> None:
        with pytest.raises(PromptError, match="no prompts"):
            record(loaded, [])
        with pytest.raises(PromptError, match="batch_size=0"):
            record(loaded, few, batch_size=0)

    def test_one_prompt_that_cannot_be_asked_is_named(self, loaded: LoadedModel, few: PromptSet) -> None:
        bad = Prompt((Image.new("RGB", (64, 64)),), "what is <|image_pad|>?", id="odd one")
        found = record(loaded, [*few[:1], bad])
        assert found.prompt_ids == (few[0].id,)
        assert list(found.set_aside) == ["odd one"]
        assert "'odd one'" in found.set_aside["odd one"]
        assert "<|image_pad|>" in found.set_aside["odd one"]
