"""The files of a prompt source, a folder on disk or a zip in memory, read by name; a name that leads outside is refused.

All sources have the same three methods (`Files`). A zip is never extracted, and no number in its directory is trusted:
an entry is read up to its limit plus one byte. This module does not know tables or prompts.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import unicodedata
import zipfile
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.memory import SHARE, free_memory
from vlm_analysis.guard.zips import METHODS, opened_zip
from vlm_analysis.prompts.images import MAX_FILE_BYTES, open_image, read_file

MAX_ENTRIES = 2000
MAX_LISTED = 100_000
MAX_ARCHIVE_BYTES = 500_000_000
MAX_DECODED_BYTES = 2_000_000_000
MAX_RATIO = 200
RATIO_MATTERS_ABOVE = 1_000_000
ENCRYPTED_FLAG = 0x1

Skipped = tuple[tuple[str, str], ...]
"""Names that were left out, each with the reason."""


class Files(Protocol):
    """Files under relative names with `/`; a name that leads outside is refused with `PromptError`."""

    skipped: Skipped

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted; hidden files are left out."""

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of a file of at most `limit` bytes."""

    def image(self, name: str) -> Path | Image.Image:
        """Return an image: the path of a file on disk, else the decoded image."""


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
        "Put the file beside the table and name it relative to the table."
    )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _not_found(name: str, location: str) -> PromptError:
    return PromptError(
        f"'{short(name)}' was not found: expected a file in {location}, got none of this name. "
        "Check the spelling, and that the path is relative to the table."
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

    def _locate(self, name: str) -> Path:
        # Not normalised: the name on disk may hold decomposed letters.
        safe_name(name)
        try:
            path = (self.root / name.replace("\\", "/")).resolve()
            is_file = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long
            raise PromptError(f"'{short(name)}' could not be found: {short(error)}. Check the path.") from error
        if not path.is_relative_to(self.root):
            raise PromptError(
                f"'{short(name)}' was refused: expected a file inside '{short(self.root)}', got a link that leads outside. "
                "Copy the file into the folder."
            )
        if not is_file:
            raise _not_found(name, f"'{short(self.root)}'")
        return path


class Archive:
    """The files of a zip held in memory; images are decoded once and shared.

    Raises:
        PromptError: it is not a zip, or is encrypted, holds a name twice, more than 2000 files, more than 500 MB, a
            file above 20 MB or one compressed more than 200 times. Unsafe names and links are left out (`skipped`).
    """

    def __init__(self, data: bytes, label: str) -> None:
        self.label = label
        self._images: dict[str, Image.Image] = {}
        self._decoded_bytes = 0
        self._room = min(MAX_DECODED_BYTES, free_memory() // SHARE)
        try:
            self._zip = opened_zip(BytesIO(data), 10 * MAX_ENTRIES)  # hidden and refused names count here
        except Exception as error:  # a hostile directory can raise any exception
            raise PromptError(
                f"'{short(label)}' could not be opened: expected a zip archive, got {len(data):,} bytes that are none or are "
                f"damaged ({short(error)}). Zip the folder again."
            ) from error
        self._entries, self.skipped = _sort_entries(self._zip.infolist(), label)
        _check_limits(list(self._entries.values()), label)

    def names(self) -> tuple[str, ...]:
        """Return the names of all files, sorted."""
        return tuple(sorted(self._entries))

    def read(self, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
        """Return the bytes of an entry of at most `limit` bytes, and never more than 20 MB."""
        entry = self._entries.get(safe_name(name))
        if entry is None:
            raise _not_found(name, f"'{short(self.label)}'")
        limit = min(limit, MAX_FILE_BYTES)
        try:
            with self._zip.open(entry) as stream:
                data = stream.read(limit + 1)
        except Exception as error:
            raise PromptError(
                f"'{short(name)}' in '{short(self.label)}' is damaged: {short(error)}. Zip the folder again."
            ) from error
        if len(data) > limit:
            raise PromptError(
                f"'{short(name)}' in '{short(self.label)}' was refused: expected at most {limit:,} bytes, got more. Make it smaller."
            )
        return data

    def image(self, name: str) -> Image.Image:
        """Return a decoded image; the same object for the same name."""
        name = safe_name(name)
        if name not in self._images:
            if self._decoded_bytes > self._room:
                raise PromptError(
                    f"'{short(name)}' was left out: expected images of at most {self._room / 10**9:.1f} GB once decoded, "
                    f"got more in '{short(self.label)}'. Unpack the zip and open the folder."
                )
            image = open_image(self.read(name))
            self._decoded_bytes += 3 * image.width * image.height
            self._images[name] = image
        return self._images[name]


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

    def image(self, name: str) -> Image.Image:
        """Raise PromptError: there are no images."""
        return open_image(self.read(name))


def _raise(error: OSError) -> None:
    raise error


def _sort_entries(infos: list[zipfile.ZipInfo], label: str) -> tuple[dict[str, zipfile.ZipInfo], Skipped]:
    entries: dict[str, zipfile.ZipInfo] = {}
    skipped = []
    if len(infos) > 10 * MAX_ENTRIES:
        raise PromptError(
            f"'{short(label)}' was refused: expected at most {MAX_ENTRIES} files, got {len(infos):,}. "
            "Unpack it and open the folder."
        )
    for info in infos:
        if info.filename.endswith("/") and info.file_size == 0:  # is_dir() fails on a damaged, empty name
            continue
        try:
            # The stored name: `filename` is cut at a zero byte.
            name = safe_name(info.orig_filename)
        except PromptError as error:
            skipped.append((info.orig_filename, str(error)))
            continue
        if _is_hidden(name):
            continue
        if stat.S_ISLNK(info.external_attr >> 16):
            skipped.append((name, f"'{short(name)}' was left out: expected a file, got a link. Zip the file itself."))
            continue
        if name in entries:
            raise PromptError(
                f"'{short(label)}' was refused: expected each name once, got '{short(name)}' twice. Zip the folder again."
            )
        entries[name] = info
    return entries, tuple(skipped)


def _check_limits(infos: list[zipfile.ZipInfo], label: str) -> None:
    def refuse(expected: str, got: str, advice: str) -> PromptError:
        return PromptError(f"'{short(label)}' was refused: expected {expected}, got {got}. {advice}")

    if len(infos) > MAX_ENTRIES:
        raise refuse(f"at most {MAX_ENTRIES} files", str(len(infos)), "Unpack it and open the folder.")
    total = sum(info.file_size for info in infos)
    if total > MAX_ARCHIVE_BYTES:
        raise refuse(f"at most {MAX_ARCHIVE_BYTES:,} bytes", f"{total:,}", "Unpack it and open the folder.")
    for info in infos:
        name, size = PurePosixPath(info.filename).name, info.file_size
        if info.flag_bits & ENCRYPTED_FLAG:
            raise refuse("no password", f"the encrypted file '{short(name)}'", "Zip the folder without a password.")
        if info.compress_type not in METHODS:
            raise refuse(
                "ordinary compression (deflate)", f"another method for '{short(name)}'", "Zip the folder again."
            )
        if size > MAX_FILE_BYTES:
            raise refuse(
                f"files of at most {MAX_FILE_BYTES:,} bytes", f"'{short(name)}' of {size:,}", "Make it smaller."
            )
        if size > RATIO_MATTERS_ABOVE and size > MAX_RATIO * info.compress_size:
            ratio = size // max(info.compress_size, 1)
            raise refuse(
                f"compression up to {MAX_RATIO} times", f"'{short(name)}' at {ratio} times", "Save images as PNG."
            )
