"""How long work reports itself and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called as `on_progress(done, total, message)`; raising `Cancelled` in it stops the work cleanly."""


class Cancelled(Exception):  # noqa: N818 - a request, not an error
    """The user asked to stop. Not a StrataError: nothing went wrong."""


def no_progress(done: int, total: int, message: str) -> None:
    """Report nothing."""
