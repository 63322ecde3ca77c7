"""Match a response with an answer as text: without case, articles and punctuation, and with numbers nearly equal.

After the exact match of VQA (arXiv:1505.00468) and the relaxed accuracy of ChartQA (arXiv:2203.10244); the details are ours.
"""

from __future__ import annotations

import re
from unicodedata import category, decimal, decomposition, normalize

TOLERANCE = 0.05
ARTICLES = ("an", "the")  # and "a" before a word: elsewhere it may be a choice or a name
SLACK = 1e-9  # of the tolerance: 1.05 is within 5 % of 1 despite binary rounding
_SIGNS = str.maketrans("−‐–⁄", "---/")
_APOSTROPHE = re.compile(r"(?<=[^\W\d_])['’](?=[^\W\d_])")
_THOUSANDS = re.compile(r"(?<=\d)(?<!\b0)(?<!\d{4}),(?=\d{3}(?!\d))")
_CURRENCIES = "$¢-¥₠-⃏"
_APART_MINUS = re.compile(rf"(?<!\w)(?<!\w )- (?=\.?\d|[{_CURRENCIES}])")
_A = re.compile(rf"""(?<![\w-])a (?=["'“‘(\[#{_CURRENCIES}]?(?:\d|\w[\w-]))""")
_PUNCTUATION = re.compile(
    rf"(?<=\d)\.(?=\d)|(?<!\w)\.(?=\d)|(?<!\w)-(?=\.\d|[^\W_]|[{_CURRENCIES}√∞])|(?<=\de)-(?=\d)|(?<=\d)!|#"
)
_PUNCTUATION_IN_NUMBERS = re.compile(rf"{_PUNCTUATION.pattern}|(?<=\d)[,:](?=\d)")
_NUMBER = re.compile(r"(?<![\w.,:^-])-?(?:\d+(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?(?![\d!^]|[.,:]\d|e[+-]?\d)")


def normalised(text: str) -> str:
    """Return the text without differences that a comparison of answers should ignore.

    Unicode NFKC, lower case (case folded), decimal digits of any script as 0 to 9. Punctuation (Unicode categories P, the percent sign
    among them) becomes a blank, except decimal points, #, a ! after a digit, a minus sign in an exponent or before a number, a letter
    or a currency; commas between thousands and apostrophes inside words are removed. Symbols (currencies, +, <) stay, blanks around
    them are removed. An exponent after a digit gets a ^, a fraction there a blank. Then articles are removed ("a" only before a word or
    number: "A, B" names two choices), and runs of blanks become one. A text that would become empty keeps its words: "A." becomes "a",
    "?!" stays. These rules are our choice. A dash with blanks around it is a minus sign before a number, unless a word or number
    precedes it.

    >>> normalised("The answer: 1,234.5 %."), normalised("A."), normalised("− 3 or 4-5"), normalised("x = 10⁻⁵")
    ('answer 1234.5', 'a', '-3 or 4 5', 'x=10^-5')
    """
    return _normalised(text, _PUNCTUATION)


def normalised_match(response: str, answer: str) -> bool:
    """Return whether two texts are the same after normalisation."""
    return normalised(response) == normalised(answer)


def numeric_match(response: str, answer: str, tolerance: float = TOLERANCE) -> bool:
    """Return whether the response is the answer, with numbers within a relative tolerance (5 %; 0 must be 0).

    Relaxed accuracy after ChartQA (arXiv:2203.10244), which compares one number; here (our choice) the numbers match pairwise in order,
    and the texts without their numbers are equal. Years are numbers, as in ChartQA. Texts without numbers match when normalised. Clock
    times, versions, powers, factorials and digits around a comma that does not separate thousands (10:30, 1.20.5, 10^5, 5!, 0,05) are text.
    """
    if normalised_match(response, answer):
        return True
    response_text, answer_text = (
        _normalised(response, _PUNCTUATION_IN_NUMBERS),
        _normalised(answer, _PUNCTUATION_IN_NUMBERS),
    )
    numbers, others = _NUMBER.findall(response_text), _NUMBER.findall(answer_text)
    if len(numbers) != len(others) or _NUMBER.sub(" ", response_text).split() != _NUMBER.sub(" ", answer_text).split():
        return False
    return all(map(lambda one, other: _is_near(float(one), float(other), tolerance), numbers, others))


def _is_near(number: float, expected: float, tolerance: float) -> bool:
    """Return whether a number is near the expected one; False where that is too large for a float."""
    if abs(expected) == float("inf"):
        return False
    return abs(number - expected) <= tolerance * abs(expected) * (1 + SLACK)


def _normalised(text: str, exceptions: re.Pattern[str]) -> str:
    folded = " ".join(normalize("NFKC", normalize("NFKC", _digits_apart(text)).casefold()).translate(_SIGNS).split())
    digits = "".join(str(decimal(character)) if character.isdecimal() else character for character in folded)
    signed = _APART_MINUS.sub("-", _THOUSANDS.sub("", _APOSTROPHE.sub("", digits)))
    words = _without_punctuation(_A.sub("", signed), exceptions).split()
    return _closed_up(" ".join([word for word in words if word not in ARTICLES] or words)) or folded


def _digits_apart(text: str) -> str:
    """Return the text with a mark between digits of two kinds, which NFKC would join to one number: 10⁵ is not 105, 1½ not 11/2."""
    kinds = [_digit_kind(character) for character in text]
    return "".join(
        _mark(before, kind) + character for before, kind, character in zip(["", *kinds], kinds, text, strict=False)
    )


def _mark(before: str, kind: str) -> str:
    runs_on = before == kind and kind in ("decimal", "<super>", "<sub>")
    if not before or not kind or runs_on:
        return ""
    return "^" if kind == "<super>" else " "


def _digit_kind(character: str) -> str:
    """Return "decimal", the kind of a character that NFKC turns into digits (or a raised sign), or "" for any other."""
    if character.isdecimal():
        return "decimal"
    if character.isascii() or not any(part.isdecimal() or character in "⁺⁻" for part in normalize("NFKC", character)):
        return ""
    return decomposition(character).split()[0]


def _without_punctuation(text: str, exceptions: re.Pattern[str]) -> str:
    exempt = {match.start() for match in exceptions.finditer(text)}
    return "".join(
        " " if category(character)[0] == "P" and index not in exempt else character
        for index, character in enumerate(text)
    )


def _closed_up(text: str) -> str:
    """Return the text without blanks around symbols; one before a combining mark stays, as the two would become one character."""
    return "".join(
        character
        for before, character, after in zip(" " + text, text, text[1:] + " ", strict=False)
        if character != " " or category(after)[0] == "M" or not (_is_symbol(before) or _is_symbol(after))
    )


def _is_symbol(character: str) -> bool:
    return character == "#" or category(character)[0] == "S"
