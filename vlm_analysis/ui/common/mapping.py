"""How data are to be read where it is not known, or known wrongly: a format, and which of their columns is which of Strata's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from vlm_analysis.guard.shared import is_shared
from vlm_analysis.prompts.formats.table import FORMATS
from vlm_analysis.ui.common.text import escaped

OURS = {
    "image": "The picture: a path, or the picture itself; or a list of them",
    "question": "What to ask; needed",
    "answer": "The reference answer",
    "choices": "A list of answers to choose from",
    "domain": "The group that a prompt belongs to",
    "id": "A name of its own",
    "group": "Prompts of one group are no independent draws",
}
TURNS = {"first": "its first turn", "last": "its last turn", "each": "each turn"}


@dataclass(frozen=True)
class Reading:
    """How data are read: as recognised where nothing is chosen.

    Attributes:
        format: a key of `FORMATS`; None where it is recognised.
        columns: pairs of one of Strata's columns and the data's.
        images: the folder or archive of the pictures on this machine; "" where paths are relative to the table.
        turns: which turns of a conversation are asked.
    """

    format: str | None = None
    columns: tuple[tuple[str, str], ...] = ()
    images: str = ""
    turns: str = "first"

    @property
    def arguments(self) -> dict[str, Any]:
        """Return it as arguments of `open_prompts`, without what is not chosen."""
        columns = dict(self.columns)
        domain = columns.pop("domain", "")
        turns = "" if self.turns == "first" else self.turns
        chosen = {"format": self.format, "columns": columns, "images": self.images, "domain": domain, "turns": turns}
        return {name: value for name, value in chosen.items() if value}


def mapping_form(columns: Sequence[str], number: int, *, expanded: bool) -> Reading:
    """Draw how it is to be read, folded up unless nothing can be read yet; each change is looked at at once.

    Args:
        columns: those of the data.
        number: of what was brought; another one starts anew.
        expanded: whether it is unfolded.
    """
    with st.expander("Read it another way", expanded=expanded, icon=":material/tune:"):
        left, middle, right = st.columns(3)
        format_name = left.selectbox(
            "Format",
            [None, *FORMATS],
            format_func=lambda name: "as recognised" if name is None else FORMATS[name].TITLE,
            key=f"format-{number}",
            help="What it is read as. Choose one where two are possible.",
        )
        images = (
            ""
            if is_shared()
            else middle.text_input(
                "Folder of the pictures",
                key=f"images-{number}",
                placeholder="/data/pictures or /data/pictures.zip",
                help="On the machine that Strata runs on; where the table does not lie beside its pictures.",
            )
        )
        turns = right.selectbox(
            "Of a conversation, ask",
            list(TURNS),
            format_func=TURNS.__getitem__,
            key=f"turns-{number}",
            help="Earlier turns are not given to the model.",
        )
        pairs = _columns(columns, number) if columns else ()
    return Reading(format_name, pairs, images.strip(), turns)


def _columns(columns: Sequence[str], number: int) -> tuple[tuple[str, str], ...]:
    """Draw a select for each of Strata's columns; returns those that are chosen."""
    st.caption("Columns: which of the data's holds what. What is not chosen is taken as recognised.")
    pairs = []
    with st.grid(4, min_column_width=150):
        for ours, about in OURS.items():
            theirs = st.selectbox(
                ours.capitalize(),
                [None, *columns],
                format_func=lambda name: "not chosen" if name is None else escaped(name),
                key=f"column-{ours}-{number}",
                help=about,
            )
            if theirs is not None:
                pairs.append((ours, theirs))
    return tuple(pairs)
