"""Two responses as the page shows them: side by side, the words that differ marked, and where they part."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st

from vlm_analysis.evaluation.diff import Piece, by_step, first_divergent_step, word_diff
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.responses import Responses, parting

NOTHING = "(nothing)"
MARKS = ("orange", "blue")  # of words that only the dense, only the pruned response has; they are bold too
_JOINER = "\u2060"  # an invisible start of a line, before which markdown knows no list, heading or code


def draw_responses(responses: Responses, titles: Sequence[str]) -> None:
    """Draw both responses under their titles, where they part, and the divergence along the dense one."""
    step = first_divergent_step(responses.dense, responses.pruned)
    sides = word_diff(responses.dense, responses.pruned)
    for column, title, pieces, colour in zip(st.columns(2), titles, sides, MARKS, strict=True):
        column.caption(title)
        column.markdown(in_steps(pieces, colour, step))
    st.caption(escaped(parting(responses)))
    if responses.divergence.tokens:
        from vlm_analysis.figures.tokens import token_strip

        divergence = responses.divergence
        st.plotly_chart(
            token_strip(divergence.tokens, divergence.kl, divergence.differs),
            key="token-strip",
            config={"displayModeBar": False},
        )
        st.caption(
            "How far the pruned model is from the dense one before each token of the dense response: KL(dense ‖ pruned) in nats, "
            "0 where it expects the same. A triangle shows where its first choice is another token."
        )


def in_steps(pieces: Sequence[Piece], colour: str, divergent: int | None) -> str:
    """Return the markdown of a response, a paragraph a step; the divergent step is named, also where it is missing."""
    texts = [marked(step, colour).rstrip(f" \n\u00a0{_JOINER}") for step in by_step(list(pieces))]
    if divergent is not None:
        texts += [f"*(no step {divergent + 1})*"] * (divergent >= len(texts))
        texts[divergent] = f":{colour}-badge[:material/call_split: first step that differs]  \n{texts[divergent]}"
    return "\n\n".join(texts)


def marked(pieces: Sequence[Piece], colour: str) -> str:
    """Return the markdown of pieces of text: line breaks and blanks kept, changed words bold on a colour, nothing else acted on."""
    if not any(piece.text.strip() for piece in pieces):
        return escaped(NOTHING)
    return _JOINER + "".join(_marked(piece, colour) for piece in pieces)


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
    return f"  \n{_JOINER}".join(kept)
