"""Recent models and folders on the pages that ask for them; none where several people share the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st

from vlm_analysis.guard.shared import is_shared
from vlm_analysis.ui.common.text import escaped

MOST_LETTERS = 48


def offer_recent(choices: Mapping[str, str], key: str, take: Callable[[str], None]) -> None:
    """Draw buttons for what was used last, by what is taken (`take` gets it) and its words; nothing in shared mode or without any."""
    if is_shared() or not choices:
        return
    st.pills(
        "Recent",
        list(choices),
        format_func=lambda one: escaped(_short(choices[one])),
        key=key,
        on_change=_take,
        args=(key, take),
        help=_about(choices),
    )


def _take(key: str, take: Callable[[str], None]) -> None:
    """Hand on what was pressed, as the callback of the buttons, and press none of them any more."""
    picked = st.session_state[key]
    st.session_state[key] = None
    if picked is not None:
        take(picked)


def _about(choices: Mapping[str, str]) -> str:
    """Return what the buttons do, and the whole words of those that are cut."""
    cut = [text for text in choices.values() if _short(text) != text]
    return "\n\n".join(["Fills in what was used before.", *map(escaped, cut)])


def _short(text: str) -> str:
    """Return a text cut in its middle, so that a path keeps its end."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS // 3]}…{text[-MOST_LETTERS * 2 // 3 :]}"
