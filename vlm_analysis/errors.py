"""The errors that a user can cause, as one tree.

    StrataError (also a ValueError)
    ├── ModelError        a model cannot be found, loaded or used
    ├── PromptError       a prompt source or an image cannot be read
    ├── RecordingError    a recording cannot be made, opened or read
    ├── EditError         an edit cannot be made, opened or applied
    │   └── MaskError         a mask, criterion or strategy does not fit
    ├── EvaluationError   an evaluation cannot be made or opened
    ├── ExportError       a checkpoint cannot be written or does not verify
    └── WorkspaceError    the workspace folder cannot be read or written

Messages have the form "what failed: expected X, got Y. What to do." and are shown to the user unchanged.
`Cancelled` is not among them: stopping on request is not an error.
"""

from __future__ import annotations

import errno
import traceback

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FRAMES = 20  # of a traceback, the innermost ones


class StrataError(ValueError):
    """An error that the user can fix; `str(error)` says what failed, what was expected and what to do."""


class ModelError(StrataError):
    """A model cannot be found, loaded or used."""


class PromptError(StrataError):
    """A prompt source or an image cannot be read."""


class RecordingError(StrataError):
    """A recording cannot be made, opened or read."""


class EditError(StrataError):
    """An edit cannot be made, opened or applied."""


class MaskError(EditError):
    """A mask, criterion or strategy does not fit."""


class EvaluationError(StrataError):
    """An evaluation cannot be made or opened."""


class ExportError(StrataError):
    """A checkpoint cannot be written or does not verify."""


class WorkspaceError(StrataError):
    """The workspace folder cannot be read or written."""


def explained(failure: BaseException) -> tuple[str, str]:
    """Return the message for the user and the traceback, "" for a StrataError; never raises."""
    trace = "".join(traceback.format_exception(failure, limit=-FRAMES))
    try:
        text = str(failure)
    except BaseException:  # a broken __str__ must not end the worker
        text = "(its message cannot be read)"
    if isinstance(failure, StrataError):
        return text, ""
    if isinstance(failure, OSError) and failure.errno in DISK_FULL:
        return (
            "Writing failed: expected free disk space, got a full disk. Nothing already saved is lost. "
            "Free some space and start again.",
            trace,
        )
    return f"Unexpected {type(failure).__name__}: {text}".rstrip(": "), trace
