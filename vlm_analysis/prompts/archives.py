"""The files of a prompt source, a folder on disk or an archive in memory, read by name; a name that leads outside is refused.

All sources have the same methods (`Files`). An archive is never extracted, and no number in its directory is trusted:
an entry is read up to its limit plus one byte. This module does not know prompts.
"""

from __future__ import annotations

import itertools
import os
import posixpath
import re
import stat
import unicodedata
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.zips import METHODS, opened_zip
from vlm_analysis.prompts.images import MAX_FILE_BYTES, read_file
from vlm_analysis.prompts.spool import spooled
from vlm_analysis.prompts.tables import MAX_TABLE_BYTES, TABLE_SUFFIXES

MAX_ENTRIES = 2000
MAX_LISTED = 100_000
MAX_ARCHIVE_BYTES = 500_000_000
MAX_RATIO = 200
RATIO_MATTERS_ABOVE = 1_000_000
ENCRYPTED_FLAG = 0x1
_HUB_KINDS = ("datasets--", "models--", "spaces--")  # how the folders of repositories in the Hub's cache begin

Skipped = tuple[tuple[str, str], ...]
"""Names that were left out, each with the reason."""


class Files(Protocol):
    """Files under relative names with `/`; a name that leads outside is refused with `PromptError`."""

    skipped: Skipped

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted; hidden files are left out."""

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of a file of at most `limit` bytes."""

    def image(self, name: str) -> Path:
        """Return the path of an image; it is not decoded here."""

    def table(self, name: str) -> bytes | Path:
        """Return a table: the path of a file on disk, else its bytes."""

    def beside(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in one folder, without it, sorted; hidden files are left out."""


def safe_name(name: str) -> str:
    r"""Return a relative name in normal form: `/` between parts, no `.`, Unicode composed.

    >>> safe_name("charts\\.\\a.png")
    'charts/a.png'

    Raises:
        PromptError: the name is absolute, holds `..`, a drive letter or a control character, or is empty.
    """
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    normal = posixpath.normpath(plain)
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in plain):
        reason = "a control character"
    elif plain.startswith("/"):
        reason = "an absolute path"
    elif re.match("[A-Za-z]:", normal):
        reason = "a drive letter"
    elif ".." in plain.split("/"):
        reason = "'..'"
    elif normal == ".":
        reason = "nothing"
    else:
        return normal
    raise PromptError(
        f"the path {short(repr(name))} was refused: expected a path inside the folder or archive, got {reason}. "
        'Put the file beside the table and name it relative to the table, or name the folder of the images: images="…".'
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _not_found(name: str, location: str) -> PromptError:
    return PromptError(
        f"'{short(name)}' was not found: expected a file in {location}, got none of this name. "
        'Check the spelling; where the paths start from another folder or archive, name that: images="…".'
    )


class Folder:
    """The files below one folder on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.skipped: Skipped = ()

    def names(self) -> tuple[str, ...]:
        """Return the names of the files at any depth, sorted; hidden ones are left out, each folder is visited once."""
        names: list[str] = []
        visited: set[str] = set()
        try:
            for folder, subfolders, files in os.walk(self.root, onerror=_raise, followlinks=True):
                real = os.path.realpath(folder)
                if real in visited:
                    subfolders.clear()
                    continue
                visited.add(real)
                subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
                parent = PurePosixPath(Path(folder).relative_to(self.root))
                names.extend(str(parent / name) for name in files if not _is_hidden(name))
                if len(names) > MAX_LISTED:
                    raise PromptError(
                        f"'{short(self.root)}' was refused: expected at most {MAX_LISTED:,} files, got more. "
                        "Choose a folder that holds the prompts only."
                    )
        except OSError as error:
            raise PromptError(
                f"'{short(self.root)}' could not be listed: {short(error)}. Check its permissions."
            ) from error
        return tuple(sorted(names))

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of a file below the folder."""
        return read_file(self._locate(name), limit)

    def image(self, name: str) -> Path:
        """Return the real path of a file below the folder; it is not decoded here."""
        return self._locate(name)

    def table(self, name: str) -> Path:
        """Return the real path of a file below the folder."""
        return self._locate(name)

    def beside(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in one folder; of more than 100,000, some of them."""
        try:
            with os.scandir(self.root / folder) as entries:
                files = (entry.name for entry in itertools.islice(entries, MAX_LISTED) if entry.is_file())
                return tuple(sorted(name for name in files if not _is_hidden(name)))
        except OSError:  # it is tried again, in words, where a file is read
            return ()

    def _locate(self, name: str) -> Path:
        # Not normalised: the name on disk may hold decomposed letters.
        safe_name(name)
        try:
            path = (self.root / name.replace("\\", "/")).resolve()
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
            raise PromptError(f"'{short(name)}' could not be found: {short(error)}. Check the path.") from error
        if not path.is_relative_to(self.root) and path.parent != _hub_blobs(self.root):
            raise PromptError(
                f"'{short(name)}' was refused: expected a file inside '{short(self.root)}', got a link that leads outside. "
                "Copy the file into the folder."
            )
        if not is_file:
            raise _not_found(name, f"'{short(self.root)}'")
        return path


def _hub_blobs(folder: Path) -> Path | None:
    """Return the folder into which the files of a snapshot in the Hub's cache link: that of the same repository; None elsewhere."""
    snapshot = next((one for one in (folder, *folder.parents) if one.parent.name == "snapshots"), None)
    repository = None if snapshot is None else snapshot.parent.parent
    return repository / "blobs" if repository and repository.name.startswith(_HUB_KINDS) else None


class Packed(ABC):
    """The files of an archive held in memory, by safe name."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.skipped: Skipped = ()
        self._entries: Mapping[str, Any] = {}

    @abstractmethod
    def _bytes(self, entry: Any, most: int) -> bytes:
        """Return `most` bytes of an entry, or all if it has fewer; raises anything where it is damaged."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted."""
        return tuple(sorted(self._entries))

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of an entry of at most `limit` bytes, and never more than 20 MB, but for a table 200 MB."""
        entry = self._entries.get(safe_name(name))
        if entry is None:
            raise _not_found(name, f"'{short(self.label)}'")
        limit = min(limit, most_bytes(name))
        try:
            data = self._bytes(entry, limit + 1)
        except Exception as error:
            raise PromptError(
                f"'{short(name)}' in '{short(self.label)}' is damaged: {short(error)}. Pack the folder again."
            ) from error
        if len(data) > limit:
            raise PromptError(
                f"'{short(name)}' in '{short(self.label)}' was refused: expected at most {limit:,} bytes, got more. Make it smaller."
            )
        return data

    def image(self, name: str) -> Path:
        """Return an image as a file, which is kept until the process ends."""
        return spooled(self.read(name))

    def table(self, name: str) -> bytes:
        """Return the bytes of a table."""
        return self.read(name, MAX_TABLE_BYTES)

    def beside(self, folder: str) -> tuple[str, ...]:
        """Return the names of the files in one folder, without it, sorted."""
        parent = PurePosixPath(folder)
        return tuple(sorted(path.name for path in map(PurePosixPath, self._entries) if path.parent == parent))


class Archive(Packed):
    """The files of a zip held in memory.

    Raises:
        PromptError: it is not a zip, or is encrypted, holds a name twice, more than 2000 files, more than 500 MB, a
            file above 20 MB (a table: 200 MB) or one compressed more than 200 times. Unsafe names and links are left out (`skipped`).
    """

    def __init__(self, data: bytes, label: str) -> None:
        super().__init__(label)
        try:
            self._zip = opened_zip(BytesIO(data), 10 * MAX_ENTRIES)  # hidden and refused names count here
        except Exception as error:  # a hostile directory can raise any exception
            raise PromptError(
                f"'{short(label)}' could not be opened: expected a zip archive, got {len(data):,} bytes that are none or are "
                f"damaged ({short(error)}). Zip the folder again."
            ) from error
        # The stored name: `filename` is cut at a zero byte.
        infos = [  # is_dir() fails on a damaged, empty name
            (info.orig_filename, info)
            for info in self._zip.infolist()
            if not (info.filename.endswith("/") and not info.file_size)
        ]
        self._entries, self.skipped = sort_entries(infos, label, lambda info: stat.S_ISLNK(info.external_attr >> 16))
        check_sizes([(name, info.file_size) for name, info in self._entries.items()], label)
        _check_compression(list(self._entries.values()), label)

    def _bytes(self, entry: Any, most: int) -> bytes:
        with self._zip.open(entry) as stream:
            return stream.read(most)


class NoFiles:
    """No files: those of a table that was uploaded alone."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.skipped: Skipped = ()

    def names(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Raise PromptError: there are no files."""
        raise PromptError(
            f"'{short(name)}' was not found: expected the images with the table, got '{short(self.label)}' alone. "
            "Zip the table with its images and upload the zip."
        )

    def image(self, name: str) -> Path:
        """Raise PromptError: there are no images."""
        return spooled(self.read(name))

    def table(self, name: str) -> bytes:
        """Raise PromptError: there is no other table."""
        return self.read(name)

    def beside(self, folder: str) -> tuple[str, ...]:
        """Return no names."""
        return ()


def _raise(error: OSError) -> None:
    raise error


def most_bytes(name: str) -> int:
    """Return how long a file of an archive may be."""
    is_table = PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES
    return max(MAX_TABLE_BYTES, MAX_FILE_BYTES) if is_table else MAX_FILE_BYTES


def sort_entries(
    infos: Sequence[tuple[str, Any]], label: str, is_link: Callable[[Any], bool]
) -> tuple[dict[str, Any], Skipped]:
    """Return the entries of an archive by safe name, and those that were left out; hidden ones count only against the limit.

    Raises:
        PromptError: there are too many, or two of one name.
    """
    entries: dict[str, Any] = {}
    skipped = []
    if len(infos) > 10 * MAX_ENTRIES:
        raise PromptError(
            f"'{short(label)}' was refused: expected at most {MAX_ENTRIES} files, got {len(infos):,}. "
            "Unpack it and open the folder."
        )
    for stored, info in infos:
        try:
            name = safe_name(stored)
        except PromptError as error:
            skipped.append((stored, str(error)))
            continue
        if _is_hidden(name):
            continue
        if is_link(info):
            skipped.append(
                (
                    name,
                    f"'{short(name)}' was left out: expected a plain file, got a link or a device. Pack the file itself.",
                )
            )
            continue
        if name in entries:
            raise PromptError(
                f"'{short(label)}' was refused: expected each name once, got '{short(name)}' twice. Pack the folder again."
            )
        entries[name] = info
    return entries, tuple(skipped)


def check_sizes(sizes: Sequence[tuple[str, int]], label: str) -> None:
    """Check how many files an archive holds, and how long they say they are.

    Raises:
        PromptError: they are too many, or too long.
    """
    if len(sizes) > MAX_ENTRIES:
        raise _refused(label, f"at most {MAX_ENTRIES} files", str(len(sizes)), "Unpack it and open the folder.")
    total = sum(size for _, size in sizes)
    if total > MAX_ARCHIVE_BYTES:
        raise _refused(label, f"at most {MAX_ARCHIVE_BYTES:,} bytes", f"{total:,}", "Unpack it and open the folder.")
    for name, size in sizes:
        if size > (most := most_bytes(name)):
            got = f"'{short(PurePosixPath(name).name)}' of {size:,}"
            raise _refused(label, f"files of at most {most:,} bytes", got, "Make it smaller.")


def _check_compression(infos: list[zipfile.ZipInfo], label: str) -> None:
    for info in infos:
        name, size = short(PurePosixPath(info.filename).name), info.file_size
        if info.flag_bits & ENCRYPTED_FLAG:
            raise _refused(label, "no password", f"the encrypted file '{name}'", "Zip the folder without a password.")
        if info.compress_type not in METHODS:
            got = f"another method for '{name}'"
            raise _refused(label, "ordinary compression (deflate)", got, "Zip the folder again.")
        if size > RATIO_MATTERS_ABOVE and size > MAX_RATIO * info.compress_size:
            got = f"'{name}' at {size // max(info.compress_size, 1)} times"
            raise _refused(label, f"compression up to {MAX_RATIO} times", got, "Save images as PNG.")


def _refused(label: str, expected: str, got: str, advice: str) -> PromptError:
    return PromptError(f"'{short(label)}' was refused: expected {expected}, got {got}. {advice}")
