"""Match a response with an answer as text: without case, articles and punctuation, and with numbers nearly equal.

After the exact match of VQA (arXiv:1505.00468) and the relaxed accuracy of ChartQA (arXiv:2203.10244) as lmms-eval computes it
(`relaxed_correctness` in `lmms_eval/tasks/chartqa/utils.py`); what differs is our choice, and `numeric_match` says it.
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
_JOINING = r"\-.,:/\\*·_"  # between two digits these make one thing of them: 2/3, 2-3, 10:30, 0,05
_SHARES = "%‰‱"
_POSITIVE = rf"\+ ?(?=\.?\d|[{_CURRENCIES}])"
_OWN_PLUS = re.compile(rf"(?:(?<=[^\W\d_]{{2}} )|(?<=[(\[{{=<>≈~,:] )|(?<=[(\[{{=<>≈~])){_POSITIVE}")
_FIRST_PLUS = re.compile(rf"^{_POSITIVE}")
_APART_MINUS = re.compile(rf"(?<![\w{_SHARES}])(?<![\w{_SHARES}] )- (?=\.?\d|[{_CURRENCIES}])")
_RANGE = re.compile(rf"(?<=[\d{_SHARES}]) - (?=\.?\d|[{_CURRENCIES}])")
_IDLE = re.compile(rf"(?<=\d)(?:\.(?=e[+-]?\d)|(?:\. ?| )(?=[{_SHARES}]))")  # the point in 1.e5, the blank in 5 %
_A = re.compile(rf"""(?<![\w-])a (?=["'“‘(\[#{_CURRENCIES}]?(?:\d|\w[\w-]))""")
_PUNCTUATION = re.compile(
    rf"(?<=\d)[{_JOINING}](?=\d)|(?<=[\d{_SHARES}])-(?=\.?\d|[{_CURRENCIES}])|(?<!\w)\.(?=\d)"
    rf"|(?<![\w{_SHARES}])-(?=\.\d|[^\W_]|[{_CURRENCIES}√∞])|(?<=\de)-(?=\d)|(?<=\d)[!{_SHARES}]|#"
)
_DIGITS = r"\d(?:_?\d)*"
_NUMBER = re.compile(
    rf"(?<![\w^{_JOINING}{_SHARES}])-?(?:{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})(?:e[+-]?\d+)?"
    rf"(?![\d!^‰‱]|[{_JOINING}]\d|e[+-]?\d|%-)%?"
)


def normalised(text: str) -> str:
    """Return the text without differences that a comparison of answers should ignore.

    Unicode NFKC, lower case (case folded), decimal digits of any script as 0 to 9. Punctuation (Unicode categories P) becomes a blank,
    except what makes another number: a point, comma, colon, slash, dash, star or underscore between two digits, a % (‰, ‱) or ! after
    a digit, # and a minus sign in an exponent or before a number, a letter or a currency. Commas between thousands, apostrophes inside
    words and a plus sign that only says "positive" are removed. Symbols (currencies, +, <) stay, blanks around them are removed. An
    exponent after a digit gets a ^, a fraction there a blank. Then articles are removed ("a" only before a word or number: "A, B" names
    two choices), and runs of blanks become one. A text that would become empty keeps its words: "A." becomes "a", "?!" stays. A dash
    with blanks around it is a minus sign before a number, a range between two numbers, and else a blank. These rules are our choice.

    >>> normalised("The answer: 1,234.5 %."), normalised("A."), normalised("− 3 or 4 - 5"), normalised("x = 10⁻⁵")
    ('answer 1234.5%', 'a', '-3 or 4-5', 'x=10^-5')
    """
    folded = " ".join(normalize("NFKC", normalize("NFKC", _digits_apart(text)).casefold()).translate(_SIGNS).split())
    digits = "".join(str(decimal(character)) if character.isdecimal() else character for character in folded)
    whole = _THOUSANDS.sub("", _APOSTROPHE.sub("", digits))
    signed = _APART_MINUS.sub("-", _RANGE.sub("-", _IDLE.sub("", _OWN_PLUS.sub(" ", whole))))
    words = _without_punctuation(_A.sub("", signed)).split()
    rest = " ".join([word for word in words if word not in ARTICLES] or words)
    return _closed_up(_FIRST_PLUS.sub("", rest)) or folded


def normalised_match(response: str, answer: str) -> bool:
    """Return whether two texts are the same after normalisation."""
    return normalised(response) == normalised(answer)


def numeric_match(response: str, answer: str, tolerance: float = TOLERANCE) -> bool:
    """Return whether the response is the answer, with numbers within a relative tolerance (5 %).

    Two texts that are a number each are compared as `relaxed_correctness` of lmms-eval compares them: "50%" is 0.5, and a text with
    no number must be equal. Years are numbers there too. By our choice this differs: texts are compared once they are normalised;
    several numbers match pairwise, in order, where the texts around them are equal ("39 red" is "40 red", "1,234" is 1234); 0 is
    "0.0", and nothing else; a change of 5 % is within 5 %, whatever binary rounding makes of it; "nan" and "inf" are words. Fractions,
    ranges, clock times, dates, versions, powers, factorials and digits around a comma that does not separate thousands (2/3, 2-3,
    10:30, 1.20.5, 10^5, 5!, 0,05) are text.

    >>> numeric_match("50%", "0.5"), numeric_match("50%", "50"), numeric_match("+41", "40"), numeric_match("2/3", "2-3")
    (True, False, True, False)
    """
    one, other = normalised(response), normalised(answer)
    if one == other:
        return True
    numbers, others = _NUMBER.findall(one), _NUMBER.findall(other)
    if len(numbers) != len(others) or _NUMBER.sub(" ", one).split() != _NUMBER.sub(" ", other).split():
        return False
    return all(map(lambda one, other: _is_near(_value(one), _value(other), tolerance), numbers, others))


def _value(number: str) -> float:
    return float(number.rstrip("%")) / (100 if number.endswith("%") else 1)


def _is_near(number: float, expected: float, tolerance: float) -> bool:
    """Return whether a number is near the expected one; False where that is too large for a float."""
    if abs(expected) == float("inf"):
        return False
    return abs(number - expected) <= tolerance * abs(expected) * (1 + SLACK)


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


def _without_punctuation(text: str) -> str:
    exempt = {match.start() for match in _PUNCTUATION.finditer(text)}
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
