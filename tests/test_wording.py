"""Differences of two responses: no text is lost, marks are where words differ, and steps begin where a reader sees them begin."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from vlm_analysis.evaluation.diff import Piece, by_step, first_divergent_step, split_steps, word_diff

PARTS = [
    "step 1: ",
    "Step 2. ",
    "therefore ",
    "Thus, ",
    "\n1. ",
    "\n",
    " ",
    "\t",
    "  ",
    "seven",
    "é",
    "a",
    "b.",
    "=",
    ":",
]
texts = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
DENSE = "step 1: black is 4. step 2: blue is 9. therefore 13"


def joined(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def words(pieces: list[Piece], *, changed: bool) -> list[str]:
    return [word for piece in pieces if piece.changed == changed for word in piece.text.split()]


class TestWordDiff:
    @given(texts, texts)
    def test_joined_pieces_are_the_texts_and_what_is_alike_is_alike(self, one: str, other: str) -> None:
        left, right = word_diff(one, other)
        assert (joined(left), joined(right)) == (one, other)
        assert words(left, changed=False) == words(right, changed=False)
        for side in (left, right):
            assert all(piece.text for piece in side)
            assert all(first.changed != second.changed for first, second in pairwise(side))

    @given(texts)
    def test_a_text_is_like_itself(self, text: str) -> None:
        assert not any(piece.changed for side in word_diff(text, text) for piece in side)

    @given(texts, texts)
    def test_texts_with_the_same_words_have_no_mark_and_others_have_one(self, one: str, other: str) -> None:
        marked = any(words(side, changed=True) for side in word_diff(one, other))
        assert marked == (one.split() != other.split())

    def test_a_worked_example(self) -> None:
        left, right = word_diff("a red  circle", "a blue circle\n")
        assert left == [("a ", False), ("red  ", True), ("circle", False)]
        assert right == [("a ", False), ("blue ", True), ("circle\n", False)]


class TestSteps:
    @given(texts)
    def test_joined_steps_are_the_text_and_none_is_blank(self, text: str) -> None:
        steps = split_steps(text)
        assert "".join(steps) == text
        assert len(steps) == 1 or all(step.strip() for step in steps)

    @pytest.mark.parametrize(
        ("text", "steps"),
        [
            (DENSE, ["step 1: black is 4. ", "step 2: blue is 9. ", "therefore 13"]),
            ("Let us see.\nStep 1. x Step 2. y", ["Let us see.\nStep 1. x ", "Step 2. y"]),
            (
                "**Step 1:** x\n### Step 2: y\n**Therefore**, z",
                ["**Step 1:** x\n", "### Step 2: y\n", "**Therefore**, z"],
            ),
            ("1. count\n2) add\nThus 3", ["1. count\n", "2) add\n", "Thus 3"]),
            ("x is 3, thus y", ["x is 3, ", "thus y"]),
            ("the next step is 12. thusly 3.5", ["the next step is 12. thusly 3.5"]),
            ("  therefore 3", ["  therefore 3"]),
            ("", [""]),
        ],
    )
    def test_worked_examples(self, text: str, steps: list[str]) -> None:
        assert split_steps(text) == steps

    @given(texts, texts)
    def test_pieces_are_cut_where_the_steps_begin(self, one: str, other: str) -> None:
        pieces = word_diff(one, other)[0]
        cut = by_step(pieces)
        assert [joined(step) for step in cut] == split_steps(one)
        whole = "".join(("1" if piece.changed else "0") * len(piece.text) for piece in pieces)
        assert "".join(("1" if piece.changed else "0") * len(piece.text) for step in cut for piece in step) == whole


class TestFirstDivergentStep:
    @pytest.mark.parametrize(
        ("pruned", "step"),
        [
            (DENSE, None),
            (DENSE.replace(" ", "  "), None),
            (DENSE.replace("4", "5"), 0),
            (DENSE.replace("9", "8").replace("13", "12"), 1),
            (DENSE.replace("13", "12"), 2),
            (DENSE.replace("therefore 13", ""), 2),
            (DENSE + " thus 13", 3),
            ("13", 0),
            ("", 0),
        ],
    )
    def test_worked_examples(self, pruned: str, step: int | None) -> None:
        assert first_divergent_step(DENSE, pruned) == step
        assert first_divergent_step(pruned, DENSE) == step

    def test_answers_that_are_not_step_by_step_have_none(self) -> None:
        assert first_divergent_step("a red circle", "a blue circle") is None

    @given(texts, texts)
    def test_the_steps_before_it_are_alike_and_it_is_not(self, one: str, other: str) -> None:
        left, right, step = split_steps(one), split_steps(other), first_divergent_step(one, other)
        if step is None:
            assert one.split() == other.split() or max(len(left), len(right)) == 1
        else:
            assert [text.split() for text in left[:step]] == [text.split() for text in right[:step]]
            assert left[step : step + 1] != right[step : step + 1]
