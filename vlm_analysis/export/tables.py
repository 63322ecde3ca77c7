"""Tables as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV without its index; text that a spreadsheet would run as a formula begins with an apostrophe.

    >>> table_csv(pd.DataFrame({"answer": ["=1+1", "-5", "red"]}))
    "answer\\n'=1+1\\n-5\\nred\\n"
    """
    quoted = frame.apply(lambda column: column if is_numeric_dtype(column) else column.map(_quoted))
    return quoted.rename(columns=_quoted).to_csv(index=False, lineterminator="\n")


def _quoted(value: Any) -> Any:
    """Return text as text for a spreadsheet; a number, also one in text, is none of a formula."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
