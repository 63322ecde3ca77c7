"""One prompt on screen: its pictures small, its texts as plain text."""

from __future__ import annotations

import streamlit as st

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.places import has_marks, in_one_line
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.ui.common import drafts
from vlm_analysis.ui.common.text import escaped
from vlm_analysis.words import any_of, counted, sentence

MAX_SHOWN_TEXT = 400  # characters of a question or an answer
MAX_SHOWN_IMAGES = 4


def picture_alt(prompt: Prompt, number: int) -> str:
    """Return what is read out for picture `number`, from 0, of a prompt."""
    return f"Picture {number + 1} of prompt {prompt.id}"


def draw_prompt(prompt: Prompt) -> None:
    """Draw one prompt as plain text, so that nothing in it is live."""
    try:
        n_shown = min(len(prompt.image_hashes), MAX_SHOWN_IMAGES)
        _draw_images(prompt, range(n_shown))
        if (more := len(prompt.image_hashes) - n_shown) > 0:
            with st.popover(f"and {counted(more, 'more image')}"):
                _draw_images(prompt, range(n_shown, n_shown + more))
    except PromptError as error:
        st.error(escaped(error))
    draw_text(prompt.question if not has_marks(prompt.question) else in_one_line(prompt.parts))
    if prompt.answers:
        st.caption(sentence(any_of(len(prompt.answers))))
        draw_text("\n".join(prompt.answers))
    else:
        st.caption("Reference answer" if prompt.answer else "No reference answer")
        if prompt.answer:
            draw_text(prompt.answer)
    for title, name in (("Domain", prompt.domain), ("Task", prompt.task)):
        if name:
            st.caption(title)
            st.text(name)


def _draw_images(prompt: Prompt, numbers: range) -> None:
    hashes = prompt.image_hashes
    st.image(
        [drafts.preview(hashes[number], prompt, number) for number in numbers],
        alt=[picture_alt(prompt, number) for number in numbers],
    )


def draw_text(text: str) -> None:
    """Draw a text as it stands; of a long one the beginning, and the whole behind a button."""
    st.text(shortened(text))
    if len(text) > MAX_SHOWN_TEXT:
        with st.popover(f"All {len(text):,} characters"):
            st.text(text)


def shortened(text: str) -> str:
    """Return the beginning of a long text."""
    return text if len(text) <= MAX_SHOWN_TEXT else text[:MAX_SHOWN_TEXT] + " …"
