"""Try a tokenizer of unknown origin, in a process of its own (`guard.child`). Imports tokenizers only.

Its normaliser and its regular expressions are programs: they can run for ever, make a long text of a short one, or panic.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer

LENGTH = 10_000  # characters; of the longest question
TEXTS = tuple(
    (part * LENGTH)[:LENGTH]
    for part in (
        "a",
        " ",
        "1",
        "aA1! ",
        "\n",
        "é",
        "字",
        "a" * 50 + "!",
        "(x+)+ ",
        "\U0001f600\u200d",
        "<|a|>",
        "'s \t",
    )
)
MOST_TOKENS = 8  # for a character; bytes of the longest characters are 4


def answers(question: dict[str, str]) -> Iterator[int]:
    """Yield the most tokens that the tokenizer in a file made of a text; raises where it makes too many."""
    tokenizer = Tokenizer.from_file(question["path"])
    tokenizer.no_truncation()
    tokenizer.no_padding()
    most = 0
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        most = max(most, len(ids))
        if most > MOST_TOKENS * LENGTH:
            raise ValueError(
                f"expected at most {MOST_TOKENS * LENGTH:,} tokens for {LENGTH:,} characters, got {most:,}"
            )
        tokenizer.decode(ids, skip_special_tokens=False)
    yield most
