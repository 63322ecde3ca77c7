"""Memory: how much is free for a model, returning it to the system, and recognising that it ran out."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from vlm_analysis.errors import StrataError
from vlm_analysis.guard.memory import free_memory

GIB = 2**30
T = TypeVar("T")
_OUT = re.compile(r"not enough memory|out of memory|cannot allocate memory|can't allocate memory|std::bad_alloc", re.I)


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Return the free bytes of a device: memory of the GPU, else of the machine, within the limit of the process."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


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


def within_memory(work: Callable[[], T], refusal: Callable[[], StrataError]) -> T:
    """Return what the work returns; where memory runs out in it, give back what it computed and raise the refusal, made then."""
    try:
        return work()
    except StrataError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    give_back()  # not inside the except clause, where the error still holds what was computed
    raise refusal()


def gib(n_bytes: float) -> str:
    """Return a size in words.

    >>> gib(3.25 * 2**30), gib(50 * 2**20), gib(3000)
    ('3.2 GiB', '50 MiB', '1 MiB')
    """
    if n_bytes >= GIB:
        return f"{n_bytes / GIB:,.1f} GiB"
    return f"{max(1, round(n_bytes / 2**20))} MiB"
