"""Zip files of unknown origin: the one door for prompts, recordings and token maps."""

from __future__ import annotations

import zipfile
from typing import BinaryIO

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can claim gigabytes of memory for a few bytes
ENTRY_BYTES = 512  # of the directory, for each entry; a name is rarely longer than 300
_ENCRYPTED = 0x1
_TAIL = (
    22 + 65_535 + 76
)  # the end of the directory with the longest comment, and the two records of a large file before it


def opened_zip(file: BinaryIO, most_entries: int) -> zipfile.ZipFile:
    """Return the zip in an open file; its directory is not read before its size is known to be sound.

    Raises:
        ValueError: the directory is too long for `most_entries`.
        zipfile.BadZipFile, OSError: it is no zip.
    """
    size = _directory_bytes(file)
    if size > most_entries * ENTRY_BYTES:
        raise ValueError(f"expected a directory for {most_entries:,} files at most, got one of {size:,} bytes")
    return zipfile.ZipFile(file)


def check_entries(entries: list[zipfile.ZipInfo]) -> None:
    """Check that every entry has a name of its own, is not encrypted and is compressed as zips usually are.

    Raises:
        ValueError: one is not.
    """
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError("expected each name once in the zip, got one twice")
    for entry in entries:
        if entry.compress_type not in METHODS or entry.flag_bits & _ENCRYPTED:
            raise ValueError(
                f"expected ordinary compression without a password, got another in {entry.filename[:60]!r}"
            )


def _directory_bytes(file: BinaryIO) -> int:
    """Return the larger of the sizes that the end of a zip claims for its directory; 0 where it has no such end."""
    length = file.seek(0, 2)
    file.seek(max(0, length - _TAIL))
    tail = file.read(_TAIL)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        return 0
    size = int.from_bytes(tail[end + 12 : end + 16], "little") % 0xFFFFFFFF  # all bits set: see the record before it
    before = tail[max(0, end - 76) : end]
    return max(size, int.from_bytes(before[40:48], "little") if before.startswith(b"PK\x06\x06") else 0)
