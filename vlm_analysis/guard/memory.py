"""How much memory is free, and how much of it what a file unpacks to may take.

On Linux with a memory limit on the process's group (a container), the rest of the limit counts where it is less than the free
memory of the machine.
"""

from __future__ import annotations

from pathlib import Path

import psutil

SHARE = 4  # a file may unpack to a quarter of the free memory: it is held twice for a moment
SMALL = 1 << 20  # bytes that are there, or nothing runs; to ask how many are takes longer than to read a mask's file
JSON_COST = 40  # bytes in memory for a byte of JSON, at the worst: lists without content
# Limit and use of a group, by version of Linux's control groups: the folder, the two files in it, and the name of the file cache.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory() -> int:
    """Return the free bytes of the machine, within the limit of the process."""
    candidates = [psutil.virtual_memory().available]
    candidates += [
        free for group in _GROUPS for path in _group_folders(group[0]) if (free := _free_in(path, *group[1:]))
    ]
    return max(0, min(candidates))


def refuse_larger(size: int, most: int, share: int = SHARE) -> None:
    """Refuse what unpacks to more than `most` bytes, or to more than the free memory over `share`.

    Raises:
        ValueError: it does.
    """
    if size <= min(most, SMALL // share):
        return
    bound = min(most, free_memory() // share)
    if size > bound:
        raise ValueError(f"expected at most {_words(bound)} when unpacked, got {_words(size)}")


def _words(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _group_folders(root: Path) -> list[Path]:
    """Return the folders that may hold this process's limit: that of its group and those above, up to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = [line.split(":", 2)[2] for line in lines if line.startswith("0::") or ":memory:" in line]
    folders = [root.joinpath(name.lstrip("/")) for name in own]
    return [root, *(part for folder in folders for part in (folder, *folder.parents) if root in part.parents)]


def _free_in(folder: Path, limit_file: str, use_file: str, cache_name: str) -> int | None:
    """Return the bytes that a group may still allocate; its file cache counts as free, as the system drops it when memory is short."""
    try:
        limit = int((folder / limit_file).read_text())
        used = int((folder / use_file).read_text())
        stat = (folder / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    cache = next((int(line.split()[1]) for line in stat if line.split()[:1] == [cache_name]), 0)
    return max(1, limit - used + cache)
