"""What lies in a folder of saved items, by their sidecars; a sidecar is read again only where its file is another one."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from vlm_analysis.errors import WorkspaceError
from vlm_analysis.workbench.sidecars import ENDING, Item, open_sidecar

SETTLED_NS = (
    2_000_000_000  # a folder that changed since may change again without a new time: some file systems count by twos
)


@dataclass(frozen=True)
class Damaged:
    """A saved item that cannot be listed: its kind, the name of its sidecar, and why."""

    kind: str
    sidecar: str
    reason: str


Found = tuple[list[Item], list[Damaged]]
State = tuple[int, int, int]  # of a file: when it was changed, its size, its number


class Listing:
    """The items of folders, newest first, and those that cannot be listed. Threads may share it.

    At first it looks at every sidecar each time; after `look_again` once, and then only where a folder has changed.
    """

    def __init__(self) -> None:
        self._read: dict[Path, dict[str, tuple[State, Item]]] = {}
        self._looked: dict[Path, tuple[int, Found]] | None = None

    def look_again(self) -> None:
        """Forget what was looked at, and from now on look at a folder once until it changes."""
        self._looked = {}

    def of(self, folder: Path, kind: str) -> Found:
        """Return the items of a folder, and those that cannot be listed; callers may change the lists."""
        looked = self._looked
        if looked is None:
            return self._look(folder, kind)
        changed = _changed_ns(folder)
        known = looked.get(folder)
        if known is None or known[0] != changed:
            known = changed, self._look(folder, kind)
            if time.time_ns() - changed > SETTLED_NS:
                looked[folder] = known
        items, problems = known[1]
        return list(items), list(problems)

    def _look(self, folder: Path, kind: str) -> Found:
        items: list[Item] = []
        problems: list[Damaged] = []
        try:
            names = set(os.listdir(folder))
        except FileNotFoundError:
            return [], []
        except OSError as error:
            reason = f"Reading {folder} failed: expected a readable folder, got: {error.strerror}. Check the path."
            return [], [Damaged(kind, "", reason)]
        known = self._read.get(folder, {})
        read: dict[str, tuple[State, Item]] = {}
        for name in sorted((n for n in names if n.endswith(ENDING)), reverse=True):
            try:
                read[name] = _sidecar(folder, kind, name, known.get(name))
            except FileNotFoundError:  # deleted since the folder was listed
                continue
            except (OSError, WorkspaceError) as error:
                problems.append(Damaged(kind, name, str(error)))
                continue
            item = read[name][1]
            if item.path.name in names or item.path.exists():
                items.append(item)
            else:
                reason = f"Opening '{item.name}' failed: expected {item.path}, got nothing there. Put it back or delete the item."
                problems.append(Damaged(kind, name, reason))
        self._read[folder] = read
        return items, problems


def _sidecar(folder: Path, kind: str, name: str, known: tuple[State, Item] | None) -> tuple[State, Item]:
    """Return the item of a sidecar with the state of its file, read again only where that is another one."""
    status = os.stat(os.path.join(folder, name))
    state = (status.st_mtime_ns, status.st_size, status.st_ino)
    if known is not None and known[0] == state:
        return known
    return state, open_sidecar(folder, kind, name.removesuffix(ENDING))


def _changed_ns(folder: Path) -> int:
    """Return when a name in the folder was added, replaced or removed last; 0 where there is no folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
