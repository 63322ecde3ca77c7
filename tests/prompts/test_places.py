"""Marks of pictures in a question: one for each picture puts them there, none puts them first, anything else is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.places import has_marks, parts_of, without_leading_marks


@pytest.mark.parametrize(
    ("question", "n_images", "expected"),
    [
        ("what?", 1, (0, "what?")),
        ("what?", 3, (0, 1, 2, "what?")),
        ("<image>\nwhat?", 1, (0, "what?")),
        ("<image> <image>\n what?", 2, (0, 1, "what?")),
        ("<image 1>\n<image 2>what?", 2, (0, 1, "what?")),
        ("what?\n<image>", 1, ("what?\n", 0)),
        ("a <image> b <image> c", 2, ("a ", 0, " b ", 1, " c")),
        ("<image> a <image>", 2, (0, " a ", 1)),
        ("<image><image> a <image>", 3, (0, 1, " a ", 2)),
        ("a <image 2> b <image 1>", 2, ("a ", 1, " b ", 0)),
        ("<image 2><image 1> a", 2, (1, 0, " a")),
        ("is <Image> or <images> or < image> a mark?", 1, (0, "is <Image> or <images> or < image> a mark?")),
    ],
)
def test_each_picture_stands_where_its_mark_does(question: str, n_images: int, expected: tuple[str | int, ...]) -> None:
    assert parts_of(question, n_images) == expected


@pytest.mark.parametrize(
    ("question", "n_images", "message"),
    [
        ("a <image> b", 2, "expected 2 <image> for 2 pictures, got 1"),
        ("a <image> b <image>", 1, "expected 1 <image> for 1 picture, got 2"),
        ("a <image 1> b <image 1>", 2, "expected <image 1> to <image 2>, each once.*got <image 1>, <image 1>"),
        ("a <image 1> b", 2, "got <image 1>"),
        ("a <image 2> b", 1, "expected <image 1>, for 1 picture, got <image 2>"),
        ("a <image 0> b", 1, "got <image 0>"),
        ("a <image 01> b", 1, "got <image 01>"),
        ("a <image 1> b <image>", 2, "got <image 1>, <image>"),
        ("<image>\n<image>", 2, "marks of pictures only"),
    ],
)
def test_marks_that_do_not_fit_the_pictures_are_refused(question: str, n_images: int, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        parts_of(question, n_images)


@pytest.mark.parametrize(
    ("question", "n_images", "expected"),
    [
        ("<image>\nwhat?", 1, "what?"),
        ("  <image> <image>\nwhat?", 2, "what?"),
        ("<image 1><image 2>\nwhat?", 2, "what?"),
        ("what?", 1, "what?"),
        ("<image>what <image>?", 2, "<image>what <image>?"),
        ("<image 2><image 1> what?", 2, "<image 2><image 1> what?"),
        ("<image>\nwhat?", 2, "<image>\nwhat?"),
        ("what?\n<image>", 1, "what?\n<image>"),
        ("<image>", 1, ""),
    ],
)
def test_only_marks_that_say_pictures_first_are_taken_away(question: str, n_images: int, expected: str) -> None:
    assert without_leading_marks(question, n_images) == expected


@given(st.lists(st.sampled_from(["<image>", "<image 1>", "<image 2>", "a", " ", "\n", "<", "image>"]), max_size=8))
def test_parts_hold_every_picture_once_and_no_mark(pieces: list[str]) -> None:
    question = "".join(pieces)
    try:
        parts = parts_of(question, 2)
    except PromptError:
        return
    assert sorted(part for part in parts if isinstance(part, int)) == [0, 1]
    texts = [part for part in parts if isinstance(part, str)]
    assert not any(map(has_marks, texts))
    assert "".join("".join(texts).split()) == "".join(re.sub(r"<image(?: \d)?>", "", question).split())
