"""The responses of the dense and the edited model to one prompt. Nothing is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_analysis.edits.edit import Edit
from vlm_analysis.evaluation.diff import first_divergent_step, split_steps
from vlm_analysis.prompts.prompts import Prompt
from vlm_analysis.workbench.desk import Desk

if TYPE_CHECKING:
    from vlm_analysis.evaluation.run.respond import Divergence, Step


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of both models, and their divergence along the dense response."""

    dense: str
    pruned: str
    divergence: Divergence


def ask_both(desk: Desk, prompt: Prompt, edit: Edit, on_partial: Callable[[Step], None] | None = None) -> Responses:
    """Return the responses of both models; `on_partial` gets the text so far after each token, and may raise to stop them."""
    from vlm_analysis.evaluation.run.respond import PartialResponse, compare_responses, stream_both

    loaded = desk.loaded
    dense = pruned = PartialResponse()
    for step in stream_both(loaded, prompt, edit):
        dense, pruned = step.dense, step.pruned
        if on_partial is not None:
            on_partial(step)
    return Responses(dense.text, pruned.text, compare_responses(loaded, prompt, edit, dense.ids))


def see_prompt(desk: Desk, prompt: Prompt) -> tuple[str, dict[str, int]]:
    """Return the model's input text for a prompt, with template and placeholders, and its tokens by group."""
    from vlm_analysis.models.inputs import answer_tokens, encode, render_prompt

    loaded = desk.loaded
    encoded = encode(loaded, prompt, answer_tokens(loaded, prompt.answer))
    return render_prompt(loaded, prompt), encoded.token_counts()


def parting(responses: Responses) -> str:
    """Return a sentence on where two responses differ."""
    if responses.dense == responses.pruned:
        return "The same answer."
    positions, at = [], responses.divergence.first
    if at is not None:
        tokens = responses.divergence.tokens
        positions.append(f"at token {at + 1} of {len(tokens)} ('{tokens[at]}')")
    step = first_divergent_step(responses.dense, responses.pruned)
    if step is not None:
        n_steps = len(split_steps(responses.dense))
        positions.append(
            f"in step {step + 1} of {n_steps}" if step < n_steps else f"after step {n_steps}, the dense model's last"
        )
    return f"They part {', '.join(positions)}." if positions else "They differ."
