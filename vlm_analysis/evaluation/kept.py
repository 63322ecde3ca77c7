"""Kept scores, to look at: those of a folder of a ScoreStore, read without the model, without torch and without changing it."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from vlm_analysis.errors import EvaluationError
from vlm_analysis.evaluation.scores import COLUMNS, FILE, MAX_HEADER, NUMBERS, TABLES, checksum
from vlm_analysis.files import opened
from vlm_analysis.saved import parsed

Scores = dict[int, dict[str, Any]]
"""By row what `ScoreStore.of` returns, before the best of several accepted answers is taken."""


def kept_belongs(folder: Path) -> Mapping[str, Any]:
    """Return what the scores of a folder belong to: model, prompts, versions; {} where there are none.

    Raises:
        EvaluationError: the file is no store of scores.
    """
    lines = _read(folder, "SELECT substr(header, 1, ?) FROM belongs LIMIT 1", MAX_HEADER)
    try:
        header = parsed(str(lines[0][0]).encode()) if lines else {}
    except ValueError as error:
        raise _unreadable(folder, "another header") from error
    return header if isinstance(header, dict) else {}


def kept_scores(folder: Path, key: str) -> Scores:
    """Return the kept scores of an edit by row; {} where there are none.

    Raises:
        EvaluationError: the file is no store of scores, or a row is not as it was written.
    """
    scores: Scores = {}
    for *row, crc32 in _read(folder, f"SELECT {', '.join(COLUMNS)} FROM scores WHERE edit = ?", key):
        _, place, right, *numbers = row
        is_whole = isinstance(place, int) and all(one is None or isinstance(one, float) for one in numbers)
        if not is_whole or crc32 != checksum(tuple(row)):
            raise _unreadable(folder, f"other numbers of row {row[1]}")
        values = (math.nan if value is None else value for value in numbers)
        scores[place] = {"exact_match": bool(right), **dict(zip(NUMBERS, values, strict=True))}
    return scores


def _read(folder: Path, line: str, *values: Any) -> list[tuple[Any, ...]]:
    path = folder / FILE
    try:
        opened(path).close()  # a pipe would be waited for
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as base:
            base.execute("PRAGMA trusted_schema = OFF")  # nothing that a file names is run
            tables = sorted(str(sql) for (sql,) in base.execute("SELECT sql FROM sqlite_master"))
            return base.execute(line, values).fetchall() if tables == sorted(TABLES) else []
    except FileNotFoundError:
        return []
    except (OSError, sqlite3.Error) as error:
        raise _unreadable(folder, str(error)) from error


def _unreadable(folder: Path, got: str) -> EvaluationError:
    return EvaluationError(
        f"The scores in {folder} cannot be read: expected rows as they were written, got {got}. Evaluate again."
    )
