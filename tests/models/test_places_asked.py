"""Marks in a question put the pictures there, in every family: between the texts, by their numbers; without marks all is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from outside import noise, save_outside_model

from vlm_analysis import LoadedModel, Prompt, PromptSet, load_model
from vlm_analysis.errors import PromptError
from vlm_analysis.evaluation.run.evaluate import respond
from vlm_analysis.evaluation.run.sweep import score_header
from vlm_analysis.models.asking import Template, keeps_places
from vlm_analysis.models.inputs import VISION, Encoded, encode, image_grids, render_prompt

FAMILIES = ("qwen2_5_vl", "llava", "idefics3", "no template")
ONE, TWO = noise(1), noise(2)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    bare = request.param == "no template"
    folder = save_outside_model("qwen2_5_vl" if bare else request.param, tmp_path_factory.mktemp("family") / "model")
    if bare:
        (folder / "chat_template.jinja").unlink()
    return load_model(folder)


def words(loaded: LoadedModel, item: Encoded) -> str:
    """Return the words of a prompt in order, with one I for each run of vision tokens; other tokens (w0 is unknown) are left out."""
    found: list[str] = []
    for token, kind in zip(item.tensors["input_ids"][0].tolist(), item.kinds, strict=True):
        text = "I" if kind == VISION else loaded.processor.tokenizer.decode([token])
        if (text == "I" and found[-1:] != ["I"]) or (text.startswith("w") and text != "w0"):
            found.append(text)
    return " ".join(found)


def same(one: Encoded, other: Encoded) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(value, other.tensors[name]) for name, value in one.tensors.items()
    )


def test_vision_tokens_stand_where_the_marks_stand(family: LoadedModel) -> None:
    asked = encode(family, Prompt((ONE, TWO), "w1 <image> w2 <image> w3"))
    assert words(family, asked) == "w1 I w2 I w3"
    assert words(family, encode(family, Prompt((ONE, TWO), "w1 w2\n<image> w3 <image>"))) == "w1 w2 I w3 I"
    grids = image_grids(asked, family)
    assert [int(asked.kinds[first]) for first, _, _ in grids] == [VISION] * len(grids)


def test_numbers_say_which_picture_stands_there(family: LoadedModel) -> None:
    by_number = encode(family, Prompt((ONE, TWO), "w1 <image 2> w2 <image 1> w3"))
    assert words(family, by_number) == "w1 I w2 I w3"
    assert same(by_number, encode(family, Prompt((TWO, ONE), "w1 <image> w2 <image> w3")))
    assert not same(by_number, encode(family, Prompt((ONE, TWO), "w1 <image> w2 <image> w3")))


def test_marks_ahead_of_the_text_ask_what_no_marks_ask(family: LoadedModel) -> None:
    plain = Prompt((ONE, TWO), "w1 w2")
    assert words(family, encode(family, plain)) in ("I w1 w2", "I I w1 w2")
    for question in ("<image> <image>\nw1 w2", "<image 1><image 2> w1 w2"):
        assert same(encode(family, Prompt((ONE, TWO), question)), encode(family, plain))


def test_a_special_token_in_a_text_beside_marks_is_refused(family: LoadedModel) -> None:
    with pytest.raises(PromptError, match="special token '</s>'"):
        encode(family, Prompt((ONE,), "w1 <image> w2 </s>"))


def test_a_prompt_with_marks_is_answered(family: LoadedModel) -> None:
    respond(family, Prompt((ONE, TWO), "w1 <image> w2 <image> w3"), max_new_tokens=2)


def test_scores_kept_where_marks_were_text_are_not_taken_for_these(loaded: LoadedModel) -> None:
    plain, marked = (PromptSet([Prompt((ONE,), question, id="1")]) for question in ("w1", "w1 <image>"))
    assert score_header(loaded, marked, 1).keys() - score_header(loaded, plain, 1).keys() == {"images"}


def test_a_template_that_writes_pictures_first_is_said_to_do_so(loaded: LoadedModel) -> None:
    first = (
        "{% for m in messages %}{% for p in m.content | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
        "{% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}{% endfor %}"
    )
    assert keeps_places(loaded.processor, loaded.template)
    assert not keeps_places(loaded.processor, Template(first, "chat_template.jinja"))


def test_that_is_kept_with_the_model_and_the_text_is_asked_whole(tmp_path: Path) -> None:
    folder = save_outside_model("llava", tmp_path / "first")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for p in m.content if p.type == 'image' %}<image> {% endfor %}"
        "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endfor %} "
    )
    first = load_model(folder)
    (said,) = first.info.disagreements
    assert said.startswith("The chat template of chat_template.jinja writes images first")
    assert words(first, encode(first, Prompt((ONE, TWO), "w1 <image> w2 <image> w3"))) == "I w1 w2 w3"


def test_a_template_that_leaves_out_a_text_is_refused_for_that_prompt(tmp_path: Path) -> None:
    folder = save_outside_model("llava", tmp_path / "one-text")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}<image> {% elif loop.first or loop.last %}"
        "{{ p.text }}{% endif %}{% endfor %}{% endfor %} "
    )
    loaded = load_model(folder)
    assert render_prompt(loaded, Prompt((ONE,), "w1")).strip() == "<image> w1"
    with pytest.raises(PromptError, match=r"expected all texts between its pictures, got none for ' w2 '"):
        render_prompt(loaded, Prompt((ONE, TWO), "w1 <image> w2 <image> w3"))
