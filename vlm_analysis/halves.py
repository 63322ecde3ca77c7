"""Two halves of a prompt set: masks are chosen on one and reported on the other, so that the report does not flatter them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts import PromptSet


def split_in_halves(prompts: PromptSet, seed: int = 0) -> tuple[PromptSet, PromptSet]:
    """Return two halves, each with half of every domain's prompts, in their order; of an odd number the first gets one more.

    Which prompt goes where is drawn by the seed and hangs on the prompts' order, not on their answers.

    Raises:
        PromptError: a domain has one prompt only.
    """
    first: set[int] = set()
    rng = np.random.default_rng(seed)
    for domain in prompts.domains:
        places = [place for place, prompt in enumerate(prompts) if prompt.domain == domain]
        if len(places) < 2:
            raise PromptError(
                f"Domain '{domain}' cannot be split: expected two prompts at least, got one. Add another."
            )
        first.update(rng.permutation(places)[: -(-len(places) // 2)].tolist())
    one = PromptSet(prompt for place, prompt in enumerate(prompts) if place in first)
    return one, PromptSet(prompt for place, prompt in enumerate(prompts) if place not in first)


def n_shared(prompts: PromptSet, keys: Collection[str]) -> int:
    """Return how many of the prompts are among those of these keys (`Prompt.key`)."""
    known = set(keys)
    return sum(prompt.key in known for prompt in prompts)
