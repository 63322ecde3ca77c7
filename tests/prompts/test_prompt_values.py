"""What a prompt holds beside its question: accepted answers, its task, the places of its pictures; and what of it makes its key."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vlm_analysis import Prompt, PromptSet, open_prompts
from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.writing import write_prompts

RED, BLUE = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))


def prompt(question: str = "what?", **more: object) -> Prompt:
    return Prompt((RED,), question, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "answer", "answers"),
    [
        ({"answers": ("net", "a net", "net")}, "net", ("net", "a net")),
        ({"answers": ["a net", "net", "net"]}, "net", ("net", "a net")),
        ({"answers": ("one", "two")}, "one", ("one", "two")),
        ({"answer": "two", "answers": ("one", "two", " ")}, "two", ("two", "one")),
        ({"answers": (" net ", "net")}, "net", None),
        ({"answer": "net", "answers": ()}, "net", None),
        ({"answers": ("", " ")}, None, None),
    ],
)
def test_the_answer_is_the_first_of_the_accepted_ones(
    given: dict[str, object], answer: str | None, answers: tuple[str, ...] | None
) -> None:
    made = prompt(**given)
    assert (made.answer, made.answers) == (answer, answers)
    again = replace(made)
    assert (again.answer, again.answers, again.key) == (answer, answers, made.key)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answers": "net"}, "accepted answers could not be used: expected a tuple of texts, got a str"),
        ({"answers": ("net", 3)}, "accepted answer could not be used: expected text, got a int"),
        ({"answers": ["x"] * 101}, "expected 100 at most, got 101"),
        ({"task": "t" * 201}, "the task is too long"),
        ({"question": "is <image> like <image>?"}, "expected 1 <image> for 1 picture, got 2"),
        ({"question": "<image>"}, "marks of pictures only"),
    ],
)
def test_what_a_prompt_cannot_hold_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompt(**given)


def test_the_places_of_the_pictures_are_its_parts() -> None:
    assert Prompt((RED, BLUE), "a <image 2> b <image 1>").parts == ("a ", 1, " b ", 0)
    assert prompt("<image>\nwhat?").parts == prompt().parts == (0, "what?")


def key_of_0_1(one: Prompt) -> str:
    fields = [one.image_hashes, one.question, one.answer, one.choices]
    return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:24]


def test_what_is_unset_and_task_and_group_enter_no_key() -> None:
    plain = prompt("what is <image>?", answer="net", id="1")
    for same in (plain, replace(plain, task="ocr"), replace(plain, group="g"), replace(plain, answers=("net",))):
        assert same.key == key_of_0_1(plain)
        assert same.content == plain.content
    assert PromptSet([plain]).fingerprint == PromptSet([replace(plain, task="ocr")]).fingerprint


def test_rows_that_0_1_recorded_with_a_mark_as_text_are_not_taken_for_these() -> None:
    plain, marked = prompt(id="1"), prompt("what is <image>?", id="1")

    def of_0_1(one: Prompt) -> str:
        return one.key + hashlib.sha256(json.dumps([one.domain, 0]).encode()).hexdigest()[:8]

    assert PromptSet([plain]).row_keys == (of_0_1(plain),)
    assert PromptSet([marked]).row_keys != (of_0_1(marked),)
    assert PromptSet([marked]).row_keys[0].startswith(marked.key)


def test_accepted_answers_make_another_prompt() -> None:
    plain = prompt(answer="net", id="1")
    several = replace(plain, answers=("a net",))
    assert several.answers == ("net", "a net")
    assert len({plain.key, several.key, replace(plain, answers=("mesh",)).key}) == 3
    assert PromptSet([plain]).fingerprint != PromptSet([several]).fingerprint
    given_otherwise = prompt(answers=("net", "a net", "net"), id="1")
    assert given_otherwise.key == several.key


TWO = {"choices": ["pump", "valve"]}
ROWS = {
    "answers": ({"answers": ["net", "a net", "net"]}, "net", ("net", "a net")),
    "answers as text": ({"answers": '["net", "a net"]'}, "net", ("net", "a net")),
    "answer as a list": ({"answer": ["net", "a net"]}, "net", ("net", "a net")),
    "both": ({"answer": "mesh", "answers": ["net", 3]}, "mesh", ("mesh", "net", "3")),
    "objects": (
        {"answers": [{"answer": "mesh", "answer_confidence": "maybe"}, *[{"answer": "net", "answer_id": 2}] * 2]},
        "net",
        ("net", "mesh"),
    ),
    "letter": ({"answer": "B", **TWO}, "valve", None),
    "number": ({"answer": 1, **TWO}, "valve", None),
    "a number that is a choice": ({"answer": 1, "choices": ["1", "2"]}, "1", None),
    "letters": ({"answers": ["a", "B"], **TWO}, "pump", ("pump", "valve")),
    "none": ({"answer": None, "answers": []}, None, None),
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_form_of_accepted_answers_is_read_saved_and_opened_again(kind: str, folder: Path, tmp_path: Path) -> None:
    cells, answer, answers = ROWS[kind]
    (folder / "own.jsonl").write_text(json.dumps({"image": "a.png", "question": "what?", "task": "ocr", **cells}))
    read = open_prompts(folder / "own.jsonl")
    assert (read[0].answer, read[0].answers, read[0].task, read.problems) == (answer, answers, "ocr", ())
    again = open_prompts(write_prompts(read, tmp_path / "kept"))
    assert again.fingerprint == read.fingerprint
    assert (again[0].answer, again[0].answers, again[0].task) == (answer, answers, "ocr")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"answer": "C", **TWO}, "the answer is none of the choices: expected one of 'pump', 'valve', its letter"),
        ({"answers": {"a": 1}}, "'answers' could not be read: expected a list, got a dict"),
        ({"answers": [["net"]]}, "'answers' could not be read: expected text or a number, got a list"),
        ({"question": "is <image> like <image>?"}, "expected 1 <image> for 1 picture, got 2"),
        ({"question": "is <image 2> red?"}, "got <image 2>"),
    ],
)
def test_a_row_that_a_prompt_cannot_hold_is_named_and_the_others_are_read(
    cells: dict[str, object], message: str, folder: Path
) -> None:
    rows = [{"image": "a.png", "question": "what?"}, {"image": "a.png", "question": "what?", **cells}]
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    read = open_prompts(folder / "own.jsonl")
    assert (len(read), [problem.row for problem in read.problems]) == (1, [2])
    assert message in read.problems[0].message
