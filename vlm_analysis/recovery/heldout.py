"""Prompts that a learnt change is not learnt on, but measured on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from vlm_analysis.errors import EditError

MOST_HELD_OUT = 256  # prompts: more would take longer to measure than to train on; our choice


def split_held_out(
    rows: Sequence[int], groups: Sequence[str], domains: Sequence[str], share: float, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the rows to learn on and those held out, each ascending: whole groups, of every domain as far as it has several.

    Args:
        rows: numbers of prompts, from 0.
        groups, domains: of all prompts.
        share: of the rows to hold out, a group at least.
        seed: of the draw.

    Raises:
        EditError: all rows are of one group.
    """
    names = sorted({groups[row] for row in rows})
    if len(names) < 2:
        raise EditError(
            f"Nothing can be learnt on these prompts: expected two groups or more, as one is held out, got {len(rows)} in one. Add "
            "prompts on other pictures."
        )
    order = Random(f"held out {seed}").sample(names, len(names))
    members = {name: [row for row in rows if groups[row] == name] for name in names}
    in_domain = Counter(domains[row] for row in rows)
    most = max(len(in_domain), min(MOST_HELD_OUT, round(share * len(rows))))
    held_out: list[int] = []
    for name in order:
        there = Counter(domains[row] for row in held_out)
        after = there + Counter(domains[row] for row in members[name])
        is_needed = any(there[domains[row]] < share * in_domain[domains[row]] for row in members[name])
        leaves_some = all(count < in_domain[domain] for domain, count in after.items())
        if is_needed and leaves_some and after.total() <= most:
            held_out += members[name]
    if not held_out:  # groups that are larger than the share, or a domain of their own
        held_out = min((members[name] for name in order), key=len)
    return tuple(row for row in rows if row not in set(held_out)), tuple(sorted(held_out))
