"""Split a prompt set in two halves: masks are chosen on one and evaluated on the other, for unbiased scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.prompts import KEY_DIGITS, PromptSet


def split_in_halves(prompts: PromptSet, seed: int = 0) -> tuple[PromptSet, PromptSet]:
    """Return two halves, each with half of every domain's prompts, in order; the first half gets the odd prompt.

    The split is drawn with the seed and depends on the prompts' order, not on their answers. Equal prompts (`Prompt.key`) go into one
    half, whatever their domains; where that prevents an even split, the first half is the smaller one.

    Raises:
        PromptError: a domain has a single prompt, equal prompts only, or prompts that other domains put in one half; or an image cannot be
            read.
    """
    keys = [prompt.key for prompt in prompts]
    is_first: dict[str, bool] = {}
    rng = np.random.default_rng(seed)
    for domain in prompts.domains:
        indices = [index for index, prompt in enumerate(prompts) if prompt.domain == domain]
        here = Counter(keys[index] for index in indices)
        room = -(-len(indices) // 2) - sum(here[key] for key in here if is_first.get(key))
        for key in dict.fromkeys(keys[index] for index in rng.permutation(indices).tolist()):
            if key not in is_first:
                is_first[key] = here[key] <= room
                room -= here[key] * is_first[key]
        if len({is_first[key] for key in here}) < 2:
            raise PromptError(
                f"Domain '{domain}' cannot be split: expected different prompts for each half, got {len(here)} for one of them only. "
                "Add another."
            )
    halves = (
        [prompt for prompt, key in zip(prompts, keys, strict=True) if is_first[key] is half] for half in (True, False)
    )
    one, other = map(PromptSet, halves)
    return one, other


def n_shared(prompts: PromptSet, keys: Collection[str]) -> int:
    """Return how many of the prompts have one of these keys (`Prompt.key` or `PromptSet.row_keys`), under any id."""
    known_keys = {key[:KEY_DIGITS] for key in keys}
    return sum(prompt.key in known_keys for prompt in prompts)
