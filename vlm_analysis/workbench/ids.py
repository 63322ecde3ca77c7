"""The ids of saved items: they sort by time, whatever the clock does."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

LENGTH = 24
MICROSECOND = timedelta(microseconds=1)
MOST_YEAR = 9000  # ids beyond were made by hand: none could follow them
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")


def is_id(text: object) -> bool:
    """Return whether this is the id of an item."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def next_id(folder: Path, now: datetime) -> str:
    """Return a new id for a folder: of the time `now`, or right after its newest one where the clock went back."""
    newest = next(filter(None, (_time_of(name[:LENGTH]) for name in sorted(os.listdir(folder), reverse=True))), None)
    time = now if newest is None else max(now, newest + MICROSECOND)
    return f"{time:%Y%m%d-%H%M%S}-{time.microsecond:05x}{secrets.randbelow(16**3):03x}"


def _time_of(item_id: str) -> datetime | None:
    """Return the time in an id: the second, then five digits of microseconds; None where it is no id of a time."""
    with suppress(ValueError, OverflowError):
        if is_id(item_id):
            second = datetime.strptime(item_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
            time = second + int(item_id[16:21], 16) * MICROSECOND
            return time if time.year < MOST_YEAR else None
    return None
