"""Rows of a table and their cells: texts, lists and choices of them, whatever they were written as. Knows no table and no file."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vlm_analysis.errors import PromptError

MAX_ROWS = 10_000  # prompts of a set
MAX_SHOWN = 12  # names in a message
MAX_NAME_SHOWN = 60  # characters of each
MOST_LITERAL = (
    50_000  # characters of a list that is written as Python writes it; parsing takes far more memory than that
)

Cells = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One row: its number from 1 in the table (0: the whole source), its cells by column, or the reason it could not be read."""

    number: int
    cells: Cells = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Other:
    """A cell that is neither text, a number, bytes, a list nor a struct, by the name of its type."""

    type_name: str

    def __repr__(self) -> str:
        return self.type_name


def is_missing(value: object) -> bool:
    """Return whether a cell is empty: None or NaN."""
    return value is None or (isinstance(value, (float, Decimal)) and math.isnan(value))


def is_blank(value: object) -> bool:
    """Return whether a cell is empty, holds blanks only, or an empty list."""
    return is_missing(value) or value == [] or (isinstance(value, str) and not value.strip())


def type_of(value: object) -> str:
    """Return the name of the type of a cell."""
    return value.type_name if isinstance(value, Other) else type(value).__name__


def cell_text(value: object, column: str) -> str:
    """Return the text of a cell without surrounding blanks; "" where it is missing (None, NaN).

    Whole numbers lose their ".0": tables made with pandas write 7 as 7.0 where the column has gaps.

    Raises:
        PromptError: the cell is neither text, a finite number nor a boolean.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        whole = value == int(value) and abs(float(value)) < 1e15
        return str(int(value)) if whole else f"{value:f}" if isinstance(value, Decimal) else repr(value)
    got = repr(value) if isinstance(value, float) else f"a {type_of(value)}"
    raise PromptError(f"the cell '{column}' could not be read: expected text or a number, got {got}. Write it as text.")


def choice_texts(value: object) -> tuple[str, ...] | None:
    """Return the choices of a row, from a list or its JSON text; None where the cell is blank or the list empty.

    Raises:
        PromptError: the cell is not a list, or an entry is neither text nor a number.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text or "null")
        except (ValueError, RecursionError) as error:
            raise _no_choices(repr(text[:60])) from error
    if is_blank(value):
        return None
    if not isinstance(value, list):
        raise _no_choices(f"a {type_of(value)}")
    return tuple(cell_text(choice, "choices") for choice in value)


def as_list(value: object, column: str) -> list[Any]:
    """Return the list in a cell: a list, its JSON text, or its text as Python writes it ("['a', 'b']"); [] where it is blank.

    Raises:
        PromptError: it is none of these.
    """
    if is_blank(value):
        return []
    read: object = _literal(value.strip()) if isinstance(value, str) else value
    if isinstance(read, (list, tuple)):
        return list(read)
    got = repr(value[:60]) if isinstance(value, str) else f"a {type_of(value)}"
    raise PromptError(f'the cell \'{column}\' could not be read: expected a list, got {got}. Write ["one", "other"].')


def choice_of(answer: object, choices: list[str] | tuple[str, ...]) -> str | None:
    """Return the choice that an answer names; None where the answer is blank.

    A number is an index from 0. A text is a choice as it stands, or its letter ("B", "(b)", "B."), or its index from 0, in this order;
    where a format's texts are indices, hand them on as numbers.

    >>> choice_of("b", ["red", "blue"]), choice_of(0, ["red", "blue"]), choice_of("B", ["A", "B"])
    ('blue', 'red', 'B')

    Raises:
        PromptError: it names none of them.
    """
    if is_blank(answer):
        return None
    text = cell_text(answer, "answer")
    stripped = [choice.strip() for choice in choices]
    is_number = not isinstance(answer, str)
    if text in stripped and not is_number:
        return text
    letter = text.strip("().:").upper()
    place = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
    if len(letter) == 1 and letter.isascii() and letter.isalpha():
        place = ord(letter) - ord("A")
    if not 0 <= place < len(stripped):
        shown = ", ".join(repr(choice[:60]) for choice in stripped[:26])
        raise PromptError(
            f"the answer is none of the choices: expected one of {shown}, its letter or its number from 0, got {text[:60]!r}. "
            "Correct the answer."
        )
    return stripped[place]


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > MOST_LITERAL or not text.startswith(("[", "(")):
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _no_choices(got: str) -> PromptError:
    return PromptError(
        f'the cell \'choices\' could not be read: expected a JSON list of texts, got {got}. Write ["red", "blue"].'
    )
