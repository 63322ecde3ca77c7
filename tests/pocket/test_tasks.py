"""Pocket-VL's examples: the same everywhere, every answer true of its picture, and held-out means held out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from random import Random

import pytest
from transformers import PreTrainedTokenizerFast

from vlm_analysis import open_prompts
from vlm_analysis.pocket import tasks
from vlm_analysis.pocket.build import build_tokenizer
from vlm_analysis.pocket.pictures import (
    BACKGROUND,
    CELL,
    COLOURS,
    PLURALS,
    Bars,
    Shapes,
    WrittenSum,
    draw_sum,
    is_reserved_pair,
)
from vlm_analysis.pocket.tasks import (
    DOMAINS,
    GENERAL,
    MATH,
    PACK_SIZES,
    STEPS,
    TASKS,
    Example,
    ask_about,
    content_key,
    make_example,
    make_examples,
    reserved_keys,
    sizes,
)

SOME = [
    make_example(task, seed, split=split) for task in TASKS for seed in range(12) for split in ("held-out", "train")
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def sets() -> dict[tuple[str, str], list[Example]]:
    return {
        (split, domain): make_examples(domain, n, split=split)
        for domain in DOMAINS
        for split, n in sizes(domain).items()
    }


# --- the answers, told anew from the facts of the picture ------------------------------------------------------------


def singular(plural: str) -> str:
    return next(kind for kind, many in PLURALS.items() if many == plural)


def count_steps(one: int, first: str, two: int, second: str) -> str:
    words = [f"{n} {singular(plural) if n == 1 else plural}" for n, plural in ((one, first), (two, second))]
    return f"step 1: {words[0]}. step 2: {words[1]}. therefore {one + two}"


def of_shapes(picture: Shapes, question: str) -> str:
    facts = [(shape.colour, shape.kind, shape.row, shape.column) for shape in picture.shapes]
    if found := re.fullmatch(r"what color is the (\w+)\?", question):
        (answer,) = [colour for colour, kind, *_ in facts if kind == found[1]]
        return answer
    if found := re.fullmatch(r"what shape is (\w+)\?", question):
        (answer,) = [kind for colour, kind, *_ in facts if colour == found[1]]
        return answer
    if found := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
        return "yes" if any(fact[:2] == (found[1], found[2]) for fact in facts) else "no"
    if found := re.fullmatch(r"where is the (\w+) (\w+)\?", question):
        ((row, column),) = [fact[2:] for fact in facts if fact[:2] == (found[1], found[2])]
        return f"{('top', 'bottom')[row // 2]} {('left', 'right')[column // 2]}"
    if question == "describe the picture.":
        words = [f"a {colour} {kind}" for colour, kind, *_ in sorted(facts, key=lambda fact: fact[2:])]
        return {1: "{}", 2: "{} and {}", 3: "{}, {} and {}"}[len(words)].format(*words)
    numbers = Counter(PLURALS[kind] for _, kind, *_ in facts)
    if question == "how many shapes are there?":
        return str(numbers.total())
    if found := re.fullmatch(r"how many (\w+) are there\?", question):
        return str(numbers[found[1]])
    found = re.fullmatch(r"add the (\w+) and the (\w+) step by step\.", question)
    assert found
    return count_steps(numbers[found[1]], found[1], numbers[found[2]], found[2])


def of_bars(picture: Bars, question: str) -> str:
    heights = dict(picture.heights)
    if found := re.fullmatch(r"how tall is the (\w+) bar\?", question):
        return str(heights[found[1]])
    if question in ("which bar is tallest?", "which bar is shortest?"):
        end = max(heights.values()) if "tallest" in question else min(heights.values())
        (answer,) = [colour for colour, height in heights.items() if height == end]
        return answer
    found = re.fullmatch(r"add the (\w+) bar and the (\w+) bar step by step\.", question)
    assert found
    one, two = heights[found[1]], heights[found[2]]
    return f"step 1: {found[1]} is {one}. step 2: {found[2]} is {two}. therefore {one + two}"


def of_sum(picture: WrittenSum, question: str) -> str:
    written = f"{picture.left} + {picture.right}"
    return {"read the sum.": written, "solve the sum.": f"{written} = {picture.left + picture.right}"}[question]


class TestExamples:
    @pytest.mark.parametrize(
        ("task", "split", "seed", "start"),
        [
            ("position", "held-out", 3, "f915ef818a1a6534"),
            ("bar-steps", "train", 7, "8aee04c411beaf63"),
            ("sum-solve", "pack", 1, "28bacc7bcc06a121"),
        ],
    )
    def test_a_seed_gives_the_same_pixels_and_text_everywhere(
        self, task: str, split: str, seed: int, start: str
    ) -> None:
        example = make_example(task, seed, split=split)
        told = example.image.tobytes() + f"{example.question}|{example.answer}".encode()
        assert hashlib.sha256(told).hexdigest()[:16] == start

    def test_the_same_seed_twice_is_the_same_example_and_another_is_not(self) -> None:
        one, same, other = (make_example("caption", seed) for seed in (1, 1, 2))
        assert one.key == same.key
        assert one.image.tobytes() == same.image.tobytes()
        assert one.key != other.key
        assert make_example("caption", 1, split="train").key != one.key

    @pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.domain != STEPS])
    def test_every_answer_is_true_of_the_picture(self, task: str) -> None:
        for example in SOME:
            if example.task == task:
                tell = {Shapes: of_shapes, Bars: of_bars, WrittenSum: of_sum}[type(example.picture)]
                assert tell(example.picture, example.question) == example.answer, example.seed  # type: ignore[operator]

    def test_what_the_facts_name_is_what_is_painted(self) -> None:
        """The middle of a shape's cell has its colour; other cells are empty; a bar is as high as told."""
        for example in SOME:
            picture, pixel = example.picture, example.image.getpixel
            if isinstance(picture, Shapes):
                painted = {(shape.row, shape.column): COLOURS[shape.colour] for shape in picture.shapes}
                for row in range(4):
                    for column in range(4):
                        middle = (column * CELL + CELL // 2, row * CELL + CELL // 2 + 1)
                        assert pixel(middle) == painted.get((row, column), BACKGROUND)
            elif isinstance(picture, Bars):
                seen = Counter(pixel((x, y)) for x in range(64) for y in range(60))
                for colour, height in picture.heights:
                    assert seen[COLOURS[colour]] == 10 * 6 * height

    def test_both_words_of_yes_and_no_questions_come_up(self) -> None:
        answers = Counter(make_example("presence", seed).answer for seed in range(60))
        assert min(answers["yes"], answers["no"]) > 12

    def test_the_tokenizer_gives_every_text_back(self, tokenizer: PreTrainedTokenizerFast) -> None:
        for example in SOME:
            for text in (example.question, example.answer):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert tokenizer.unk_token_id not in ids, text
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


class TestSets:
    def test_they_have_the_declared_sizes_and_no_example_twice(
        self, sets: dict[tuple[str, str], list[Example]]
    ) -> None:
        for (split, domain), examples in sets.items():
            assert len(examples) == sizes(domain)[split] == len({example.key for example in examples})
            assert {example.domain for example in examples} == {domain}
            tasks_of = Counter(example.task for example in examples)
            assert set(tasks_of) == {name for name, task in TASKS.items() if task.domain == domain}
            assert max(tasks_of.values()) - min(tasks_of.values()) <= 1

    def test_every_one_of_them_is_reserved(self, sets: dict[tuple[str, str], list[Example]]) -> None:
        assert reserved_keys() == {example.key for examples in sets.values() for example in examples}

    def test_their_sums_are_of_reserved_pairs(self, sets: dict[tuple[str, str], list[Example]]) -> None:
        sums = [e.picture for examples in sets.values() for e in examples if isinstance(e.picture, WrittenSum)]
        assert len(sums) > 200
        assert all(is_reserved_pair(picture.left, picture.right) for picture in sums)

    @pytest.mark.parametrize("report", [False, True])
    @pytest.mark.parametrize("domain", DOMAINS)
    def test_the_packs_on_disk_are_the_examples_as_drawn(
        self, sets: dict[tuple[str, str], list[Example]], domain: str, report: bool
    ) -> None:
        stored, drawn = open_prompts(domain), sets["pack", domain]
        if report:
            stored, drawn = open_prompts(f"{domain}-report"), sets["held-out", domain][-PACK_SIZES[domain] :]
        assert not stored.problems
        assert len(stored) == len(drawn)
        for prompt, example in zip(stored, drawn, strict=True):
            (image,) = prompt.load_images()
            assert content_key(image, prompt.question) == example.key
            assert (prompt.answer, prompt.domain) == (example.answer, domain)
            assert prompt.id == f"{example.task}-{example.seed}"


class TestHeldOut:
    def test_a_held_out_question_is_never_asked_about_its_picture(
        self, sets: dict[tuple[str, str], list[Example]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for key in (("held-out", GENERAL), ("pack", MATH), ("monitor", MATH)):
            for example in sets[key][:6]:

                def asked(example: Example = example) -> set[str]:
                    draws = [ask_about(example.picture, Random(seed), 4) for seed in range(40)]
                    return {question for draw in draws for _, (question, _) in draw}

                assert example.question not in asked()
                with monkeypatch.context() as patch:
                    patch.setattr(tasks, "reserved_keys", frozenset)
                    assert example.question in asked()  # it would come up, were it not for the rejection

    def test_questions_about_one_picture_differ_and_are_true(self) -> None:
        rng = Random(3)
        for number in range(30):
            picture = tasks.draw_picture((Shapes, Bars, WrittenSum)[number % 3], rng, reserved=False)
            pairs = ask_about(picture, rng, 5)
            questions = [question for _, (question, _) in pairs]
            assert len(set(questions)) == len(questions) <= 5
            for name, (question, answer) in pairs:
                tell = {Shapes: of_shapes, Bars: of_bars, WrittenSum: of_sum}[TASKS[name].picture]
                assert tell(picture, question) == answer  # type: ignore[operator]

    def test_about_one_pair_in_ten_is_reserved_and_never_drawn_for_training(self) -> None:
        pairs = [(left, right) for left in range(10, 100) for right in range(10, 100)]
        assert 0.09 < sum(is_reserved_pair(*pair) for pair in pairs) / len(pairs) < 0.11
        rng = Random(0)
        for reserved in (False, True):
            drawn = [draw_sum(rng, reserved=reserved) for _ in range(300)]
            assert all(is_reserved_pair(picture.left, picture.right) == reserved for picture in drawn)
