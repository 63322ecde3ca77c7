"""The errors that a user can cause, as one tree.

    StrataError (also a ValueError)
    ├── ModelError        a model cannot be found, loaded or used
    ├── PromptError       a prompt source or an image cannot be read
    ├── RecordingError    a recording cannot be made, opened or read
    ├── EditError         an edit cannot be made, opened or applied
    │   ├── NothingLearntError  no change was learnt that is better than none
    │   └── MaskError         a mask, criterion or strategy does not fit
    │       └── NoLayerCountError a mask's file does not say how many layers its model has
    ├── EvaluationError   an evaluation cannot be made or opened
    ├── ExportError       a checkpoint cannot be written or does not verify
    └── WorkspaceError    the workspace folder cannot be read or written

Messages have the form "what failed: expected X, got Y. What to do." and are shown to the user unchanged. What comes from outside (a cell, a
path, another library's message) is shortened by `short` where it enters one; as a whole no message is longer than `MOST_MESSAGE`.
`Cancelled` is not among them: stopping on request is not an error.
"""

from __future__ import annotations

import errno
import traceback

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FRAMES = 20  # of a traceback, the innermost ones
MOST_SHOWN = 200  # characters of a value, a path or another library's message inside of a message
MOST_MESSAGE = 4000  # characters of a message
MOST_TRACE = 20_000  # characters of a traceback, which ends with the message
_END = 500  # characters that are kept of the end of a longer message: what to do


class StrataError(ValueError):
    """An error that the user can fix; `str(error)` says what failed, what was expected and what to do, in 4,000 characters at most."""

    def __init__(self, message: object = "") -> None:
        text = str(message)
        super().__init__(text if len(text) <= MOST_MESSAGE else f"{text[: MOST_MESSAGE - _END - 3]} … {text[-_END:]}")


class ModelError(StrataError):
    """A model cannot be found, loaded or used."""


class PromptError(StrataError):
    """A prompt source or an image cannot be read."""


class RecordingError(StrataError):
    """A recording cannot be made, opened or read."""


class EditError(StrataError):
    """An edit cannot be made, opened or applied."""


class NothingLearntError(EditError):
    """No change was learnt that is better than none: the edit stays as it is."""


class MaskError(EditError):
    """A mask, criterion or strategy does not fit."""


class NoLayerCountError(MaskError):
    """A mask's file does not say how many layers its model has, or how wide they are."""

    def __init__(self, name: str, *, widths: bool = False) -> None:
        said = "how wide the model's layers are" if widths else "how many layers the model has"
        expected = "their widths, got none. Pass `model`" if widths else "their number, got none. Pass `n_layers`"
        super().__init__(f"{name} does not say {said}: expected {expected}, or load the model first.")


class EvaluationError(StrataError):
    """An evaluation cannot be made or opened."""


class ExportError(StrataError):
    """A checkpoint cannot be written or does not verify."""


class WorkspaceError(StrataError):
    """The workspace folder cannot be read or written."""


class ClusterError(StrataError):
    """A cluster cannot be reached, or its workers do not do their work."""


def short(value: object, most: int = MOST_SHOWN) -> str:
    """Return a value, a path or another library's message for a message: one line, `most` characters at most.

    >>> short("one\\ntwo"), short("x" * 300, 5)
    ('one two', 'xxxx…')
    """
    text = str(value)
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"


def explained(failure: BaseException) -> tuple[str, str]:
    """Return the message for the user and the traceback, "" for a StrataError; never raises."""
    trace = "".join(traceback.format_exception(failure, limit=-FRAMES))[:MOST_TRACE]
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
    return f"Unexpected {type(failure).__name__}: {short(text, MOST_MESSAGE)}".rstrip(": "), trace
