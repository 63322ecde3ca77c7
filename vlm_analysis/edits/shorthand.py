"""Layers as people write them: "3,5-7"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vlm_analysis.errors import MaskError
from vlm_analysis.words import consecutive

_NUMBER = r"\s*\d{1,20}\s*"  # Python reads no number of thousands of digits
_LAYERS = re.compile(rf"{_NUMBER}(-{_NUMBER})?(,{_NUMBER}(-{_NUMBER})?)*")


def layers_in(text: str) -> tuple[int, ...] | None:
    """Return the layers in a text like "3,5-7", ascending; None if it is not such a text.

    >>> layers_in("5-7, 3")
    (3, 5, 6, 7)
    """
    if len(text) > 10_000 or not _LAYERS.fullmatch(text):
        return None
    layers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        ends = int(first), int(last or first)
        if ends[1] < ends[0] or ends[1] > 10_000:
            raise MaskError(
                f"'{part.strip()[:100]}' names no layers: expected the first and the last layer, from 0 and ascending. Write 5-7."
            )
        layers |= set(range(ends[0], ends[1] + 1))
    return tuple(sorted(layers))


def shortened(layers: Iterable[int], between: str = ",") -> str:
    """Return layers as such a text, ascending, with a dash for three or more in a row.

    >>> shortened([4, 7, 8, 12, 13, 14])
    '4,7,8,12-14'
    """
    runs = consecutive(sorted(layers))
    return between.join(f"{run[0]}-{run[-1]}" if len(run) > 2 else between.join(map(str, run)) for run in runs)
