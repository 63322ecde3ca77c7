"""Two halves of a prompt set: masks are chosen on one and reported on the other, so that the report does not flatter them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.prompts import KEY_DIGITS, PromptSet


def split_in_halves(prompts: PromptSet, seed: int = 0) -> tuple[PromptSet, PromptSet]:
    """Return two halves, each with half of every domain's prompts, in their order; of an odd number the first gets one more.

    Which prompt goes where is drawn by the seed and depends on the prompts' order, not on their answers. Prompts that are the same
    (`Prompt.key`) go into one half, whatever their domains; where that leaves no even split, the first half gets less.

    Raises:
        PromptError: the prompts of a domain are one, all the same, or all in one half through other domains; or an image cannot be read.
    """
    keys = [prompt.key for prompt in prompts]
    is_first: dict[str, bool] = {}
    rng = np.random.default_rng(seed)
    for domain in prompts.domains:
        places = [place for place, prompt in enumerate(prompts) if prompt.domain == domain]
        here = Counter(keys[place] for place in places)
        room = -(-len(places) // 2) - sum(here[key] for key in here if is_first.get(key))
        for key in dict.fromkeys(keys[place] for place in rng.permutation(places).tolist()):
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
    """Return how many of the prompts are the same as one of these keys (`Prompt.key` or `PromptSet.row_keys`), under any id."""
    known = {key[:KEY_DIGITS] for key in keys}
    return sum(prompt.key in known for prompt in prompts)
