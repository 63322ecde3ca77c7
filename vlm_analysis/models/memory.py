"""Memory: how much is free for a model, returning it to the system, and recognising that it ran out.

On Linux with a memory limit on the process's group (a container), the rest of the limit counts where it is less than the free
memory of the machine.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from pathlib import Path

import psutil
import torch

GIB = 2**30
_OUT = re.compile(r"not enough memory|out of memory|cannot allocate memory|can't allocate memory|std::bad_alloc", re.I)
# Limit and use of a group, by version of Linux's control groups: the folder, the two files in it, and the name of the file cache.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Return the free bytes of a device: memory of the GPU, else of the machine, within the limit of the process."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    candidates = [psutil.virtual_memory().available]
    candidates += [
        free for group in _GROUPS for path in _group_folders(group[0]) if (free := _free_in(path, *group[1:]))
    ]
    return max(0, min(candidates))


def give_back() -> None:
    """Return to the system the freed memory that Python, PyTorch's GPU cache and the C library hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)  # glibc's; without it up to a fifth of a model's size stayed allocated in our tests


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or its cause, says that memory ran out; PyTorch on a CPU raises a RuntimeError."""
    while error is not None:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        if isinstance(error, (RuntimeError, OSError)) and _OUT.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def gib(n_bytes: float) -> str:
    """Return a size in words.

    >>> gib(3.25 * 2**30), gib(50 * 2**20), gib(3000)
    ('3.2 GiB', '50 MiB', '1 MiB')
    """
    if n_bytes >= GIB:
        return f"{n_bytes / GIB:,.1f} GiB"
    return f"{max(1, round(n_bytes / 2**20))} MiB"


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
