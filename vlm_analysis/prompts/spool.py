"""Pictures that lie in cells of a table or in an archive, kept as files while this process lives: thousands of them take no memory."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from pathlib import Path

from vlm_analysis.errors import PromptError, short
from vlm_analysis.files import write_atomically

SPARE_BYTES = 500_000_000  # of the disk, which are left free


@functools.cache
def spool_folder() -> Path:
    """Return the folder of this process's pictures; it is deleted when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="strata-images-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def spooled(data: bytes) -> Path:
    """Return a file with these bytes, named by their hash; equal bytes are one file.

    Raises:
        PromptError: the disk is full, or cannot be written.
    """
    path = spool_folder() / hashlib.sha256(data).hexdigest()
    try:
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            free = shutil.disk_usage(path.parent).free
            if free < SPARE_BYTES + len(data):
                raise PromptError(
                    f"an image could not be kept: expected {SPARE_BYTES // 10**6} MB free in '{short(path.parent)}', "
                    f"got {free // 10**6} MB. Free some space, or set TMPDIR to a larger disk."
                )
            write_atomically(path, lambda part: part.write_bytes(data))
    except OSError as error:
        raise PromptError(
            f"an image could not be kept in '{short(path.parent)}': {short(error)}. Free some space, or set TMPDIR."
        ) from error
    return path
