"""Two responses side by side: which words differ, and at which step of a step-by-step answer they diverge."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import groupby, zip_longest
from typing import NamedTuple

# Where a step begins: "step 2:", "Step 2.", "2." or "2)" at the start of a line, "therefore", "thus". Our choice of markers, after
# the pivots of arXiv:2605.25842.
_STEP = re.compile(
    r"(?<!\S)(?:\#+[ \t]+)?[*_]*step\s+\d+[*_]*\s*[:.)]"  # a markdown heading or bold may surround it
    r"|(?<!\S)[*_]*(?P<end>therefore|thus)\b"
    r"|^[ \t]*\d+[.)](?=\s)",
    re.IGNORECASE | re.MULTILINE,
)


class Piece(NamedTuple):
    """A part of a text, and whether it has no counterpart in the other text."""

    text: str
    changed: bool


def word_diff(dense: str, pruned: str) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces, alternately unchanged and changed; joined, the pieces are the texts.

    Only words are compared, not the blanks between them; a blank belongs to the word before it.
    """
    words = [re.findall(r"^\s+|\S+\s*", text) for text in (dense, pruned)]
    bare = [[word.strip() for word in side] for side in words]
    changed = [[True] * len(side) for side in words]
    for first, second, size in SequenceMatcher(None, bare[0], bare[1], autojunk=False).get_matching_blocks():
        changed[0][first : first + size] = changed[1][second : second + size] = [False] * size
    left, right = (_joined(side, marks) for side, marks in zip(words, changed, strict=True))
    return left, right


def _joined(words: list[str], changed: list[bool]) -> list[Piece]:
    runs = groupby(zip(words, changed, strict=True), key=lambda pair: pair[1])
    return [Piece("".join(word for word, _ in run), mark) for mark, run in runs]


def split_steps(text: str) -> list[str]:
    """Return the steps of an answer; joined, they are the text. An answer without steps is one step.

    Text before the first numbered step belongs to that step; text before "therefore" or "thus" is a separate step.
    """
    matches = list(_STEP.finditer(text))
    cuts = [match.start() for match in matches]
    if (matches and matches[0]["end"] is None) or (cuts and not text[: cuts[0]].strip()):
        cuts[0] = 0
    edges = sorted({0, *cuts})
    return [text[start:end] for start, end in zip_longest(edges, edges[1:])]


def by_step(pieces: list[Piece]) -> list[list[Piece]]:
    """Return the pieces of each step of a text (see `word_diff`), cut where steps begin."""
    steps: list[list[Piece]] = []
    rest = list(pieces)
    for step in split_steps("".join(piece.text for piece in pieces)):
        room, step_pieces = len(step), []
        while rest and room >= len(rest[0].text):
            step_pieces.append(rest.pop(0))
            room -= len(step_pieces[-1].text)
        if room:
            step_pieces.append(rest[0]._replace(text=rest[0].text[:room]))
            rest[0] = rest[0]._replace(text=rest[0].text[room:])
        steps.append(step_pieces)
    return steps


def first_divergent_step(dense: str, pruned: str) -> int | None:
    """Return the first step (from 0, see `split_steps`) whose words differ between two answers.

    A step that only one of them has differs. None where no step differs, or neither answer has steps.
    """
    one, other = split_steps(dense), split_steps(pruned)
    if max(len(one), len(other)) < 2:
        return None
    pairs = zip_longest(one, other, fillvalue="")
    return next((index for index, (left, right) in enumerate(pairs) if left.split() != right.split()), None)
