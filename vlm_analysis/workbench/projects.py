"""Projects: studies side by side in one workspace, each with saved work of its own.

    <root>/                    the default project, and what all share: recent models and folders, and tried processors
    <root>/projects/<name>/    a project, laid out as the default one

The name of a project is the name of its folder, and what others write as one is refused where it is not plain.
"""

from __future__ import annotations

import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path

from vlm_analysis.errors import WorkspaceError, short

FOLDER = "projects"
DEFAULT = "default"
"""What the workspace itself is called among its projects."""
MOST_LETTERS = 60
_MOST_BYTES = 200  # file systems allow 255
_MARKS = " -_."
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)  # no names of files on Windows


def project_name(base: Path, text: str) -> str:
    """Return the name of the project that a text names in the workspace at `base`; "" for the default one.

    Names that differ in case only name the same project: the one that is there, in its own spelling.

    Raises:
        WorkspaceError: the text is no name of a project.
    """
    name = unicodedata.normalize("NFC", " ".join(text.split()))
    if name.casefold() in ("", DEFAULT):
        return ""
    if not _is_plain(name):
        raise WorkspaceError(
            f"No project can have this name: expected up to {MOST_LETTERS} letters, digits, blanks, '-', '_' and '.', a letter or digit "
            f"first and no '.' last, got '{short(text, MOST_LETTERS)}'. Choose another name."
        )
    same = (one for one in project_names(base) if _key(one) == _key(name))
    return next(same, name)


def project_names(base: Path) -> list[str]:
    """Return the names of the projects in the workspace at `base`, beside the default one, in the order of the alphabet."""
    names: list[str] = []
    with suppress(OSError), os.scandir(base / FOLDER) as entries:
        names = [one.name for one in entries if _is_plain(one.name) and one.is_dir()]
    return sorted(names, key=_key)


def folder_of(base: Path, name: str) -> Path:
    """Return the folder of a project by its name, as `project_name` returns it."""
    return base / FOLDER / name if name else base


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _is_plain(name: str) -> bool:
    letters = [unicodedata.category(one)[0] in "LN" for one in name]
    fits = 0 < len(name) <= MOST_LETTERS and len(name.encode("utf-8", "replace")) <= _MOST_BYTES
    known = (
        is_letter or one in _MARKS or unicodedata.category(one)[0] == "M"
        for one, is_letter in zip(name, letters, strict=True)
    )
    return fits and letters[0] and name[-1] not in " ." and all(known) and _DEVICES.fullmatch(name) is None
