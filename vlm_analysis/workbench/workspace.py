"""The work kept on disk between sessions: prompt sets, recordings, masks, evaluations, sweeps, comparisons, stories, costs.

    <root>/<kind>/<id>[.npz | .json]      the file, written by the module that owns its format; prompt sets and sweeps are folders
    <root>/<kind>/<id>.item.json          the sidecar: its name, model and prompts
    <root>/<kind>/*.part                  a save or a deletion that is running, or was cut short

An item appears under its final name complete or not at all, and its sidecar comes last: without one it is not listed.
Any number of processes may share a root; there is no lock, every step is one rename.

Knows of a kind only the ending of its files: listing reads sidecars; the rows of `kinds` write and open what is inside.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm_analysis.errors import DISK_FULL, WorkspaceError, short
from vlm_analysis.files import discard
from vlm_analysis.workbench import kinds
from vlm_analysis.workbench.details import check_details
from vlm_analysis.workbench.ids import LENGTH as ID_LENGTH, is_id, next_id

KINDS = {kind: row.ending for kind, row in kinds.KINDS.items()}
"""What a workspace keeps, and the ending of its files; the empty ending means a folder."""

NAME_LIMIT = 120
SIDECAR_LIMIT = 256 * 1024  # characters; sidecars are read in bulk, so they stay small
PART_AGE_S = 24 * 3600  # older files belong to no running process

_SCHEMA = 1
_ENDING = ".item.json"
_STORED: dict[str, tuple[type, ...]] = {  # in a sidecar, beside kind and id
    "name": (str,),
    "created": (str,),
    "model": (str, type(None)),
    "prompts": (str, type(None)),
    "model_name": (str,),
    "details": (dict,),
}
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")  # would let one name pull apart the text around it
_FULL = ("a full disk", "Free some space; nothing saved before is lost.")
_DENIED = ("a folder without write permission", "Change its permissions, or set STRATA_HOME to another folder.")
_REASONS: dict[int | None, tuple[str, str]] = {
    **dict.fromkeys(DISK_FULL, _FULL),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("a read-only file system", "Set STRATA_HOME to a folder on a disk that can be written."),
}


@dataclass(frozen=True)
class Item:
    """A saved item, as its sidecar describes it; `path` is its file or folder.

    `created` is ISO 8601 in UTC. `model` and `prompts` are fingerprints, None if the item depends on neither.
    """

    kind: str
    id: str
    name: str
    created: str
    path: Path
    model: str | None = None
    prompts: str | None = None
    model_name: str = ""
    details: dict[str, Any] = field(default_factory=dict, hash=False)


class Workspace:
    """The saved work under one root folder.

    The root is `root`, else the environment's STRATA_HOME, else ~/.strata. Nothing is created before the first save.
    Files that a killed process left behind more than a day ago are removed here.

    Raises:
        WorkspaceError: `root` is None and there is no home folder.
    """

    def __init__(self, root: Path | None = None) -> None:
        chosen = Path(root or os.environ.get("STRATA_HOME") or "~/.strata")
        try:
            self.root = chosen.expanduser().absolute()
        except RuntimeError as error:
            raise WorkspaceError(
                f"Opening the workspace failed: expected a home folder for '{chosen}', got none. "
                "Set STRATA_HOME to a folder."
            ) from error
        for kind in KINDS:
            self._tidy(kind)

    def save(
        self,
        kind: str,
        name: str,
        write: Callable[[Path], None],
        *,
        model: str | None = None,
        prompts: str | None = None,
        model_name: str = "",
        details: dict[str, Any] | None = None,
    ) -> Item:
        """Keep what `write(path)` writes and return its Item.

        `path` does not exist yet, has the ending of its kind, and is temporary. If `write` raises anything, nothing is
        left behind. `name` is text for the screen: cleaned, cut to 120 characters, and no part of a path. `details`
        come back as JSON gives them: tuples as lists, NaN and infinities as None.

        Raises:
            WorkspaceError: Unknown kind, details that are no JSON or too long, nothing written, or a disk that is full,
                read-only or not permitted. Any other error of `write` is passed on as it is.
        """
        folder, name = self._folder(kind), clean_name(name)
        what = f"Saving '{name}' to {self.root}"
        plain = _plain_details(details or {}, what)
        with _explained(what):
            item_id, created, part = _open_part(folder, KINDS[kind])
        path = folder / (item_id + KINDS[kind])
        item = Item(kind, item_id, name, created, path, model, prompts, model_name, plain)
        try:
            _write_part(item, part, write, what)
            with _explained(what):
                _publish(item, part)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return item

    def items(self, kind: str) -> list[Item]:
        """Return the saved items of a kind, newest first; damaged ones are left out and listed by `problems`.

        Raises:
            WorkspaceError: Unknown kind.
        """
        return self._scan(kind)[0]

    def problems(self) -> list[str]:
        """Return a message for each item that cannot be listed; never raises."""
        return [problem for kind in KINDS for problem in self._scan(kind)[1]]

    def find(self, kind: str, item_id: str) -> Item | None:
        """Return the item of this id; None if there is none, it is damaged, or the id is invalid.

        Raises:
            WorkspaceError: Unknown kind.
        """
        folder = self._folder(kind)
        if not is_id(item_id):
            return None
        try:
            item = _open_sidecar(folder, kind, item_id)
        except (OSError, WorkspaceError):
            return None
        return item if item.path.exists() else None

    def newest(self, kind: str, *, model: str | None = None, prompts: str | None = None) -> Item | None:
        """Return the newest item of a kind, for this model and these prompts if set; None if there is none.

        Raises:
            WorkspaceError: Unknown kind.
        """
        fitting = (i for i in self.items(kind) if model in (None, i.model) and prompts in (None, i.prompts))
        return next(fitting, None)

    def delete(self, item: Item) -> None:
        """Delete an item and its sidecar; does nothing if it is deleted already.

        Raises:
            WorkspaceError: The folder cannot be written, or the item's kind or id is invalid.
        """
        path, sidecar = self._paths(item)
        grave = path.parent / f"{item.id}-{secrets.token_hex(4)}.part"
        with _explained(f"Deleting '{item.name}' from {self.root}"):
            if sidecar.exists() or path.exists():
                grave.mkdir()
            for name in (sidecar, path, sidecar):  # again: another process may have renamed the item meanwhile
                with suppress(FileNotFoundError):
                    name.rename(grave / name.name)
        discard(grave)

    def rename(self, item: Item, name: str) -> Item:
        """Rename an item and return its new Item.

        Raises:
            WorkspaceError: It is deleted or damaged, or the folder cannot be written.
        """
        path, sidecar = self._paths(item)
        what = f"Renaming '{item.name}' in {self.root}"
        gone = WorkspaceError(f"{what} failed: expected a saved item, got none: it was deleted. Reload the page.")
        draft = path.parent / f"{item.id}-{secrets.token_hex(4)}.part"
        try:
            renamed = replace(_open_sidecar(path.parent, item.kind, item.id), name=clean_name(name))
            with _explained(what):
                draft.write_text(_sidecar_text(renamed), encoding="utf-8")
                draft.replace(sidecar)
        except FileNotFoundError:
            raise gone from None
        finally:
            discard(draft)
        if not path.exists():  # deleted by another process between the two steps
            sidecar.unlink(missing_ok=True)
            raise gone
        return renamed

    def _folder(self, kind: str) -> Path:
        if kind not in KINDS:
            raise WorkspaceError(
                f"Looking into the workspace failed: expected one of {', '.join(KINDS)}, got '{kind}'. Choose one."
            )
        return self.root / kind

    def _paths(self, item: Item) -> tuple[Path, Path]:
        """Return the paths of an item and its sidecar by kind and id; its `path` is not trusted."""
        folder = self._folder(item.kind)
        if not is_id(item.id):
            raise WorkspaceError(
                f"Looking into the workspace failed: expected the id of an item, got '{item.id}'. Choose from the list."
            )
        return folder / (item.id + KINDS[item.kind]), folder / (item.id + _ENDING)

    def _scan(self, kind: str) -> tuple[list[Item], list[str]]:
        folder, items, problems = self._folder(kind), [], []
        try:
            names = set(os.listdir(folder))
        except FileNotFoundError:
            return [], []
        except OSError as error:
            return [], [f"Reading {folder} failed: expected a readable folder, got: {error.strerror}. Check the path."]
        for name in sorted((n for n in names if n.endswith(_ENDING)), reverse=True):
            try:
                item = _open_sidecar(folder, kind, name.removesuffix(_ENDING))
            except FileNotFoundError:  # deleted since the folder was listed
                continue
            except (OSError, WorkspaceError) as error:
                problems.append(str(error))
                continue
            if item.path.name in names or item.path.exists():
                items.append(item)
            else:
                problems.append(
                    f"Opening '{item.name}' failed: expected {item.path}, got nothing there. "
                    f"Put it back, or delete {folder / name}."
                )
        return items, problems

    def _tidy(self, kind: str) -> None:
        """Remove old files of killed processes; a save or deletion killed between its last two renames is finished."""
        folder = self.root / kind
        with suppress(OSError):
            for part in [folder / name for name in os.listdir(folder) if name.endswith(".part")]:
                if time.time() - part.lstat().st_mtime < PART_AGE_S:
                    continue
                sidecar, path = folder / (part.stem + _ENDING), folder / (part.stem + KINDS[kind])
                if is_id(part.stem) and path.exists() and not sidecar.exists():
                    with suppress(FileNotFoundError):
                        (part / sidecar.name).rename(sidecar)
                deleted = part.name[:ID_LENGTH] if len(part.stem) > ID_LENGTH else ""
                if (
                    is_id(deleted)
                    and (part / (deleted + _ENDING)).exists()
                    and not (folder / (deleted + _ENDING)).exists()
                ):
                    discard(folder / (deleted + KINDS[kind]))
                discard(part)


def clean_name(name: str) -> str:
    """Return the name for the screen: one line without control characters, 1 to 120 characters."""
    plain = (" " if c.isspace() else c for c in _REORDERING.sub("", name))  # before the other controls go
    visible = "".join(c for c in plain if unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(visible.split())[:NAME_LIMIT].strip() or "untitled"


def _open_part(folder: Path, ending: str) -> tuple[str, str, Path]:
    """Claim a new id; return it, the time in ISO 8601 and its temporary folder on the same file system.

    Ids sort by time. Where the clock went back, the new one follows the newest there is: what was made last is the newest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        now = datetime.now(UTC)
        item_id = next_id(folder, now)
        part = folder / f"{item_id}.part"
        with suppress(FileExistsError):
            part.mkdir()
            if not (folder / (item_id + ending)).exists():
                return item_id, now.isoformat(timespec="microseconds"), part
            part.rmdir()


def _write_part(item: Item, part: Path, write: Callable[[Path], None], what: str) -> None:
    """Write the item and its sidecar into the temporary folder."""
    text, draft = _sidecar_text(item), part / item.path.name
    with _explained(what, every=False):
        write(draft)
    if not (draft.is_file() if item.path.suffix else draft.is_dir()):
        expected = f"a file '*{item.path.suffix}'" if item.path.suffix else "a folder"
        raise WorkspaceError(f"{what} failed: expected {expected}, got none written. This is a bug; report it.")
    with _explained(what):
        (part / (item.id + _ENDING)).write_text(text, encoding="utf-8")


def _publish(item: Item, part: Path) -> None:
    """Move the item, then its sidecar, from the temporary folder into place: both or neither."""
    sidecar = item.path.parent / (item.id + _ENDING)
    try:
        (part / item.path.name).rename(item.path)
        (part / sidecar.name).rename(sidecar)
    except BaseException:
        if not sidecar.exists():
            discard(item.path)
        raise


def _plain_details(details: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(details), parse_constant=lambda _: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"{what} failed: expected plain JSON details, got: {short(error)}. Simplify them."
        ) from error
    return plain


def _sidecar_text(item: Item) -> str:
    fields = {key: getattr(item, key) for key in ("kind", "id", *_STORED)}
    text = json.dumps({"schema_version": _SCHEMA} | fields, indent=1)
    if len(text) > SIDECAR_LIMIT:
        raise WorkspaceError(
            f"Saving '{item.name}' failed: expected details of at most {SIDECAR_LIMIT} characters, got {len(text)}. "
            "Put them into the saved file instead."
        )
    return text


def _open_sidecar(folder: Path, kind: str, item_id: str) -> Item:
    """Read one sidecar.

    Raises:
        FileNotFoundError: There is none.
        WorkspaceError: It cannot be read, is cut short, or does not describe an item of this kind and id.
    """
    path = folder / (item_id + _ENDING)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(SIDECAR_LIMIT + 1)
        if len(text) > SIDECAR_LIMIT:
            raise ValueError(f"more than {SIDECAR_LIMIT} characters")
        return _parse(json.loads(text), folder, kind, item_id)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise WorkspaceError(
            f"Reading {path} failed: expected the description of a saved item, got a damaged file ({short(error)}). "
            "Restore the file or delete it; nothing else is affected."
        ) from error


def _parse(value: Any, folder: Path, kind: str, item_id: str) -> Item:
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if value.get("schema_version") != _SCHEMA:
        raise ValueError(f"schema_version {value.get('schema_version')!r} instead of {_SCHEMA}")
    if not is_id(item_id) or (value.get("kind"), value.get("id")) != (kind, item_id):
        raise ValueError(f"kind {value.get('kind')!r} and id {value.get('id')!r} do not fit its path")
    for key, allowed in _STORED.items():
        if key not in value or not isinstance(value[key], allowed):
            raise ValueError(f"'{key}' is missing or of the wrong type")
    datetime.fromisoformat(value["created"])
    check_details(value["details"])
    known = {key: value[key] for key in _STORED} | {"name": clean_name(value["name"])}
    return Item(kind=kind, id=item_id, path=folder / (item_id + KINDS[kind]), **known)


@contextmanager
def _explained(what: str, *, every: bool = True) -> Iterator[None]:
    """Turn an OSError into a WorkspaceError; with `every=False` only one about the disk, not about the caller."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS and not every:
            raise
        got, advice = _REASONS.get(error.errno, (f"{error.strerror or error}", "Check the path, or set STRATA_HOME."))
        location = f" at {error.filename}" if error.filename else ""
        raise WorkspaceError(f"{what} failed: expected a writable folder, got {got}{location}. {advice}") from error
