"""How a model is asked: what its owner's files mean, wherever they say it; what disagrees is said, what cannot be asked is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from vlm_analysis import (
    LoadedModel,
    Prompt,
    PromptSet,
    evaluate,
    load_model,
    open_recording,
    record,
    save_recording,
)
from vlm_analysis.cli.results import of_recording
from vlm_analysis.errors import PromptError
from vlm_analysis.models.asking import context_length
from vlm_analysis.models.decoding import greedy_ids
from vlm_analysis.models.inputs import answer_tokens, encode, render_prompt
from vlm_analysis.models.processors import load_processor
from vlm_analysis.models.source import BUNDLED_FOLDER

END, OTHER_END = 2, 0
TEMPLATE = (BUNDLED_FOLDER / "chat_template.jinja").read_text()
OF_TEXTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model, free to be changed."""
    return Path(shutil.copytree(BUNDLED_FOLDER, tmp_path / "copy"))


def changed(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> LoadedModel:
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return load_model(folder)


def templates(folder: Path, template: object) -> LoadedModel:
    """Load the folder with a chat template in tokenizer_config.json only."""
    (folder / "chat_template.jinja").unlink()
    return changed(folder, "tokenizer_config.json", lambda content: content.update(chat_template=template))


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The bundled model, whose settings name an end token that its template never writes, as a base model's do."""
    folder = Path(shutil.copytree(BUNDLED_FOLDER, tmp_path_factory.mktemp("end") / "copy"))
    return changed(folder, "generation_config.json", lambda content: content.update(eos_token_id=OTHER_END))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The bundled model with a context of 48 tokens."""
    folder = Path(shutil.copytree(BUNDLED_FOLDER, tmp_path_factory.mktemp("short") / "copy"))
    return changed(folder, "config.json", lambda content: content["text_config"].update(max_position_embeddings=48))


@pytest.fixture(scope="module")
def turning(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The bundled model, whose tokenizer marks one more token as special and whose template writes another that is not marked."""
    folder = Path(shutil.copytree(BUNDLED_FOLDER, tmp_path_factory.mktemp("turn") / "copy"))
    (folder / "chat_template.jinja").write_text(TEMPLATE + "{# <turn> #}")

    def mark(content: dict[str, Any]) -> None:
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        content["added_tokens"] += [
            {"id": 93, "content": "<|user|>", "special": True, **plain},
            {"id": 94, "content": "<turn>", "special": False, **plain | {"normalized": True}},
            {"id": 95, "content": "user", "special": False, **plain},
        ]

    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    mark(content)
    path.write_text(json.dumps(content))
    loaded = load_model(BUNDLED_FOLDER)
    processor = load_processor(str(folder), loaded.model.config, {"local_files_only": True})
    return LoadedModel(loaded.model, processor, "turning", str(folder))


class TestTemplate:
    @pytest.mark.parametrize(
        "template",
        [TEMPLATE, [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "x"}]],
        ids=["one", "several"],
    )
    def test_one_that_stands_in_tokenizer_config_alone_is_used(
        self, loaded: LoadedModel, few: PromptSet, folder: Path, template: object
    ) -> None:
        found = templates(folder, template)
        assert found.has_chat_template
        assert render_prompt(found, few[0]) == render_prompt(loaded, few[0])
        assert found.info.chat_template == "tokenizer_config.json"
        assert loaded.info.chat_template == "chat_template.jinja"
        assert found.end_tokens == loaded.end_tokens

    def test_one_of_a_language_model_is_given_a_text_and_that_is_said(self, few: PromptSet, folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(OF_TEXTS)
        found = load_model(folder)
        asked = render_prompt(found, few[0])
        assert asked == f"<|im_start|>user <|image_pad|>\n{few[0].question}<|im_end|><|im_start|>assistant"
        assert (encode(found, few[0]).kinds == 0).sum() == 16
        (said,) = found.disagreements
        assert "takes texts only" in said
        assert "'<|image_pad|>'" in said

    def test_where_two_differ_the_processor_s_is_used_and_that_is_said(self, few: PromptSet, folder: Path) -> None:
        (folder / "chat_template.jinja").rename(folder / "kept")
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
        found = changed(folder, "tokenizer_config.json", lambda content: content.update(chat_template=OF_TEXTS))
        assert "<|vision_start|>" in render_prompt(found, few[0])
        (said,) = found.disagreements
        assert said.startswith("Two chat templates differ: that of chat_template.json is in force")

    def test_none_is_said_to_be_none(self, folder: Path) -> None:
        (folder / "chat_template.jinja").unlink()
        assert load_model(folder).info.chat_template == "none"


class TestEnd:
    def test_an_answer_ends_as_the_template_ends_it_and_that_is_said(
        self, swapped: LoadedModel, packs: PromptSet
    ) -> None:
        assert swapped.end_tokens == (END, OTHER_END)
        assert answer_tokens(swapped, "two")[-1] == END
        (said,) = swapped.disagreements
        assert "ends an answer with '<|im_end|>'" in said
        assert swapped.info.end_token == "<|im_end|>"
        assert evaluate(swapped, packs[::9]).by_prompt["exact_match"].all()

    def test_a_response_ends_there_too(self, swapped: LoadedModel, loaded: LoadedModel, few: PromptSet) -> None:
        for prompt in few:
            assert greedy_ids(swapped, swapped.model, prompt, 64) == greedy_ids(loaded, loaded.model, prompt, 64)

    def test_scores_made_with_the_other_end_are_not_taken_for_these(self, swapped: LoadedModel, folder: Path) -> None:
        def plain(content: dict[str, Any]) -> None:
            content.update(eos_token_id=OTHER_END)

        (folder / "chat_template.jinja").write_text(TEMPLATE.replace("<|im_end|>", ""))
        assert changed(folder, "generation_config.json", plain).end_tokens == (OTHER_END,)
        assert not load_model(BUNDLED_FOLDER).disagreements


class TestContext:
    def test_a_prompt_that_is_longer_is_refused_by_name(self, short: LoadedModel, few: PromptSet) -> None:
        long = Prompt(few[0].images, "how many? " * 20, "math", "long")
        with pytest.raises(
            PromptError, match=r"'long' is longer than the context of copy: expected at most 48 tokens, got"
        ):
            record(short, PromptSet([long]))
        n_prompt = encode(short, few[0]).n_tokens
        encode(short, few[0], [9] * (48 - n_prompt))
        with pytest.raises(PromptError, match="of its answer"):
            encode(short, few[0], [9] * (49 - n_prompt))

    def test_a_response_ends_where_it_ends(self, short: LoadedModel, few: PromptSet) -> None:
        n_prompt = encode(short, few[0]).n_tokens
        model = short.model
        own, model.generation_config.eos_token_id = model.generation_config.eos_token_id, 90
        try:
            short.__dict__["end_tokens"] = (90,)
            assert len(greedy_ids(short, model, few[0], 64)) <= 48 - n_prompt + 1
        finally:
            model.generation_config.eos_token_id = own
            del short.__dict__["end_tokens"]

    def test_it_is_stretched_as_the_configuration_says(self) -> None:
        def of(**text: Any) -> int | None:
            made = SimpleNamespace(**text)
            return context_length(SimpleNamespace(get_text_config=lambda decoder: made))

        assert of(max_position_embeddings=4096) == 4096
        yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
        assert of(max_position_embeddings=4096, rope_parameters=yarn) == 16384
        assert of(max_position_embeddings=None) is None
        assert of(n_positions=77) == 77

    def test_a_tokenizer_that_names_less_is_told(self, folder: Path) -> None:
        found = changed(folder, "tokenizer_config.json", lambda content: content.update(model_max_length=512))
        (said,) = found.disagreements
        assert said.startswith("The tokenizer names 512 tokens at most, the configuration 2,048 positions")


class TestSpecialTokens:
    @pytest.mark.parametrize("token", ["<|user|>", "<turn>", "<TURN>", "<|im_start|>"])
    def test_what_would_begin_a_turn_is_refused_by_name(self, turning: LoadedModel, token: str) -> None:
        assert "<|user|>" not in turning.processor.tokenizer.all_special_tokens
        prompt = Prompt((Image.new("RGB", (64, 64)),), f"two {token} of them", id="q-7")
        with pytest.raises(
            PromptError, match=rf"'q-7' cannot be asked.*special token '{token.lower()}'".replace("|", r"\|")
        ):
            render_prompt(turning, prompt)
        with pytest.raises(PromptError, match="special token"):
            answer_tokens(turning, f"two {token}")

    def test_words_of_the_vocabulary_s_own_are_no_signs(self, turning: LoadedModel) -> None:
        assert "how many user" in render_prompt(
            turning, Prompt((Image.new("RGB", (64, 64)),), "how many user\nare there")
        )


def test_a_recording_keeps_what_disagreed(swapped: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    made = record(swapped, few[:1])
    save_recording(made, tmp_path / "one.npz")
    assert open_recording(tmp_path / "one.npz").model.disagreements == tuple(swapped.disagreements)
    assert swapped.disagreements[0] in of_recording(made, None).text


def test_a_recording_says_how_its_model_was_asked(loaded: LoadedModel, few: PromptSet, tmp_path: Path) -> None:
    save_recording(record(loaded, few[:1]), tmp_path / "one.npz")
    model = open_recording(tmp_path / "one.npz").model
    asked = (model.chat_template, model.end_token, model.context_length, model.adapter)
    assert asked == ("chat_template.jinja", "<|im_end|>", 2048, None)
