"""One prompt on screen: its pictures small, its texts as plain text."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.places import has_marks, in_one_line
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import any_of, sentence

MAX_SHOWN_TEXT = 400  # characters of a question or an answer
MAX_SHOWN_IMAGES = 4


def draw_prompt(prompt: Prompt) -> None:
    """Draw one prompt as plain text, so that nothing in it is live."""
    try:
        st.image([drafts.preview(name, prompt, i) for i, name in enumerate(prompt.image_hashes[:MAX_SHOWN_IMAGES])])
    except PromptError as error:
        st.error(escaped(error))
    if len(prompt.images) > MAX_SHOWN_IMAGES:
        st.caption(f"and {len(prompt.images) - MAX_SHOWN_IMAGES} more images")
    st.text(shortened(prompt.question if not has_marks(prompt.question) else in_one_line(prompt.parts)))
    if prompt.answers:
        st.caption(sentence(any_of(len(prompt.answers))))
        st.text(shortened("\n".join(prompt.answers)))
    else:
        st.caption("Reference answer" if prompt.answer else "No reference answer")
        if prompt.answer:
            st.text(shortened(prompt.answer))
    for title, name in (("Domain", prompt.domain), ("Task", prompt.task)):
        if name:
            st.caption(title)
            st.text(name)


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + " …"
