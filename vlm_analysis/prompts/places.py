"""Where the pictures of a prompt stand: marks in its question, `<image>` in turn, or `<image 2>` by the number of the picture.

Marks are no text: a model never reads them. A question without marks, or with all of them ahead of its text, has its pictures first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlm_analysis.errors import PromptError
from vlm_analysis.words import counted

MARK = "<image>"
Parts = Sequence[str | int]
"""The texts of a question and, where a picture stands, its index from 0."""

_MARK = re.compile(r"<image(?: ([0-9]{1,4}))?>")
_LEADING = re.compile(rf"(?:{_MARK.pattern}\s*)+")
_ADVICE = "Write one mark for each picture, or none: then they come first."


def has_marks(question: str) -> bool:
    """Return whether a question holds marks of pictures."""
    return _MARK.search(question) is not None


def parts_of(question: str, n_images: int) -> tuple[str | int, ...]:
    """Return a question as its texts and, where each picture stands, the picture's index from 0.

    Texts stay as they are written, blanks included; where all marks lead the text, in order, they are left out with the blanks behind them.

    Raises:
        PromptError: there are marks, but not one for each picture, or nothing else.

    >>> parts_of("what is this?", 2), parts_of("from <image 2> to <image 1>?", 2)
    ((0, 1, 'what is this?'), ('from ', 1, ' to ', 0, '?'))
    """
    if not has_marks(question):
        return (*range(n_images), question)
    order = _order(question, n_images)
    if not _MARK.sub("", question).strip():
        raise PromptError("the question holds marks of pictures only: expected text too, got none. Write what to ask.")
    plain = without_leading_marks(question, n_images)
    if not has_marks(plain):
        return (*range(n_images), plain)
    texts = _MARK.split(question)[::2]
    parts: list[str | int] = [texts[0]]
    for picture, text in zip(order, texts[1:], strict=True):
        parts += [picture, text]
    return tuple(part for part in parts if part != "")


def without_leading_marks(question: str, n_images: int) -> str:
    """Return a question without marks that only say "pictures first": all lead the text, in the pictures' order. Any other stays.

    >>> without_leading_marks("<image>\\nwhat is this?", 1), without_leading_marks("what is <image>?", 1)
    ('what is this?', 'what is <image>?')
    """
    leading = _LEADING.match(question.lstrip())
    if leading is None or has_marks(rest := question.lstrip()[leading.end() :]):
        return question
    return rest if _numbers(leading.group()) in ([""] * n_images, _named(range(n_images))) else question


def in_one_line(parts: Parts) -> str:
    """Return parts as one line for people: "from [picture 2] to [picture 1]?"."""
    return "".join(part if isinstance(part, str) else f"[picture {part + 1}]" for part in parts)


def order_of(parts: Parts) -> list[int]:
    """Return the pictures in the order in which they stand."""
    return [part for part in parts if isinstance(part, int)]


def texts_of(parts: Parts) -> list[str]:
    """Return the texts between the pictures."""
    return [part for part in parts if isinstance(part, str)]


def _order(question: str, n_images: int) -> list[int]:
    """Return the picture of each mark; raises PromptError unless there is one for each."""
    numbers = _numbers(question)
    if not any(numbers):
        if len(numbers) != n_images:
            raise PromptError(
                f"the marks in the question do not fit: expected {n_images} {MARK} for {counted(n_images, 'picture')}, got {len(numbers)}. "
                f"{_ADVICE}"
            )
        return list(range(n_images))
    if sorted(numbers) != sorted(_named(range(n_images))):
        wanted = "<image 1>" if n_images == 1 else f"<image 1> to <image {n_images}>, each once"
        got = ", ".join(f"<image {number}>" if number else MARK for number in numbers[:8])
        raise PromptError(
            f"the marks in the question do not fit: expected {wanted}, for {counted(n_images, 'picture')}, got {got}. {_ADVICE}"
        )
    return [int(number) - 1 for number in numbers]


def _numbers(text: str) -> list[str]:
    """Return the number of each mark as it is written; "" for one without."""
    return [mark.group(1) or "" for mark in _MARK.finditer(text)]


def _named(pictures: Sequence[int]) -> list[str]:
    return [str(picture + 1) for picture in pictures]
