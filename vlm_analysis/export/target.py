"""The folder that an export writes: a new one, under a temporary name until it is whole."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vlm_analysis.errors import ExportError, short
from vlm_analysis.files import owned
from vlm_analysis.guard.shared import check_path

PART = ".part"


def check_target(folder: Path) -> Path:
    """Return the folder to write, after removing temporary folders of killed exports to it.

    Raises:
        ExportError: it holds something, or cannot be written.
    """
    check_path(folder, "Exporting to", ExportError)
    try:
        folder = folder.expanduser().absolute()
        os.fsencode(folder).decode()  # raises for a lone surrogate
        if "\0" in str(folder):
            raise ValueError("the name holds a zero byte")
        is_taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        for leftover in folder.parent.glob(f".{glob.escape(folder.name)}.*{PART}"):
            shutil.rmtree(leftover, ignore_errors=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ExportError(
            f"{short(repr(str(folder)))} cannot be exported to: {short(error)}. Choose another folder."
        ) from error
    if is_taken:
        raise ExportError(
            f"{folder} cannot be exported to: expected a new or empty folder, got one that holds something. Choose another."
        )
    return folder


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`, which is renamed to `folder` at the end and removed after a failure."""
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}{PART}")
    try:
        part.mkdir(parents=True)
        with owned(part, lambda owner: None):  # a part that no process owns is removed (`tidy_parts`)
            yield part
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except (OSError, SafetensorError) as error:
        raise ExportError(_disk_message(folder, error)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _disk_message(folder: Path, error: OSError | SafetensorError) -> str:
    full = getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)
    reason = "the disk is full" if full else getattr(error, "strerror", None) or str(error)
    advice = "Free some space or choose another folder" if full else "Choose another folder"
    return f"{folder} cannot be written: {reason}. {advice}; nothing half-written is left."
