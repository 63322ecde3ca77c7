"""Split a prompt set in two halves: masks are chosen on one and evaluated on the other, for unbiased scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from vlm_analysis.errors import PromptError
from vlm_analysis.prompts.groups import TIE_DIGITS
from vlm_analysis.prompts.prompts import PromptSet
from vlm_analysis.words import counted


def split_in_halves(prompts: PromptSet, seed: int = 0) -> tuple[PromptSet, PromptSet]:
    """Return two halves, each with half of every domain's prompts, in order; the first half gets the odd prompt.

    The split is drawn with the seed and depends on the prompts' order, not on their answers. The prompts of a group (`PromptSet.groups`)
    go into one half, whatever their domains; where that prevents an even split, the first half is the smaller one.

    Raises:
        PromptError: a domain has a single group, or groups that other domains put in one half; or an image cannot be read.
    """
    names = prompts.groups.names
    is_first: dict[str, bool] = {}
    rng = np.random.default_rng(seed)
    for domain in prompts.domains:
        indices = [index for index, prompt in enumerate(prompts) if prompt.domain == domain]
        here = Counter(names[index] for index in indices)
        room = -(-len(indices) // 2) - sum(here[name] for name in here if is_first.get(name))
        for name in dict.fromkeys(names[index] for index in rng.permutation(indices).tolist()):
            if name not in is_first:
                is_first[name] = here[name] <= room
                room -= here[name] * is_first[name]
        if len({is_first[name] for name in here}) < 2:
            raise PromptError(
                f"Domain '{domain}' cannot be split: expected different prompts for each half, on pictures of their own, got "
                f"{len(indices)} in {counted(len(here), 'group')} for one of them only. Add others."
            )
    halves = (
        [prompt for prompt, name in zip(prompts, names, strict=True) if is_first[name] is half]
        for half in (True, False)
    )
    one, other = map(PromptSet, halves)
    return one, other


def n_shared(prompts: PromptSet, known: Collection[str]) -> int:
    """Return how many of the prompts are not fresh: in a group with a tie that is known, under any id.

    Args:
        known: ties of other prompts (`Groups.known`), or keys (`Prompt.key`, `PromptSet.row_keys`).
    """
    known_ties = {tie[:TIE_DIGITS] for tie in known}
    groups = prompts.groups
    shared = {name for name, ties in zip(groups.names, groups.ties, strict=True) if not known_ties.isdisjoint(ties)}
    return sum(name in shared for name in groups.names)
