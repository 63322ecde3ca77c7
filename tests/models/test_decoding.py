"""What is written is what is most likely, whatever a checkpoint's generation settings say, and any end token ends an answer."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import SWERVING, ask, changed_copy, ids_of

from vlm_analysis import Cancelled, LoadedModel, Prompt, PromptSet, PruneMask, evaluate, load_model
from vlm_analysis.edits.apply import apply_edit
from vlm_analysis.evaluation.run.evaluate import write_responses
from vlm_analysis.evaluation.run.metrics import answer_scores
from vlm_analysis.evaluation.run.respond import compare_responses
from vlm_analysis.models.decoding import greedy_ids
from vlm_analysis.models.source import BUNDLED_FOLDER
from vlm_analysis.progress import stoppable

MASK = PruneMask(16, (2, 7, 8))
END, OTHER_END, IMAGE = 2, 0, 5


@torch.no_grad()
def most_likely(loaded: LoadedModel, model, prompt, most: int) -> list[int]:
    """Return the tokens of greedy decoding, each from a whole pass without a cache."""
    ids: list[int] = []
    while len(ids) < most and (not ids or ids[-1] not in (END, OTHER_END)):
        ids.append(int(model(**ask(loaded, prompt, ids), use_cache=False).logits[0, -1].argmax()))
    return ids


def swerving(loaded: LoadedModel) -> LoadedModel:
    made = changed_copy(loaded)
    made.model.generation_config.update(**SWERVING)
    return made


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The bundled model, whose settings name another end token before the one that it writes."""
    folder = tmp_path_factory.mktemp("two") / "ends"
    shutil.copytree(BUNDLED_FOLDER, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [OTHER_END, END]}))
    return load_model(folder)


@pytest.fixture(scope="module")
def imagining(loaded: LoadedModel) -> LoadedModel:
    made = changed_copy(loaded)
    made.model = copy.deepcopy(loaded.model)
    made.model.tie_weights = lambda: None
    head = torch.nn.Parameter(made.model.lm_head.weight.detach().clone())
    head.data[IMAGE] = 3 * head.data[15]
    made.model.lm_head.weight = head
    return made


class TestPlainGreedy:
    def test_settings_of_the_checkpoint_change_no_token(self, loaded: LoadedModel, packs: PromptSet) -> None:
        changed = swerving(loaded)
        for model in (changed.model, apply_edit(changed.model, MASK)):
            for prompt in packs[::30]:
                assert greedy_ids(changed, model, prompt, 20) == most_likely(loaded, model, prompt, 20)

    def test_exact_match_holds_under_them_with_and_without_answers(self, loaded: LoadedModel, packs: PromptSet) -> None:
        changed, some = swerving(loaded), packs[::15]
        found = evaluate(changed, some, MASK).by_prompt
        answers = [ids_of(loaded, str(prompt.answer)) for prompt in some]
        model = apply_edit(loaded.model, MASK)
        right = [most_likely(loaded, model, prompt, len(ids)) == ids for prompt, ids in zip(some, answers, strict=True)]
        assert 0 < sum(right) < len(some)
        assert found["exact_match"].tolist() == right
        alone = PromptSet(replace(prompt, answer=None) for prompt in some)
        assert evaluate(changed, alone).by_prompt["exact_match"].all()

    def test_the_model_s_own_settings_come_back(self, loaded: LoadedModel, few: PromptSet) -> None:
        changed = swerving(loaded)
        own, before = changed.model.generation_config, copy.deepcopy(vars(changed.model.generation_config))
        assert greedy_ids(changed, changed.model, few[0], 3)

        def stop() -> None:
            assert not changed.model.generation_config.do_sample
            raise Cancelled

        with stoppable(stop), pytest.raises(Cancelled):
            greedy_ids(changed, changed.model, few[0], 3)
        assert changed.model.generation_config is own
        assert vars(own) == before


class TestEndTokens:
    def test_answers_end_as_the_chat_template_ends_them(self, two_ends: LoadedModel, packs: PromptSet) -> None:
        assert two_ends.end_tokens == (END, OTHER_END)
        assert evaluate(two_ends, packs[::9]).by_prompt["exact_match"].all()

    def test_without_a_template_the_first_one_ends_them(self, two_ends: LoadedModel) -> None:
        bare = copy.copy(two_ends.processor)
        bare.chat_template, bare.tokenizer = None, copy.copy(bare.tokenizer)
        bare.tokenizer.chat_template = None
        assert LoadedModel(two_ends.model, bare, "bare", "").end_tokens == (OTHER_END, END)

    def test_any_end_token_ends_an_answer_but_nothing_else_does(self) -> None:
        def scored(*choices: int) -> np.ndarray:
            return np.log(np.full((len(choices), 10), 0.01) + 0.9 * np.eye(10)[list(choices)]).astype(np.float32)

        ids, ends = (7, END), (END, OTHER_END)
        found = {
            choices: answer_scores(scored(*choices), scored(*ids), ids, ends)["exact_match"]
            for choices in ((7, END), (7, OTHER_END), (7, 8), (OTHER_END, END))
        }
        assert list(found.values()) == [True, True, False, False]
        cut = answer_scores(scored(7, OTHER_END), scored(7, 8), (7, 8), ends)  # of a response that was cut
        assert not cut["exact_match"]


class TestPlaceholders:
    """A model may write the token that stands for an image; it cannot be given it without the image."""

    @pytest.fixture(scope="class")
    @staticmethod
    def wrote(imagining: LoadedModel, packs: PromptSet) -> list[tuple[Prompt, tuple[int, ...]]]:
        return [(prompt, greedy_ids(imagining, imagining.model, prompt, 64)) for prompt in packs[::10]]

    def test_a_response_is_scored_up_to_it(self, imagining: LoadedModel, wrote) -> None:
        assert imagining.model.config.image_token_id == IMAGE
        assert any(IMAGE in ids for _, ids in wrote)
        alone = PromptSet(replace(prompt, answer=None) for prompt, _ in wrote)
        found = evaluate(imagining, alone, MASK).by_prompt
        for (_, ids), scored in zip(wrote, found["answer_ids"], strict=True):
            cut = ids[: ids.index(IMAGE)] if IMAGE in ids else ids
            assert list(scored) == (cut or [END])

    def test_responses_are_compared_up_to_it(self, imagining: LoadedModel, wrote) -> None:
        prompt, ids = max(wrote, key=lambda one: IMAGE in one[1] and one[1].index(IMAGE))
        assert len(compare_responses(imagining, prompt, MASK, ids).tokens) == ids.index(IMAGE)


def test_written_responses_are_those_of_greedy_decoding(loaded: LoadedModel, packs: PromptSet) -> None:
    changed, some = swerving(loaded), packs[::15]
    found = write_responses(changed, some, evaluate(changed, some, MASK)).by_prompt["response"]
    model = apply_edit(loaded.model, MASK)
    for prompt, response in zip(some, found, strict=True):
        wrote = most_likely(loaded, model, prompt, 40)
        assert response == loaded.processor.tokenizer.decode(wrote, skip_special_tokens=True).strip()
