"""Where prompts come from: a folder, an archive, a table on disk or an upload; its tables, and the pictures that rows name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vlm_analysis.errors import PromptError, short
from vlm_analysis.guard.shared import check_path, is_shared
from vlm_analysis.prompts.archives import MAX_ARCHIVE_BYTES, Archive, Files, Folder, NoFiles, safe_name
from vlm_analysis.prompts.formats.base import Picture
from vlm_analysis.prompts.formats.imagefolder import METADATA
from vlm_analysis.prompts.formats.texts import has_questions
from vlm_analysis.prompts.hubdata import Fetched
from vlm_analysis.prompts.images import IMAGE_SUFFIXES, TAKE_FRAMES, VIDEO_SUFFIXES, read_file
from vlm_analysis.prompts.spool import spool_folder, spooled
from vlm_analysis.prompts.tables import TABLE_SUFFIXES
from vlm_analysis.prompts.tars import TarArchive

TABLE_NAMES = tuple(f"prompts{suffix}" for suffix in TABLE_SUFFIXES)
ARCHIVE_SUFFIXES = (".zip", ".tar")
# What describes tables, and holds no rows.
_ABOUT_TABLES = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_SHARD = re.compile(r"(.*?)-?\d{5}-of-\d{5}(?:-[0-9a-f]+)?(\.\w+)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A source that was found.

    Attributes:
        label: what messages call it.
        files: its files.
        tables: the tables that may hold the prompts, by name among the files; shards of one table are one entry.
        lone: the table itself, where it was named or uploaded without its folder.
    """

    label: str
    files: Files
    tables: tuple[tuple[str, ...], ...] = ()
    lone: bytes | Path | None = None


def found_at(path: Path, expected: str) -> Found:
    """Return the source at a path.

    Raises:
        PromptError: there is none, or it cannot be read.
    """
    try:
        path = path.expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown home
        is_folder = is_file = False
    suffix = path.suffix.lower()
    if is_folder:
        return _with_tables(Folder(path), str(path), at_any_depth=False)
    if is_file and suffix in ARCHIVE_SUFFIXES:
        return _with_tables(_archive(path.name, read_file(path, MAX_ARCHIVE_BYTES)), path.name, at_any_depth=True)
    if is_file and suffix in TABLE_SUFFIXES:
        return Found(path.name, Folder(path.parent), ((path.name,),), path)
    raise PromptError(
        f"prompts could not be opened: expected a folder, a {', '.join(TABLE_SUFFIXES)}, {' or '.join(ARCHIVE_SUFFIXES)} file, or a pack "
        f"({expected}), got '{short(path)}'{'' if is_file else ', which is not there'}. Check the path."
    )


def found_upload(name: str, data: bytes) -> Found:
    """Return an uploaded table, or the files of an uploaded archive (raises as `found_at`)."""
    if PurePosixPath(name).suffix.lower() in ARCHIVE_SUFFIXES:
        return _with_tables(_archive(name, data), name, at_any_depth=True)
    return Found(name, NoFiles(name), ((name,),), data)


class _Split(Folder):
    """The files of a split of a dataset; what else of the dataset lies beside them is not looked at."""

    def __init__(self, fetched: Fetched) -> None:
        super().__init__(fetched.root)
        self._names = tuple(sorted({*fetched.files, *fetched.beside}))

    def names(self) -> tuple[str, ...]:
        """Return the names of the split's files, sorted."""
        return self._names


def found_fetched(fetched: Fetched) -> Found:
    """Return a split of a dataset of the Hub, whose files are one table."""
    return Found(fetched.label, _Split(fetched), (fetched.files,))


def find_table(files: Files, *, any_depth: bool) -> str | None:
    """Return the name of the one prompt table among the files, or None.

    Raises:
        PromptError: there are two.
    """
    names = [name for name in files.names() if PurePosixPath(name).name.lower() in TABLE_NAMES]
    tables = [name for name in names if any_depth or "/" not in name]
    if len(tables) > 1:
        raise PromptError(
            f"the prompts could not be read: expected one table, got {short(' and '.join(map(repr, tables)))}. "
            "Remove all but one."
        )
    return tables[0] if tables else None


def image_root(images: Path | str) -> Files:
    """Return the folder or archive in which the pictures of a table lie.

    Raises:
        PromptError: it is neither.
    """
    path = Path(images)
    check_path(path, "Reading images at", PromptError)
    try:
        path = path.expanduser()
        if path.is_dir():
            return Folder(path)
        if path.is_file() and path.suffix.lower() in ARCHIVE_SUFFIXES:
            return _archive(path.name, read_file(path, MAX_ARCHIVE_BYTES))
    except (OSError, RuntimeError, ValueError):  # a name too long, an unknown home
        pass
    raise PromptError(
        f"images={short(repr(str(images)))} could not be opened: expected a folder or a {' or '.join(ARCHIVE_SUFFIXES)} file, got neither "
        f"at '{short(os.path.abspath(path))}'. Check the path; a relative one starts at the working folder."
    )


@dataclass
class Pictures:
    """The pictures that rows name, and which files were taken.

    A name is relative to the table's folder, or to `root` where the user named one. One that leads outside is refused, except that a
    table on disk may name pictures in the folder above its own ("../images/a.png", or an absolute path), unless that is the user's home or
    above it.
    """

    files: Files
    folder: str = "."
    root: Files | None = None
    taken: set[str] = field(default_factory=set)
    shown: dict[Path, str] = field(default_factory=dict)

    def image(self, picture: str | Picture) -> Path:
        """Return the path of a picture; it is not decoded here.

        Raises:
            PromptError: it cannot be found, or its name leads outside.
        """
        if isinstance(picture, Picture):
            path = spooled(picture.data)
            self.shown[path] = f"image '{short(picture.name)}'" if picture.name else "the image"
            return path
        name = picture.replace("\\", "/")
        if name.lower().endswith(VIDEO_SUFFIXES):
            raise PromptError(f"'{short(name)}' was refused: expected an image, got a video. {TAKE_FRAMES}")
        path = self._found(name)
        if isinstance(self.files, Folder) and path.is_relative_to(self.files.root):
            self.taken.add(path.relative_to(self.files.root).as_posix())
        if path.parent == spool_folder():
            self.shown[path] = f"image '{short(name)}'"
        return path

    def named(self, message: str) -> str:
        """Return a message about a row, in which those of cells and archives have their own names."""
        for path, shown in self.shown.items():
            message = message.replace(f"image '{short(path)}'", shown)
        return message

    def _found(self, name: str) -> Path:
        try:
            inside = self._inside(name)
        except PromptError:
            outside = self._outside(name)
            if outside is None:
                raise
            return outside
        if self.root is not None:
            return self.root.image(inside)
        self.taken.add(inside)  # as it is listed, which may be a link
        return self.files.image(inside)

    def _inside(self, name: str) -> str:
        """Return a name among the files; those of a table in a folder may go up within the source."""
        if self.root is not None:
            return safe_name(name)
        up = re.match(r"(?:\.\./)+", name)
        depth = 0 if self.folder == "." else len(PurePosixPath(self.folder).parts)
        if up and len(up.group()) // 3 <= depth and ".." not in name[up.end() :].split("/"):
            parts = PurePosixPath(self.folder).parts[: depth - len(up.group()) // 3]
            return safe_name("/".join([*parts, name[up.end() :]]))
        return str(PurePosixPath(self.folder) / safe_name(name))

    def _outside(self, name: str) -> Path | None:
        """Return a picture that a table on disk may name outside of its folder; None where there is none."""
        if "\0" in name or not isinstance(self.files, Folder):
            return None
        here = self.files.root / self.folder
        room = self.root.root if isinstance(self.root, Folder) else None if self.root else _folder_above(here)
        try:
            path = Path(os.path.realpath(here / name))
            return path if room and path.is_relative_to(room) and path.is_file() else None
        except (OSError, ValueError):
            return None


def _folder_above(folder: Path) -> Path | None:
    above = Path(os.path.realpath(folder)).parent
    try:
        return None if is_shared() or Path.home().is_relative_to(above) else above
    except RuntimeError:  # no home
        return None


def _archive(name: str, data: bytes) -> Files:
    return TarArchive(data, name) if name.lower().endswith(".tar") else Archive(data, name)


def _with_tables(files: Files, label: str, *, at_any_depth: bool) -> Found:
    table = find_table(files, any_depth=at_any_depth)
    if table is not None:
        return Found(label, files, ((table,),))
    names = files.names()
    if has_questions(names):
        return Found(label, files)
    tables = list(_candidates(names))
    top = [name for name in tables if "/" not in name]
    tables = tables if at_any_depth else top or tables
    if len(tables) > 1 and all(METADATA.fullmatch(PurePosixPath(name).name) for name in tables):
        return Found(label, files)  # one for each split of an image folder
    shards: dict[object, list[str]] = {}
    for name in tables:
        match = _SHARD.fullmatch(name)
        shards.setdefault(match.groups() if match else name, []).append(name)
    return Found(label, files, tuple(map(tuple, shards.values())))


def _candidates(names: tuple[str, ...]) -> Iterator[str]:
    """Yield the tables among some files; a JSON file beside each picture describes that picture."""
    pictured = {
        str(PurePosixPath(name).with_suffix(""))
        for name in names
        if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    }
    for name in names:
        path = PurePosixPath(name)
        is_about = path.name in _ABOUT_TABLES or (path.suffix == ".json" and str(path.with_suffix("")) in pictured)
        if path.suffix.lower() in TABLE_SUFFIXES and not is_about:
            yield name
