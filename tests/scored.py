"""How many scores lie in a folder, read by SQL alone: what a sweep kept, whoever wrote it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from vlm_analysis.evaluation.scores import FILE


def n_scores(folder: Path) -> int:
    """Return how many scores the stores in a folder and below it hold; a store that is being made holds none."""
    return sum(map(_rows, folder.rglob(FILE)))


def _rows(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=60)) as base:
        if not base.execute("SELECT * FROM sqlite_master WHERE name = 'scores'").fetchall():
            return 0
        return int(base.execute("SELECT count(*) FROM scores").fetchone()[0])
