"""Questions in steps: three to five numbered steps, each true of the picture, and the end is what the question asks for."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from vlm_analysis.pocket.pictures import PLURALS, Bars, Shapes, WrittenSum
from vlm_analysis.pocket.tasks import STEPS, TASKS, Example, ask_about, draw_picture, make_example

NAMES = [name for name, task in TASKS.items() if task.domain == STEPS]
NUMBERED = re.compile(r"step (\d): (.+?)\. ")


def words_of(example: Example) -> tuple[list[str], str]:
    """Return what stands in each step, and behind "therefore"."""
    steps, end = example.answer.split("therefore ")
    parts = NUMBERED.findall(steps)
    assert "".join(f"step {number}: {part}. " for number, part in parts) == steps
    assert [int(number) for number, _ in parts] == list(range(1, len(parts) + 1))
    return [part for _, part in parts], end


def facts_of(example: Example) -> set[str]:
    """Return every reading that is true of the picture, in the words of the steps."""
    picture = example.picture
    if isinstance(picture, WrittenSum):
        return {f"{picture.left} + {picture.right}"}
    if isinstance(picture, Bars):
        facts = {f"{colour} is {height}" for colour, height in picture.heights}
        for word, end in (("tallest", max), ("shortest", min)):
            colour, height = end(picture.heights, key=lambda bar: bar[1])
            facts |= {f"{word} is {colour}", f"{word} is {colour}, {height}"}
        return facts
    kinds, colours = (Counter(getattr(one, what) for one in picture.shapes) for what in ("kind", "colour"))
    facts = {f"{n} {kind if n == 1 else PLURALS[kind]}" for kind, n in kinds.items()}
    facts |= {f"{n} {colour}" for colour, n in colours.items()}
    for row, vertical in enumerate(("top", "bottom")):
        for column, horizontal in enumerate(("left", "right")):
            n = sum((one.row // 2, one.column // 2) == (row, column) for one in picture.shapes)
            facts.add(f"{vertical} {horizontal} is {n}")
    return facts


def wanted(example: Example) -> int:
    """Return the number that the question asks for, told from the facts alone."""
    picture, question = example.picture, example.question
    words = re.findall(r"\w+", question)
    if isinstance(picture, WrittenSum):
        return picture.left + picture.right
    if isinstance(picture, Shapes):
        named = [one for one in picture.shapes if PLURALS[one.kind] in words or one.colour in words]
        return len(picture.shapes if question == "how many shapes are there? step by step." else named)
    heights = dict(picture.heights) | {"tallest": max(picture.heights, key=lambda bar: bar[1])[1]}
    heights["shortest"] = min(height for _, height in picture.heights)
    named_heights = [heights[word] for word in words if word in heights]
    return named_heights[1] - named_heights[0] if "what" in words else sum(named_heights)


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_true_and_the_end_is_what_was_asked_for(name: str) -> None:
    for seed in range(40):
        example = make_example(name, seed)
        steps, end = words_of(example)
        assert 3 <= len(steps) <= 5
        assert int(end.split(" = ")[-1]) == wanted(example), example
        for step in (*steps, end):
            added, equals, total = step.partition(" = ")
            if equals:
                assert sum(map(int, added.split(" + "))) == int(total), example.answer
            elif step != end:
                assert step in facts_of(example), example.answer


def test_a_written_sum_is_added_digit_by_digit_with_what_is_carried() -> None:
    answers = {}
    for seed in range(60):
        picture = make_example("steps-carry", seed).picture
        assert isinstance(picture, WrittenSum)
        answers[(picture.left % 10 + picture.right % 10) // 10] = make_example("steps-carry", seed)
    for carried, example in answers.items():
        left, right = re.findall(r"\d+", words_of(example)[0][0])
        low, high = words_of(example)[0][1:]
        assert low.startswith(f"{left[1]} + {right[1]} = ")
        assert high.startswith(f"{left[0]} + {right[0]} + {carried} = ")
    assert set(answers) == {0, 1}


def test_each_is_asked_in_training_where_it_is_wanted_and_nowhere_else() -> None:
    rng, asked = Random(0), Counter[str]()
    for number in range(90):
        picture = draw_picture((Shapes, Bars, WrittenSum)[number % 3], rng, reserved=False)
        asked.update(name for name, _ in ask_about(picture, rng, 3, domains=(STEPS,)))
        assert not {name for name, _ in ask_about(picture, rng, 6)} & set(NAMES)
    assert set(asked) == set(NAMES)
