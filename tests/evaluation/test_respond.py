"""Both models answering: the streamed texts are those of `respond`, and the divergence is a plain float64 computation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles import SWERVING, ask, changed_copy, qwen_layers, same_weights, skipping, weights_of
from outside import save_outside_model
from PIL import Image
from tokenizers import Tokenizer

from vlm_analysis import Cancelled, Edit, LoadedModel, Prompt, PromptSet, PruneMask, load_model, stream_both
from vlm_analysis.errors import MaskError, PromptError
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.evaluation.run.respond import Step, compare_responses
from vlm_analysis.progress import stoppable

MASK = PruneMask(16, (5, 11))
BROKEN = PruneMask(16, (2, 3, 4, 9, 14))  # writes much that the dense model does not
NO_ERROR = "ignore:__array__ implementation:DeprecationWarning"  # of numpy, on how transformers hands it a tensor


def noise_prompt(words: str) -> Prompt:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return Prompt((Image.fromarray(pixels),), words)


def texts(step: Step) -> tuple[str, str]:
    return step.dense.text, step.pruned.text


def responses(loaded: LoadedModel, prompt: Prompt, mask: Edit, **options: Any) -> tuple[str, str]:
    return respond(loaded, prompt, **options), respond(loaded, prompt, mask, **options)


def hooks(loaded: LoadedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules())


@pytest.fixture
def changed(loaded: LoadedModel) -> LoadedModel:
    """The bundled model with a generation configuration of its own, free to be changed."""
    return changed_copy(loaded)


@pytest.fixture(scope="module")
def in_bytes(loaded: LoadedModel) -> LoadedModel:
    """The bundled model with a tokenizer that writes "bottom left" as the two bytes of é."""
    words = json.loads(loaded.processor.tokenizer.backend_tokenizer.to_str())
    vocabulary = words["model"]["vocab"]
    for word, byte in (("▁bottom", "<0xC3>"), ("▁left", "<0xA9>")):
        vocabulary[byte] = vocabulary.pop(word)
    words["decoder"] = {
        "type": "Sequence",
        "decoders": [{"type": "ByteFallback"}, words["decoder"], {"type": "Fuse"}],
    }
    processor = copy.deepcopy(loaded.processor)
    processor.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(words))
    return LoadedModel(loaded.model, processor, loaded.name, loaded.source)


class TestStream:
    @pytest.mark.parametrize("step", [30, pytest.param(1, marks=pytest.mark.slow)])
    def test_the_last_texts_are_the_responses_to_every_bundled_prompt(
        self, loaded: LoadedModel, packs: PromptSet, step: int
    ) -> None:
        for prompt in packs[::step]:
            *_, last = stream_both(loaded, prompt, MASK)
            assert texts(last) == responses(loaded, prompt, MASK)
            assert last.dense.ended
            assert last.pruned.ended

    def test_both_write_one_token_a_step_and_the_one_that_ended_waits(
        self, loaded: LoadedModel, few: PromptSet
    ) -> None:
        uneven = 0
        for prompt in few[::2]:
            steps = list(stream_both(loaded, prompt, BROKEN))
            ends = [len(steps[-1].dense.ids), len(steps[-1].pruned.ids)]
            assert len(steps) == max(ends)
            for count, step in enumerate(steps, start=1):
                assert len(step.dense.ids) == min(count, ends[0])
                assert len(step.pruned.ids) == min(count, ends[1])
                assert step.dense.ended == (count >= ends[0])
            assert texts(steps[-1]) == responses(loaded, prompt, BROKEN)
            uneven += ends[0] != ends[1]
        assert uneven

    @pytest.mark.filterwarnings(NO_ERROR)
    @pytest.mark.parametrize(
        "kind",
        ["gemma3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("mllama", "smolvlm", "qwen2_5_vl"))],
    )
    def test_models_from_outside_write_their_responses(self, tmp_path: Path, kind: str) -> None:
        loaded = load_model(save_outside_model(kind, tmp_path / kind))
        mask = PruneMask(loaded.n_layers, [layer for layer in range(1, 6) if layer not in loaded.locked_layers][:2])
        for words in ("w1 w7", "w2 w7 w8"):
            prompt = noise_prompt(words)
            steps = list(stream_both(loaded, prompt, mask, max_new_tokens=12))
            assert len(steps) > 1
            assert texts(steps[-1]) == responses(loaded, prompt, mask, max_new_tokens=12)

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({"eos_token_id": [2, 88]}, id="ends"),
            pytest.param({"use_cache": False}, id="no cache", marks=pytest.mark.slow),
            pytest.param(SWERVING, id="others"),
        ],
    )
    def test_of_the_model_s_own_generation_settings_only_end_tokens_change_what_is_written(
        self, changed: LoadedModel, packs: PromptSet, settings: dict[str, Any]
    ) -> None:
        prompt = next(prompt for prompt in packs if "step by step" in prompt.question)
        plain = respond(changed, prompt)
        changed.model.generation_config.update(**settings)
        steps = list(stream_both(changed, prompt, MASK, max_new_tokens=24))
        assert texts(steps[-1]) == responses(changed, prompt, MASK, max_new_tokens=24)
        assert len(steps) > 3
        assert (steps[-1].dense.text == plain) == ("eos_token_id" not in settings)

    def test_a_model_with_a_generate_of_its_own_is_left_to_it(self, changed: LoadedModel, few: PromptSet) -> None:
        class Own(type(changed.model)):
            def generate(self, *args: Any, **kwargs: Any) -> Any:
                return super().generate(*args, **kwargs | {"max_new_tokens": 1})

        changed.model.__class__ = Own
        steps = list(stream_both(changed, few[0], MASK))
        assert [texts(step) for step in steps] == [responses(changed, few[0], MASK)]

    def test_half_a_character_is_not_shown_until_nothing_more_comes(
        self, in_bytes: LoadedModel, packs: PromptSet
    ) -> None:
        prompt = next(prompt for prompt in packs if prompt.answer == "bottom left")
        steps = list(stream_both(in_bytes, prompt, PruneMask(16)))
        assert [step.dense.text for step in steps] == ["", "é", "é"]
        (cut,) = stream_both(in_bytes, prompt, PruneMask(16), max_new_tokens=1)
        assert texts(cut) == responses(in_bytes, prompt, PruneMask(16), max_new_tokens=1) == ("\ufffd", "\ufffd")

    def test_a_mask_or_question_that_does_not_fit_is_refused(self, loaded: LoadedModel, few: PromptSet) -> None:
        with pytest.raises(MaskError, match="expected one for 16 layers"):
            next(stream_both(loaded, few[0], PruneMask(17, (3,))))
        with pytest.raises(PromptError, match="special token"):
            next(stream_both(loaded, Prompt(few[0].images, "what is <|im_end|>?"), MASK))


class TestStopping:
    @pytest.mark.parametrize("at", [3, 20, 45], ids=["dense prompt", "pruned prompt", "a later token"])
    def test_no_layer_runs_after_the_one_at_work(self, loaded: LoadedModel, few: PromptSet, at: int) -> None:
        ran: list[int] = []
        before, weights = hooks(loaded), weights_of(loaded.model)
        handles = [layer.register_forward_hook(lambda *_: ran.append(1)) for layer in qwen_layers(loaded.model)]

        def stop() -> None:
            if len(ran) >= at:
                raise Cancelled

        try:
            with stoppable(stop), pytest.raises(Cancelled):
                list(stream_both(loaded, few[0], MASK))
        finally:
            for handle in handles:
                handle.remove()
        assert len(ran) == at
        assert hooks(loaded) == before
        assert same_weights(loaded.model, weights)

    def test_between_two_steps_the_model_is_in_its_ordinary_state(self, loaded: LoadedModel, few: PromptSet) -> None:
        before, prompt = hooks(loaded), few[2]
        expected = responses(loaded, prompt, MASK)
        steps = []
        for step in stream_both(loaded, prompt, MASK):
            steps.append(step)
            assert hooks(loaded) == before
            assert not torch.is_inference_mode_enabled()
            if len(steps) in (1, 7):  # while both write, and where one has ended
                assert responses(loaded, prompt, MASK) == expected  # another question in between changes neither
        assert texts(steps[-1]) == expected


class TestDivergence:
    @staticmethod
    @torch.no_grad()
    def log_probs(loaded: LoadedModel, model: Any, prompt: Prompt, ids: tuple[int, ...]) -> np.ndarray:
        made = ask(loaded, prompt, ids)
        logits = model(**made, use_cache=False).logits[0, -len(ids) - 1 : -1].double().numpy()
        shifted = logits - logits.max(1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))

    @pytest.mark.parametrize("mask", [MASK, BROKEN], ids=["two", "five"])
    def test_it_equals_a_plain_float64_reckoning(self, loaded: LoadedModel, few: PromptSet, mask: Edit) -> None:
        other = skipping(loaded.model, qwen_layers, mask.dropped)
        for prompt in few[::3]:
            *_, last = stream_both(loaded, prompt, mask)
            ids = last.dense.ids
            found = compare_responses(loaded, prompt, mask, ids)
            base, cut = (self.log_probs(loaded, model, prompt, ids) for model in (loaded.model, other))
            np.testing.assert_allclose(found.kl, (np.exp(base) * (base - cut)).sum(1), rtol=0, atol=1e-5)
            assert found.differs.tolist() == (base.argmax(1) != cut.argmax(1)).tolist()
            assert found.tokens[-1] == "<|im_end|>"
            assert len(found.tokens) == len(ids)

    def test_the_first_difference_is_where_the_written_tokens_part(self, loaded: LoadedModel, packs: PromptSet) -> None:
        parted = 0
        some = packs[::18]
        for prompt in some:
            *_, last = stream_both(loaded, prompt, BROKEN)
            pairs = zip(last.dense.ids, last.pruned.ids, strict=False)
            expected = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
            assert compare_responses(loaded, prompt, BROKEN, last.dense.ids).first == expected
            parted += expected is not None
        assert 0 < parted < len(some)

    def test_a_mask_that_drops_nothing_differs_nowhere(self, loaded: LoadedModel, few: PromptSet) -> None:
        *_, last = stream_both(loaded, few[0], PruneMask(16))
        found = compare_responses(loaded, few[0], PruneMask(16), last.dense.ids)
        assert found.first is None
        assert (found.kl == 0).all()

    def test_numbers_that_are_none_are_named_as_such(self, changed: LoadedModel, few: PromptSet) -> None:
        with torch.no_grad():
            qwen_layers(changed.model)[5].mlp.down_proj.weight.fill_(float("nan"))
        found = compare_responses(changed, few[0], MASK, (9, 2))
        assert np.isnan(found.kl).all()
        assert found.differs.all()

    def test_no_response_has_no_divergence(self, loaded: LoadedModel, few: PromptSet) -> None:
        found = compare_responses(loaded, few[0], MASK, ())
        assert (found.tokens, len(found.kl), found.first) == ((), 0, None)
