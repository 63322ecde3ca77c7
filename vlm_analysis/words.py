"""Words that the whole package shares: the names of token groups, and what sentences about layers are made of."""

from __future__ import annotations

from collections.abc import Iterable

TOKEN_GROUPS = ("vision", "text", "answer", "last", "all")


def joined(words: Iterable[object]) -> str:
    """Return "1, 2 and 3"."""
    *first, last = [str(word) for word in words] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def layers(numbers: Iterable[int]) -> str:
    """Return "layer 4" or "layers 4 and 7", ascending."""
    found = sorted(numbers)
    return f"layer{'' if len(found) == 1 else 's'} {joined(found)}"


def sentence(text: str) -> str:
    """Return the text with its first letter large."""
    return text[:1].upper() + text[1:]
