"""Words for the screen: user text made harmless, edits in words, and each metric explained in a sentence."""

from __future__ import annotations

import re
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.ui.common.terms import TERMS
from vlm_analysis.words import METRIC_TITLES, sentence
from vlm_analysis.workbench.details import is_mask

METRIC_HELP = {name: TERMS[name].meaning for name in (*METRIC_TITLES, "retention")}
NEEDS = {
    "recording": "any recording",
    "domains": "prompts of two domains or more",
    "attention": "a recording with attention maps",
    "damage": "measured damage of each layer",
    "nothing": "nothing",
    "scores": "a criterion's scores",
    "model": "the model, loaded",
}
GROUP_HELP = {name: TERMS[f"tokens_{name}"].meaning for name in ("all", "vision", "text", "answer", "last")}


def escaped(text: object) -> str:
    """Return user text with everything that Streamlit's markdown would act on made harmless, for labels and messages.

    Links are recognised behind the escapes, so an invisible joiner breaks what they start with.
    """
    unlinked = re.sub(r"(?i)(://|@|\bwww(?=\.))", "\\1\u2060", str(text))
    return re.sub(r"([\\`*_{}\[\]()#+.!|$:~<>&-])", r"\\\1", unlinked)


def holds(wanted: str, *texts: str) -> bool:
    """Return whether what is searched is in one of the texts, whatever its case; nothing is in all."""
    return wanted.casefold().strip() in "\n".join(texts).casefold()


def done_to(edit: Edit) -> str:
    """Return what an edit leaves of a model, in words: "without layers 3, 5"."""
    return f"without layers {layer_list(edit.dropped)}" if edit.is_mask else f"edited: {edit.words()}"


def does(edit: Edit) -> str:
    """Return what an edit does, in words: "drops 3, 5"."""
    return f"drops {layer_list(edit.dropped)}" if edit.is_mask else edit.words()


def edit_line(edit: Edit) -> str:
    """Return what an edit does, as a line of its own."""
    if not edit.is_mask:
        return sentence(edit.words())
    return f"Drops {edit.budget} of {edit.n_layers} layers: {layer_list(edit.dropped)}"


def what_it_does(details: dict[str, Any]) -> str:
    """Return what the edit of a saved item does, as its sidecar tells; version 0.1 told the dropped layers only."""
    known = "edit" in details and not is_mask(details)
    return str(details.get("what", "")) if known else f"drops {layer_list(details.get('dropped', []))}"


def layer_list(layers: tuple[int, ...] | list[int]) -> str:
    """Return layers as text: "3, 5, 8", or "none"."""
    return ", ".join(map(str, layers)) or "none"
