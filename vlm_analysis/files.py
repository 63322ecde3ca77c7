"""Writing a file so that a kill or a full disk leaves the old one whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from vlm_analysis.errors import EvaluationError


def read_saved(path: Path, what: str, advice: str) -> str:
    """Return the text of a saved file of measurements.

    Raises:
        EvaluationError: it cannot be read; the message names `what` it should be and ends with the `advice`.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"No {what} can be read at {path}: {error}. {advice}") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Call `write` with a temporary path beside `path`, then rename it to `path`; a failure leaves nothing behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
