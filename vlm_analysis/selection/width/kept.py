"""The sums of a scoring that is under way, in one file, so that one that was stopped goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_analysis.errors import EditError
from vlm_analysis.files import advice_for
from vlm_analysis.guard.schema import TEXTS, fields, text, whole
from vlm_analysis.saved import Arrays, Form

FILE = "width.npz"
EVERY_S = 10.0  # between two writes; our choice
Totals = Mapping[tuple[int, str], np.ndarray]
"""By layer and unit the sums over answer tokens, (n_values, n_units) float64."""

FORM = Form(
    ("strata-width-part",),
    1,
    "part of a scoring of width",
    "Score the width again.",
    EditError,
    fields({"work": text(10_000), "done": whole(0), "refused": TEXTS}),
)


class KeptSums:
    """The file of a scoring.

    Args:
        folder: of the file.
        work: a text with all that the sums depend on: a file of other work counts for nothing.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self._folder, self._work, self._written = Path(folder), work, time.monotonic()

    def open(self, totals: Totals) -> tuple[int, dict[int, str]]:
        """Fill `totals` with the sums of the file; return how many batches are in them, and by place the prompts that were refused.

        Without a file, or with one that is damaged or of other work, `totals` stay as they are and no batch is done.
        """
        size = sum(one.shape[1] for one in totals.values())
        n_values = len(next(iter(totals.values())))

        def take(content: dict[str, Any], arrays: Arrays) -> tuple[int, dict[int, str]]:
            sums = arrays.get("sums", np.float64, (n_values, size))
            if content["work"] != self._work or not np.isfinite(sums).all():
                raise ValueError("expected sums of this work, got others")
            refused = {int(place): reason for place, reason in content["refused"].items()}
            start = 0
            for one in totals.values():
                one[:] = sums[:, start : start + one.shape[1]]
                start += one.shape[1]
            return content["done"], refused

        try:
            return FORM.open_arrays(self._folder / FILE, take)
        except EditError:
            return 0, {}

    def keep(self, totals: Totals, done: int, refused: Mapping[int, str], *, at_once: bool = False) -> None:
        """Write the sums of the first `done` batches where the last write was `EVERY_S` ago; the file appears whole or not at all.

        Raises:
            EditError: it cannot be written.
        """
        if not at_once and time.monotonic() - self._written < EVERY_S:
            return
        payload = {
            "work": self._work,
            "done": done,
            "refused": {str(place): reason for place, reason in refused.items()},
        }
        try:
            FORM.save_arrays(self._folder / FILE, payload, {"sums": np.concatenate([*totals.values()], axis=1)})
        except OSError as error:
            raise EditError(
                f"The scores cannot be kept: expected a folder to write in, got {error.strerror or error} at {self._folder}. "
                f"{advice_for(error)}. What was kept before stays."
            ) from error
        self._written = time.monotonic()
