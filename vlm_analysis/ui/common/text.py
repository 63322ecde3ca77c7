"""Words for the screen: user text made harmless, lengths of time, and each metric explained in a sentence."""

from __future__ import annotations

import re
from typing import Any

from vlm_analysis.edits.edit import Edit
from vlm_analysis.words import sentence
from vlm_analysis.workbench.details import is_mask

METRIC_HELP = {
    "exact_match": "Share of prompts whose whole answer, its end included, the model reproduces token by token under greedy decoding.",
    "answer_nll": "Mean negative log-likelihood of the answer's tokens, in nats a token. Lower is better; it moves before answers break.",
    "token_agreement": "Share of answer positions at which the pruned model's first choice is the dense model's.",
    "kl_to_dense": "Mean Kullback-Leibler divergence KL(dense ‖ pruned) over the answer's positions, in nats. 0 for the dense model.",
    "normalised_match": "Share of prompts whose response is the answer once case, articles and punctuation are gone.",
    "numeric_match": "As the normalised match, but a number within 5 % of the answer's counts as equal, and 50% is 0.5 (as in ChartQA).",
    "choice_match": "Share of prompts with choices whose answer is the choice of the highest likelihood.",
    "choice_match_norm": "The same by the mean log-likelihood per token, which does not favour short choices.",
    "retention": "Pruned exact match over dense exact match. 100 % means as many right answers as the dense model, not always the same: "
    "answers won make up for answers lost.",
}
NEEDS = {
    "recording": "any recording",
    "domains": "prompts of two domains or more",
    "attention": "a recording with attention maps",
    "damage": "measured damage of each layer",
    "nothing": "nothing",
    "scores": "a criterion's scores",
    "model": "the model, loaded",
}
GROUP_HELP = {
    "all": "every prompt token: vision and text",
    "vision": "positions that receive image features",
    "text": "all other prompt tokens, template and delimiters included",
    "answer": "the reference answer and its end token, seen in the same pass",
    "last": "the last prompt token, from which the answer starts",
}


def escaped(text: object) -> str:
    """Return user text with everything that Streamlit's markdown would act on made harmless, for labels and messages.

    Links are recognised behind the escapes, so an invisible joiner breaks what they start with.
    """
    unlinked = re.sub(r"(?i)(://|@|\bwww(?=\.))", "\\1\u2060", str(text))
    return re.sub(r"([\\`*_{}\[\]()#+.!|$:~<>&-])", r"\\\1", unlinked)


def done_to(edit: Edit) -> str:
    """Return what an edit leaves of a model, in words: "without layers 3, 5"."""
    return f"without layers {layer_list(edit.dropped)}" if edit.is_mask else f"edited: {edit.words()}"


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
