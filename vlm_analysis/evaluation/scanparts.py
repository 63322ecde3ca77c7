"""The scores of a scan that runs, a file for each batch, so that one that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.edits.edit import Edit
from vlm_analysis.errors import EvaluationError
from vlm_analysis.files import advice_for
from vlm_analysis.guard.schema import fields, listed, text
from vlm_analysis.saved import Arrays, Form

Scores = dict[str, dict[int, dict[str, Any]]]
"""Scores of a scan, by the edit's key, by the row."""

FORM = Form(
    ("strata-scan-part",),
    1,
    "part of a scan",
    "Scan again.",
    EvaluationError,
    fields({"names": listed(text(100), 1, 20)}),
)
_RIGHT = "exact_match"


class KeptScores:
    """The folder of a scan's batches.

    Args:
        folder: several scans may share it.
        about: what scores depend on besides the edits (see `score_header`).
        plan: the edits of the scan.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], plan: Sequence[Edit]) -> None:
        self._folder, self._keys = Path(folder), [edit.key for edit in plan]
        self._identity = json.dumps([dict(about), self._keys], sort_keys=True)

    def of(self, rows: Sequence[int]) -> Scores | None:
        """Return the scores of a batch; None where they are not kept, or not as they were written."""
        try:
            return FORM.open_arrays(self._path(rows), lambda content, arrays: self._scores(content, arrays, rows))
        except EvaluationError:
            return None

    def keep(self, rows: Sequence[int], scores: Scores) -> None:
        """Write the scores of a batch, of every edit on every row; the file appears whole or not at all.

        Raises:
            EvaluationError: it cannot be written.
        """
        names = list(scores[self._keys[0]][rows[0]])
        table = np.array(
            [[[scores[key][row][name] for row in rows] for key in self._keys] for name in names], dtype=np.float64
        )
        try:
            FORM.save_arrays(self._path(rows), {"names": names}, {"scores": table})
        except OSError as error:
            raise EvaluationError(
                f"The scores in {self._folder} cannot be written: expected a folder to write in, got {error.strerror or error}. "
                f"{advice_for(error)}."
            ) from error

    def _scores(self, content: dict[str, Any], arrays: Arrays, rows: Sequence[int]) -> Scores:
        names = content["names"]
        table = arrays.get("scores", np.float64, (len(names), len(self._keys), len(rows)))
        return {
            key: {
                row: {
                    name: bool(value) if name == _RIGHT else float(value)
                    for name, value in zip(names, table[:, at, place], strict=True)
                }
                for place, row in enumerate(rows)
            }
            for at, key in enumerate(self._keys)
        }

    def _path(self, rows: Sequence[int]) -> Path:
        identity = f"{self._identity}{list(rows)}"
        return self._folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"
