"""Checks of the values in a saved file, put together to a schema: a file is checked in one place before anything uses it.

A check is called with a value and the words for where it stands; it returns nothing, or raises ValueError: "expected X in Y, got Z".
Values are those of JSON. What a schema does not name is left alone.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]

LONGEST = 100_000  # characters of a text that is not bounded otherwise
LARGEST = 2**53  # of whole numbers, as in JSON

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 60
_shown.maxlevel = 2


def anything(value: Any, where: str) -> None:
    """Accept every value."""


def text(most: int = LONGEST, least: int = 0) -> Check:
    """Return the check of a text of so many characters."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not least <= len(value) <= most:
            raise _misfit(f"text of {least} to {most:,} characters", where, value)

    return check


def one_of(*values: str) -> Check:
    """Return the check of one text among a few."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in values:
            raise _misfit(f"one of {', '.join(map(repr, values))}", where, value)

    return check


def whole(least: int = 0, most: int = LARGEST) -> Check:
    """Return the check of a whole number in this range."""

    def check(value: Any, where: str) -> None:
        if type(value) is not int or not least <= value <= most:
            raise _misfit(f"a whole number from {least} to {most:,}", where, value)

    return check


def number(least: float = -float("inf"), most: float = float("inf")) -> Check:
    """Return the check of a number in this range; NaN is none."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise _misfit(f"a number from {least:g} to {most:g}", where, value)

    return check


def flag(value: Any, where: str) -> None:
    """Check that the value is true or false."""
    if not isinstance(value, bool):
        raise _misfit("true or false", where, value)


def maybe(of: Check) -> Check:
    """Return the check of a value that may be null."""
    return lambda value, where: None if value is None else of(value, where)


def listed(of: Check = anything, least: int = 0, most: int = 1_000_000) -> Check:
    """Return the check of a list of so many values."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            expected = f"a list of {least} to {most:,} values"
            raise _misfit(f"{expected}, not {len(value):,}," if isinstance(value, list) else expected, where, value)
        for one in value:
            of(one, where)

    return check


def row(*of: Check) -> Check:
    """Return the check of a list with one value for each of these checks."""

    def check(value: Any, where: str) -> None:
        listed(least=len(of), most=len(of))(value, where)
        for one, check_one in zip(value, of, strict=True):
            check_one(one, where)

    return check


def table(of: Check = anything, names: Check = anything, least: int = 0) -> Check:
    """Return the check of an object with any names and values of one kind."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict) or len(value) < least:
            raise _misfit(f"an object with at least {least} entries", where, value)
        for name, one in value.items():
            names(name, f"the names of {where}")
            of(one, where)

    return check


TEXTS = table(text())
"""An object that has texts only."""


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return the check of an object with these names; those of `optional` may be missing."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise _misfit("an object", where, value)
        missing = required.keys() - value.keys()
        if missing:
            raise ValueError(f"expected {', '.join(map(repr, sorted(missing)))} in {where}, got none")
        for name, of in {**required, **(optional or {})}.items():
            if name in value:
                of(value[name], f"{name!r}")

    return check


def different(values: list[Any], what: str) -> None:
    """Raise ValueError where a value stands twice."""
    if len(set(values)) < len(values):
        raise ValueError(f"expected {what} that differ, got one twice")


def _misfit(expected: str, where: str, got: Any) -> ValueError:
    return ValueError(f"expected {expected} in {where}, got {_shown.repr(got)}")
