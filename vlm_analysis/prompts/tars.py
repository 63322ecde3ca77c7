"""Tar archives as a prompt source: plain files only, read by their size and never extracted."""

from __future__ import annotations

import itertools
import tarfile
from io import BytesIO
from typing import Any

from vlm_analysis.errors import PromptError, short
from vlm_analysis.prompts.archives import MAX_ENTRIES, Packed, check_sizes, sort_entries


class TarArchive(Packed):
    """The files of an uncompressed tar held in memory.

    Raises:
        PromptError: it is no tar, or goes beyond the limits of a zip. Unsafe names, links, devices and files with holes are left out
            (`skipped`).
    """

    def __init__(self, data: bytes, label: str) -> None:
        super().__init__(label)
        try:
            self._tar = tarfile.open(fileobj=BytesIO(data), mode="r:")  # noqa: SIM115 - it is memory, and lives as long as this
            members = list(itertools.islice(self._tar, 10 * MAX_ENTRIES + 1))
        except Exception as error:  # a hostile header can raise any exception
            raise PromptError(
                f"'{short(label)}' could not be opened: expected a tar archive without compression, got {len(data):,} bytes that are none "
                f"or are damaged ({short(error)}). Pack the folder again, as tar or zip."
            ) from error
        named = [(member.name, member) for member in members if not member.isdir()]
        self._entries, self.skipped = sort_entries(named, label, lambda member: not member.isreg() or member.issparse())
        check_sizes([(name, member.size) for name, member in self._entries.items()], label)

    def _bytes(self, entry: Any, most: int) -> bytes:
        stream = self._tar.extractfile(entry)
        data = b"" if stream is None else stream.read(min(most, entry.size))
        if len(data) < min(most, entry.size):
            raise EOFError(f"expected {entry.size:,} bytes, got {len(data):,}")
        return data
