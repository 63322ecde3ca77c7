"""Texts with some words marked, as markdown in which nothing of the text is acted on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vlm_analysis.evaluation.diff import Piece
from vlm_analysis.ui.common.text import escaped

NOTHING = "(nothing)"
MARKS = ("orange", "blue")  # of words that only the dense, only the pruned response has; they are bold too
JOINER = "\u2060"  # an invisible start of a line, before which markdown knows no list, heading or code


def marked(pieces: Sequence[Piece], colour: str) -> str:
    """Return the markdown of pieces of text: line breaks and blanks kept, changed words bold on a colour, nothing else acted on."""
    if not any(piece.text.strip() for piece in pieces):
        return escaped(NOTHING)
    return JOINER + "".join(_marked(piece, colour) for piece in pieces)


def _marked(piece: Piece, colour: str) -> str:
    parts = re.split(r"(\s*\n\s*|^\s+|\s+$)", piece.text)  # a mark ends with its line, and holds no blank at its ends
    return "".join(
        _blank(part)
        if part.isspace()
        else f":{colour}-background[**{_words(part)}**]"
        if piece.changed
        else _words(part)
        for part in parts
        if part
    )


def _words(text: str) -> str:
    return re.sub(r"\s{2,}", lambda run: _blank(run[0]), escaped(text))


def _blank(text: str) -> str:
    """Return blanks that markdown keeps; after a line break comes the joiner, so that nothing there begins a block."""
    lines = text.expandtabs(4).split("\n")
    kept = [line if line == " " else "\u00a0" * len(line) for line in lines]
    return f"  \n{JOINER}".join(kept)
