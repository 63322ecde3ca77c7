"""What was tried and found harmless, by its hash: kept in the workspace's folder, so that each is tried once and not once a process.

Only what passed is kept on disk. What failed is tried again by the next process: the machine may have been at fault.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from vlm_analysis.errors import ModelError, StrataError
from vlm_analysis.guard.schema import fields, text
from vlm_analysis.guard.shared import home
from vlm_analysis.saved import Form

FOLDER = "tried"
_FORM = Form(("strata-tried",), 1, "note of what was tried", "Delete it.", ModelError, fields({"mark": text(64)}))
_harmless: set[str] = set()


def mark_of(kind: str, content: object) -> str:
    """Return the hash of what is tried, plain JSON, with the versions of what runs it."""
    versions = [version(package) for package in ("tokenizers", "transformers")]
    return hashlib.sha256(json.dumps([kind, versions, content], sort_keys=True).encode()).hexdigest()


def is_harmless(mark: str) -> bool:
    """Return whether something was tried before and passed; a note that is damaged counts for nothing."""
    if mark not in _harmless:
        with suppress(OSError, RuntimeError, StrataError):
            if _FORM.open(_path(mark), lambda content: str(content["mark"])) == mark:
                _harmless.add(mark)
    return mark in _harmless


def note_harmless(mark: str) -> None:
    """Keep that something passed; where no file can be written, for this process only."""
    _harmless.add(mark)
    with suppress(OSError, RuntimeError):
        _FORM.save(_path(mark), {"mark": mark})


def _path(mark: str) -> Path:
    return home() / FOLDER / f"{mark}.json"
