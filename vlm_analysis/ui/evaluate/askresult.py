"""Two responses as the page shows them: side by side, the words that differ marked, and where they part."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vlm_analysis.evaluation.diff import Piece, by_step, first_divergent_step, word_diff
from vlm_analysis.ui.common.marks import JOINER, MARKS, marked
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.workbench.responses import Responses, parting


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
            alt="How far the pruned model is from the dense one before each token",
        )
        st.caption(
            "How far the pruned model is from the dense one before each token of the dense response: KL(dense ‖ pruned) in nats, "
            "0 where it expects the same. A triangle shows where its first choice is another token."
        )


def in_steps(pieces: Sequence[Piece], colour: str, divergent: int | None) -> str:
    """Return the markdown of a response, a paragraph a step; the divergent step is named, also where it is missing."""
    texts = [marked(step, colour).rstrip(f" \n\u00a0{JOINER}") for step in by_step(list(pieces))]
    if divergent is not None:
        texts += [f"*(no step {divergent + 1})*"] * (divergent >= len(texts))
        texts[divergent] = f":{colour}-badge[:material/call_split: first step that differs]  \n{texts[divergent]}"
    return "\n\n".join(texts)
