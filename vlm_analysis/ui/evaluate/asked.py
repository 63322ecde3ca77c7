"""The responses that Ask both got, kept while the process runs, so that the gallery of an evaluation shows them too. Nothing is saved."""

from __future__ import annotations

from typing import NamedTuple

import streamlit as st

from vlm_analysis.workbench.responses import Responses

MOST = 500


class Question(NamedTuple):
    """What responses belong to: the fingerprint of the model, the key of the edit, the pictures and the words."""

    model: str | None
    edit: str
    image_hashes: tuple[str, ...]
    question: str


@st.cache_resource(show_spinner=False)
def asked() -> dict[Question, Responses]:
    """Return what was asked in this process, the oldest first."""
    return {}


def keep_asked(question: Question, responses: Responses) -> None:
    """Keep responses in place of older ones to the same question; beyond `MOST` the oldest go."""
    kept = asked()
    kept.pop(question, None)
    kept[question] = responses
    for oldest in list(kept)[: max(0, len(kept) - MOST)]:
        kept.pop(oldest, None)
