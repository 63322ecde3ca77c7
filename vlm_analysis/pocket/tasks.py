"""Questions about drawn pictures, in three domains: general (looking), math (counting, bars, sums), and steps (`reasoning`).

An `Example` is one question with its one right answer. Held-out examples and the bundled prompt packs are fixed by
their seeds; `reserved_keys` gives their content hashes, and training drops every (image, question) that is among them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from PIL import Image

from vlm_analysis.pocket import reasoning
from vlm_analysis.pocket.pictures import (
    COLOURS,
    PLURALS,
    SHAPES,
    Bars,
    Picture,
    Shape,
    Shapes,
    WrittenSum,
    amount,
    count_kind,
    draw_bars,
    draw_shapes,
    draw_sum,
)
from vlm_analysis.pocket.reasoning import QuestionAndAnswer

GENERAL, MATH, STEPS = "general", "math", "steps"
DOMAINS = (GENERAL, MATH, STEPS)
MOST_CAPTIONED = 3
HELD_OUT_PER_DOMAIN = 900
PACK_SIZES = {GENERAL: 45, MATH: 45, STEPS: 64}
MONITOR_PER_DOMAIN = 360  # watched while training


@dataclass(frozen=True)
class Task:
    """A kind of question. `ask` returns a question and its answer, or None where the picture does not allow it."""

    domain: str
    picture: type[Shapes] | type[Bars] | type[WrittenSum]
    ask: Callable[..., QuestionAndAnswer | None]


@dataclass(frozen=True)
class Example:
    """One drawn image with a question, its answer and where it came from (`split`, `seed`)."""

    task: str
    domain: str
    image: Image.Image
    question: str
    answer: str
    split: str
    seed: int
    picture: Picture

    @property
    def key(self) -> str:
        return content_key(self.image, self.question)


def content_key(image: Image.Image, question: str) -> str:
    """Return a hash of pixels and question, by which examples are compared."""
    return hashlib.sha256(image.tobytes() + question.encode()).hexdigest()


# --- general -------------------------------------------------------------------------------------------------------


def _lone_by(picture: Shapes, attribute: str) -> list[Shape]:
    """Return the shapes whose `attribute` no other shape of the picture shares."""
    counts = Counter(getattr(shape, attribute) for shape in picture.shapes)
    return [shape for shape in picture.shapes if counts[getattr(shape, attribute)] == 1]


def _ask_colour(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    lone = _lone_by(picture, "kind")
    if not lone:
        return None
    shape = rng.choice(lone)
    return f"what color is the {shape.kind}?", shape.colour


def _ask_shape(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    lone = _lone_by(picture, "colour")
    if not lone:
        return None
    shape = rng.choice(lone)
    return f"what shape is {shape.colour}?", shape.kind


def _ask_presence(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    there = {(shape.colour, shape.kind) for shape in picture.shapes}
    if rng.random() < 0.5:
        colour, kind = rng.choice(sorted(there))
        return f"is there a {colour} {kind}?", "yes"
    shape = rng.choice(picture.shapes)  # partial matches are the hard case: same colour or same shape
    near = [(shape.colour, kind) for kind in SHAPES] + [(colour, shape.kind) for colour in COLOURS]
    absent = [pair for pair in near if pair not in there]
    if not absent:
        return None
    colour, kind = rng.choice(absent)
    return f"is there a {colour} {kind}?", "no"


def _ask_position(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    pairs = Counter((shape.colour, shape.kind) for shape in picture.shapes)
    lone = [shape for shape in picture.shapes if pairs[shape.colour, shape.kind] == 1]
    if not lone:
        return None
    shape = rng.choice(lone)
    vertical = "top" if shape.row < 2 else "bottom"
    horizontal = "left" if shape.column < 2 else "right"
    return f"where is the {shape.colour} {shape.kind}?", f"{vertical} {horizontal}"


def _ask_caption(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    if len(picture.shapes) > MOST_CAPTIONED:
        return None
    phrases = [f"a {shape.colour} {shape.kind}" for shape in picture.shapes]
    text = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return "describe the picture.", text


# --- math ----------------------------------------------------------------------------------------------------------


def _ask_count_all(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    return "how many shapes are there?", str(len(picture.shapes))


def _ask_count_kind(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    present = sorted({shape.kind for shape in picture.shapes})
    kind = rng.choice(present) if rng.random() < 0.85 else rng.choice(SHAPES)
    return f"how many {PLURALS[kind]} are there?", str(count_kind(picture, kind))


def _ask_count_steps(picture: Shapes, rng: Random) -> QuestionAndAnswer | None:
    present = sorted({shape.kind for shape in picture.shapes})
    if len(present) < 2:
        return None
    first, second = rng.sample(present, 2)
    one, two = count_kind(picture, first), count_kind(picture, second)
    answer = f"step 1: {amount(one, first)}. step 2: {amount(two, second)}. therefore {one + two}"
    return f"add the {PLURALS[first]} and the {PLURALS[second]} step by step.", answer


def _ask_bar_value(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    colour, height = rng.choice(picture.heights)
    return f"how tall is the {colour} bar?", str(height)


def _ask_tallest(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    return "which bar is tallest?", max(picture.heights, key=lambda bar: bar[1])[0]


def _ask_shortest(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    return "which bar is shortest?", min(picture.heights, key=lambda bar: bar[1])[0]


def _ask_bar_steps(picture: Bars, rng: Random) -> QuestionAndAnswer | None:
    (first, one), (second, two) = rng.sample(picture.heights, 2)
    answer = f"step 1: {first} is {one}. step 2: {second} is {two}. therefore {one + two}"
    return f"add the {first} bar and the {second} bar step by step.", answer


def _ask_read_sum(picture: WrittenSum, rng: Random) -> QuestionAndAnswer | None:
    return "read the sum.", f"{picture.left} + {picture.right}"


def _ask_solve_sum(picture: WrittenSum, rng: Random) -> QuestionAndAnswer | None:
    return "solve the sum.", f"{picture.left} + {picture.right} = {picture.left + picture.right}"


TASKS: dict[str, Task] = {
    "colour": Task(GENERAL, Shapes, _ask_colour),
    "shape": Task(GENERAL, Shapes, _ask_shape),
    "presence": Task(GENERAL, Shapes, _ask_presence),
    "position": Task(GENERAL, Shapes, _ask_position),
    "caption": Task(GENERAL, Shapes, _ask_caption),
    "count-all": Task(MATH, Shapes, _ask_count_all),
    "count-kind": Task(MATH, Shapes, _ask_count_kind),
    "count-steps": Task(MATH, Shapes, _ask_count_steps),
    "bar-value": Task(MATH, Bars, _ask_bar_value),
    "bar-tallest": Task(MATH, Bars, _ask_tallest),
    "bar-shortest": Task(MATH, Bars, _ask_shortest),
    "bar-steps": Task(MATH, Bars, _ask_bar_steps),
    "sum-read": Task(MATH, WrittenSum, _ask_read_sum),
    "sum-solve": Task(MATH, WrittenSum, _ask_solve_sum),
    "steps-kinds": Task(STEPS, Shapes, reasoning.ask_kinds),
    "steps-colours": Task(STEPS, Shapes, reasoning.ask_colours),
    "steps-quarters": Task(STEPS, Shapes, reasoning.ask_quarters),
    "steps-bars": Task(STEPS, Bars, reasoning.ask_bars),
    "steps-difference": Task(STEPS, Bars, reasoning.ask_difference),
    "steps-range": Task(STEPS, Bars, reasoning.ask_range),
    "steps-ends": Task(STEPS, Bars, reasoning.ask_ends),
    "steps-carry": Task(STEPS, WrittenSum, reasoning.ask_carry),
}

_NUMBER_TOKENS = tuple("0123456789")
WORDS: tuple[str, ...] = (
    *COLOURS,
    *SHAPES,
    *PLURALS.values(),
    *[
        "shape",
        "shapes",
        "bar",
        "bars",
        "picture",
        "sum",
        "color",
        "a",
        "an",
        "the",
        "is",
        "are",
        "there",
        "what",
        "where",
        "which",
        "how",
        "many",
        "tall",
    ],
    *[
        "tallest",
        "shortest",
        "describe",
        "add",
        "and",
        "step",
        "by",
        "therefore",
        "read",
        "solve",
        "yes",
        "no",
        "top",
        "bottom",
        "left",
        "right",
    ],
    *["user", "assistant", "system"],
)
PUNCTUATION: tuple[str, ...] = ("?", ".", ",", ":", "+", "=")


# --- examples ------------------------------------------------------------------------------------------------------


def draw_picture(kind: type, rng: Random, *, reserved: bool) -> Picture:
    """Draw one picture of `kind`; `reserved` sums use number pairs that training never shows."""
    if kind is Shapes:
        return draw_shapes(rng)
    if kind is Bars:
        return draw_bars(rng)
    return draw_sum(rng, reserved=reserved)


def make_example(task: str, seed: int, *, split: str = "held-out") -> Example:
    """Return the example of `task` for (`split`, `seed`), the same on every machine."""
    kind = TASKS[task]
    rng = Random(f"{split}/{task}/{seed}")
    while True:
        picture = draw_picture(kind.picture, rng, reserved=split != "train")
        pair = kind.ask(picture, rng)
        if pair is not None:
            return Example(task, kind.domain, picture.image, *pair, split=split, seed=seed, picture=picture)


def make_examples(domain: str, count: int, *, split: str = "held-out") -> list[Example]:
    """Return `count` different examples of a domain, from its tasks in turn (no two with the same pixels and question)."""
    tasks = [name for name, task in TASKS.items() if task.domain == domain]
    examples: list[Example] = []
    keys: set[str] = set()
    seed = 0
    while len(examples) < count:
        example = make_example(tasks[len(examples) % len(tasks)], seed, split=split)
        seed += 1
        if example.key not in keys:
            keys.add(example.key)
            examples.append(example)
    return examples


@lru_cache(maxsize=1)
def reserved_keys() -> frozenset[str]:
    """Return the content keys of every held-out, pack and monitor example; which training must never use."""
    return frozenset(
        example.key
        for domain in DOMAINS
        for split, count in sizes(domain).items()
        for example in make_examples(domain, count, split=split)
    )


def sizes(domain: str) -> dict[str, int]:
    """Return how many examples of a domain each split has that training must never use."""
    return {"held-out": HELD_OUT_PER_DOMAIN, "pack": PACK_SIZES[domain], "monitor": MONITOR_PER_DOMAIN}


def ask_about(
    picture: Picture, rng: Random, count: int, *, domains: Sequence[str] = (GENERAL, MATH)
) -> list[tuple[str, QuestionAndAnswer]]:
    """Return up to `count` different (task, (question, answer)) of `domains` that training may ask about one picture."""
    names = [name for name, task in TASKS.items() if isinstance(picture, task.picture) and task.domain in domains]
    by_question: dict[str, tuple[str, QuestionAndAnswer]] = {}
    for _ in range(4 * count):
        name = rng.choice(names)
        pair = TASKS[name].ask(picture, rng)
        if pair is None or pair[0] in by_question or content_key(picture.image, pair[0]) in reserved_keys():
            continue
        by_question[pair[0]] = name, pair
        if len(by_question) == count:
            break
    return list(by_question.values())
