"""Groups: which prompts of a set are no independent draws, as they ask about the same picture.

Prompts that share a picture are right or wrong together: a bootstrap that draws them one by one takes 231 questions on 24 pictures for
231 draws, and its intervals are three times too short. So whatever resamples prompts, or splits them, takes whole groups.

This module knows pictures by their hashes only.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TIE_DIGITS = 24


@dataclass(frozen=True)
class Groups:
    """The groups of the prompts of a set, in their order.

    Attributes:
        names: of each prompt the name of its group; one that is alone in its group has a name of its own.
        ties: of each prompt what ties it to others, 24 hex digits each: its key, and its pictures, or the group that was given.
        common: hashes of the pictures that tie nothing, as more than half of the prompts show them: a logo, a blank.
    """

    names: tuple[str, ...]
    ties: tuple[tuple[str, ...], ...]
    common: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Return how many groups there are."""
        return len(set(self.names))

    @property
    def shared(self) -> tuple[str, ...]:
        """Return the names; () where each prompt is alone in its group."""
        return self.names if self.number < len(self.names) else ()

    @property
    def known(self) -> frozenset[str]:
        """Return all ties: a prompt of another set that has one of them is no fresh prompt."""
        return frozenset(tie for ties in self.ties for tie in ties)


def make_groups(
    keys: Sequence[str],
    pictures: Sequence[Sequence[str]],
    given: Sequence[str | None],
    is_blank: Callable[[str], bool],
) -> Groups:
    """Return the groups of prompts: those of one given group, else the connected components of prompts that share a picture.

    Equal prompts share a group too. A picture in more than half of the prompts without a given group ties none of them; unless all of
    these show such pictures only: then that is what is asked about, and it ties them if it is not blank.

    Args:
        keys, pictures, given: of each prompt its key, the hashes of its pictures, and the group that was given for it, if any.
        is_blank: whether a picture, by its hash, is of one colour.
    """
    free = [set(hashes) for hashes, group in zip(pictures, given, strict=True) if group is None]
    counts = Counter(one for hashes in free for one in hashes)
    common = {one for one, count in counts.items() if 2 * count > len(free)} if len(free) > 1 else set()
    if free and not set().union(*free) - common:
        common = {one for one in common if is_blank(one)}
    ties = [
        (key, _given_tie(group))
        if group is not None
        else (key, *(one[:TIE_DIGITS] for one in hashes if one not in common))
        for key, hashes, group in zip(keys, pictures, given, strict=True)
    ]
    names = _components(ties)
    return Groups(
        tuple(name if group is None else group for name, group in zip(names, given, strict=True)),
        tuple(tuple(dict.fromkeys(one)) for one in ties),
        tuple(sorted(common)),
    )


def _given_tie(group: str) -> str:
    return hashlib.sha256(f"group {group}".encode()).hexdigest()[:TIE_DIGITS]


def _components(ties: Sequence[Sequence[str]]) -> list[str]:
    """Return of each prompt the least tie of its connected component."""
    parent: dict[str, str] = {}

    def root(tie: str) -> str:
        while parent.setdefault(tie, tie) != tie:
            parent[tie] = parent[parent[tie]]
            tie = parent[tie]
        return tie

    for first, *others in ties:
        for other in others:
            one, two = sorted((root(first), root(other)))
            parent[two] = one
    return [root(first) for first, *_ in ties]
