"""Everything a user can cause, as one tree.

    StrataError (also a ValueError)
    ├── ModelError        a model cannot be found, loaded or used
    ├── PromptError       a prompt source or an image cannot be read
    ├── RecordingError    a recording cannot be made, opened or asked
    ├── MaskError         a mask, criterion or strategy does not fit
    ├── EvaluationError   an evaluation cannot be made or opened
    ├── ExportError       a checkpoint cannot be written or does not verify
    └── WorkspaceError    the workspace folder cannot be read or written

Messages read "what failed: expected X, got Y. What to do." and are shown to the user as they stand.
`Cancelled` is not among them: stopping on request is not an error.
"""

from __future__ import annotations


class StrataError(ValueError):
    """Something the user can mend; `str(error)` says what failed, what was expected and what to do."""


class ModelError(StrataError):
    """A model cannot be found, loaded or used."""


class PromptError(StrataError):
    """A prompt source or an image cannot be read."""


class RecordingError(StrataError):
    """A recording cannot be made, opened or asked."""


class MaskError(StrataError):
    """A mask, criterion or strategy does not fit."""


class EvaluationError(StrataError):
    """An evaluation cannot be made or opened."""


class ExportError(StrataError):
    """A checkpoint cannot be written or does not verify."""


class WorkspaceError(StrataError):
    """The workspace folder cannot be read or written."""
