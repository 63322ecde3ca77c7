"""Where an answer reasons: the marks of steps in its text, after the pivot tokens of µCRASP (arXiv:2605.25842)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlm_analysis.edits.change import is_whole
from vlm_analysis.errors import EditError, short

# The paper names "Step n", "Therefore", "Thus" and "other step marks". Which others these are, and that "=" is one, is our choice.
MARKS: dict[str, str] = {
    "step": r"(?<!\w)step\s+\d+",
    "number": r"^[ \t]*\d+[.)](?=\s)",
    "order": r"(?:^|[.;:!?\n])\s*(?P<order>(?:first|second|third|next|then|finally)(?:ly)?\b)",
    "therefore": r"\b(?:therefore|thus|hence)\b",
    "so": r"(?:^|[.;:!?,\n])\s*(?P<so>so)\b",
    "equation": r"(?<![=<>!])=(?!=)",
}
"""By name the patterns of the marks; case does not count. One with a group of its own name marks that group alone."""
_PATTERNS = {name: re.compile(pattern, re.IGNORECASE | re.MULTILINE) for name, pattern in MARKS.items()}

WINDOW = 8  # tokens, the paper's W
EACH, IN_ALL = "each", "all"
SIDES = (EACH, IN_ALL)
MOST_WINDOW, MOST_SEED = 1_000_000, 2**53  # that a file of scores holds
PARTS = 4  # of an answer without marks; our choice


class Pivot(NamedTuple):
    """A mark in an answer: its name in `MARKS`, and where it begins and ends, in characters."""

    mark: str
    start: int
    end: int


def find_pivots(answer: str) -> list[Pivot]:
    """Return where an answer has marks of steps, in their order.

    >>> [(pivot.mark, pivot.start) for pivot in find_pivots("step 1: 2 + 3 = 5. therefore 5")]
    [('step', 0), ('equation', 14), ('therefore', 19)]
    """
    found = [
        Pivot(name, *match.span(name if name in pattern.groupindex else 0))
        for name, pattern in _PATTERNS.items()
        for match in pattern.finditer(answer)
    ]
    return sorted(found, key=lambda pivot: (pivot.start, pivot.end))


def pivot_tokens(pivots: Sequence[Pivot], spans: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the tokens in which pivots begin, ascending; the next one where a pivot begins in none.

    Args:
        pivots: of an answer.
        spans: of each of its tokens the first character and the one behind the last.
    """
    ends = [end for _, end in spans]
    starts = {next((at for at, end in enumerate(ends) if end > pivot.start), None) for pivot in pivots}
    return tuple(sorted(at for at in starts if at is not None))


def even_splits(n_tokens: int, window: int = WINDOW) -> tuple[int, ...]:
    """Return where an answer without marks is split into equal parts; () where it is too short to hold steps.

    The paper splits it and does not say into how many: four parts, and at least two windows of tokens, are our choices.

    >>> even_splits(20), even_splits(15)
    ((5, 10, 15), ())
    """
    is_long = n_tokens >= max(2 * window, PARTS)
    return tuple(part * n_tokens // PARTS for part in range(1, PARTS)) if is_long else ()


def check_windows(window: int, sides: str, seed: int | None = None) -> None:
    """Raise EditError where these are no windows, or no seed of others at random places."""
    fits = {
        f"a whole number in 1..{MOST_WINDOW:,} as window": (type(window) is int and 1 <= window <= MOST_WINDOW, window),
        f"one of {', '.join(SIDES)} as sides": (isinstance(sides, str) and sides in SIDES, sides),
        "a whole number from 0 to 2^53 as seed": (seed is None or (is_whole(seed) and 0 <= seed <= MOST_SEED), seed),
    }
    for expected, (holds, got) in fits.items():
        if not holds:
            raise EditError(f"The width cannot be scored: expected {expected}, got {short(repr(got), 80)}. Change it.")


def in_windows(n_tokens: int, pivots: Sequence[int], window: int = WINDOW, sides: str = EACH) -> np.ndarray:
    """Return which of an answer's tokens lie in a window around a pivot, (n_tokens,) bool.

    Args:
        n_tokens: of the answer.
        pivots: their tokens.
        window: tokens in a window.
        sides: "each" for so many on each side of the pivot, "all" for so many in all, half of them before it. Both are told of the paper.
    """
    at = np.arange(n_tokens)
    before, behind = (window, window) if sides == EACH else (window // 2, window - window // 2 - 1)
    inside = np.zeros(n_tokens, bool)
    for pivot in pivots:
        inside |= (at >= pivot - before) & (at <= pivot + behind)
    return inside
