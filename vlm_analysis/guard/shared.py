"""Shared mode: what a dashboard forbids that others can reach, since whoever uses it otherwise acts as the one who started it."""

from __future__ import annotations

import os
from pathlib import Path

from vlm_analysis.errors import StrataError

VARIABLE = "STRATA_SHARED"
SAID = (
    "This dashboard is shared: it loads the bundled model and models in its workspace, takes prompts as uploads, and exports into its "
    "workspace. It runs no code of a checkpoint, and opens no other path of the server and no hub id."
)


def is_shared() -> bool:
    """Return whether `STRATA_SHARED` is set, to anything but 0, no or false."""
    return os.environ.get(VARIABLE, "").strip().lower() not in ("", "0", "no", "false")


def home() -> Path:
    """Return the folder of the workspace: that of STRATA_HOME, else ~/.strata.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return Path(os.environ.get("STRATA_HOME") or "~/.strata").expanduser().absolute()


def refuse_if_shared(what: str, advice: str, error: type[StrataError]) -> None:
    """Raise `error` in shared mode: `what` is forbidden there."""
    if is_shared():
        raise error(f"{what} is not allowed: expected what a shared dashboard does, as {VARIABLE} is set. {advice}")


def check_path(path: Path, what: str, error: type[StrataError], *more: Path) -> None:
    """Raise `error` in shared mode for a path that is neither in the workspace nor in one of `more` folders.

    Links are not followed: only those who have the server's files can make one in the workspace.
    """
    if not is_shared():
        return
    plain = Path(os.path.abspath(path.expanduser()))
    if not any(plain.is_relative_to(folder) for folder in (home(), *more)):
        refuse_if_shared(f"{what} {str(path)[:200]!r}", f"Name a path in {home()}.", error)
