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
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlm_analysis.edits.learnt import ENDING as TENSORS
from vlm_analysis.errors import DISK_FULL, WorkspaceError
from vlm_analysis.files import discard, tidy_parts
from vlm_analysis.guard.shared import home
from vlm_analysis.words import brief
from vlm_analysis.workbench.ids import LENGTH as ID_LENGTH, is_id, next_id
from vlm_analysis.workbench.listing import Damaged, Listing
from vlm_analysis.workbench.projects import folder_of, project_name, project_names
from vlm_analysis.workbench.sidecars import (
    ENDING,
    KINDS,
    Item,
    clean_name,
    open_sidecar,
    plain_details,
    sidecar_text,
)

EXPORTS = "exports"  # the folder of checkpoints, where no other is named
PART_AGE_S = 24 * 3600  # older files belong to no running process

_FULL = ("a full disk", "Free some space; nothing saved before is lost.")
_DENIED = ("a folder without write permission", "Change its permissions, or set STRATA_HOME to another folder.")
_REASONS: dict[int | None, tuple[str, str]] = {
    **dict.fromkeys(DISK_FULL, _FULL),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("a read-only file system", "Set STRATA_HOME to a folder on a disk that can be written."),
}


class Workspace:
    """The saved work of one project under one folder.

    The folder is `root`, else the environment's STRATA_HOME, else ~/.strata. Nothing is created before the first save.
    Files that a killed process left behind more than a day ago are removed here, and its half exports at once.

    Args:
        project: a name for a study of its own, of up to 60 letters, digits, blanks, "-", "_" and "."; case does not matter. It
            sees none of the items of other projects. "" or "default" is the workspace itself.

    Attributes:
        base: the folder of the workspace.
        project: the project's name; "" for the default one.
        root: the folder of the project: `base`, or one under it.

    Raises:
        WorkspaceError: `root` is None and there is no home folder, or the project's name is not plain.
    """

    def __init__(self, root: Path | None = None, project: str = "") -> None:
        try:
            self.base = home() if root is None else Path(root).expanduser().absolute()
        except RuntimeError as error:
            raise WorkspaceError(
                f"Opening the workspace failed: expected a home folder for '{root or '~/.strata'}', got none. "
                "Set STRATA_HOME to a folder."
            ) from error
        self.project = project_name(self.base, project)
        self.root = folder_of(self.base, self.project)
        self._listing = Listing()
        for kind in KINDS:
            self._tidy(kind)
        tidy_parts(self.root / EXPORTS)

    def __repr__(self) -> str:
        return brief(self, self.root)

    def begin_project(self, name: str) -> Workspace:
        """Return the workspace of a project beside this one, and make its folder, so that it is among the projects.

        Raises:
            WorkspaceError: the name is not plain, or the folder cannot be made.
        """
        begun = Workspace(self.base, name)
        with _explained(f"Beginning the project '{begun.project}' in {self.base}"):
            begun.root.mkdir(parents=True, exist_ok=True)
        return begun

    def projects(self) -> list[str]:
        """Return the names of the projects that are there, beside the default one, in the order of the alphabet."""
        return project_names(self.base)

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
        plain = plain_details(details or {}, what)
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
        """Return the saved items of a kind, newest first; damaged ones are left out and listed by `damaged`.

        Raises:
            WorkspaceError: Unknown kind.
        """
        return self._listing.of(self._folder(kind), kind)[0]

    def damaged(self) -> list[Damaged]:
        """Return the items that cannot be listed; never raises."""
        return [one for kind in KINDS for one in self._listing.of(self._folder(kind), kind)[1]]

    def problems(self) -> list[str]:
        """Return a message for each item that cannot be listed; never raises."""
        return [one.reason for one in self.damaged()]

    def look_again(self) -> None:
        """Look at every sidecar when items are listed next, and from then on only where a folder has changed since.

        A page calls it where it begins: while it is drawn it lists thousands of masks many times. What any process saves, renames or
        deletes meanwhile is seen; a sidecar that is written over in its place is seen after the next call.
        """
        self._listing.look_again()

    def find(self, kind: str, item_id: str) -> Item | None:
        """Return the item of this id; None if there is none, it is damaged, or the id is invalid.

        Raises:
            WorkspaceError: Unknown kind.
        """
        folder = self._folder(kind)
        if not is_id(item_id):
            return None
        try:
            item = open_sidecar(folder, kind, item_id)
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
            beside = path.with_suffix(TENSORS)
            for name in (sidecar, path, beside, sidecar):  # again: another process may have renamed the item meanwhile
                with suppress(FileNotFoundError):
                    name.rename(grave / name.name)
        discard(grave)

    def discard(self, damaged: Damaged) -> None:
        """Delete what is left of a damaged item: its sidecar, whatever that is, and its file.

        Raises:
            WorkspaceError: The folder cannot be written, or it is none that was listed.
        """
        folder, item_id = self._folder(damaged.kind), damaged.sidecar.removesuffix(ENDING)
        if not damaged.sidecar.endswith(ENDING) or Path(damaged.sidecar).name != damaged.sidecar:
            raise WorkspaceError(
                f"Deleting failed: expected a saved item, got {damaged.sidecar!r}. Choose from the list."
            )
        files = [item_id + KINDS[damaged.kind], item_id + TENSORS] if is_id(item_id) else []
        for name in (damaged.sidecar, *files):
            grave = folder / f"{name}-{secrets.token_hex(4)}.part"
            with _explained(f"Deleting {name} from {folder}"), suppress(FileNotFoundError):
                (folder / name).rename(grave)
            discard(grave)

    def rename(self, item: Item, name: str) -> Item:
        """Rename an item and return its new Item.

        Raises:
            WorkspaceError: It is deleted or damaged, or the folder cannot be written.
        """
        return self._rewrite(
            item, f"Renaming '{item.name}' in {self.root}", lambda now: replace(now, name=clean_name(name))
        )

    def note(self, item: Item, **details: Any) -> Item:
        """Set some of an item's details, keeping the others, and return its new Item.

        Raises:
            WorkspaceError: It is deleted or damaged, the details are no JSON or too long, or the folder cannot be written.
        """
        what = f"Changing '{item.name}' in {self.root}"
        plain = plain_details(details, what)
        return self._rewrite(item, what, lambda now: replace(now, details={**now.details, **plain}))

    def _rewrite(self, item: Item, what: str, change: Callable[[Item], Item]) -> Item:
        """Write a changed sidecar in the place of an item's present one."""
        path, sidecar = self._paths(item)
        gone = WorkspaceError(f"{what} failed: expected a saved item, got none: it was deleted. Reload the page.")
        draft = path.parent / f"{item.id}-{secrets.token_hex(4)}.part"
        try:
            changed = change(open_sidecar(path.parent, item.kind, item.id))
            with _explained(what):
                draft.write_text(sidecar_text(changed), encoding="utf-8")
                draft.replace(sidecar)
        except FileNotFoundError:
            raise gone from None
        finally:
            discard(draft)
        if not path.exists():  # deleted by another process between the two steps
            sidecar.unlink(missing_ok=True)
            raise gone
        return changed

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
        return folder / (item.id + KINDS[item.kind]), folder / (item.id + ENDING)

    def _tidy(self, kind: str) -> None:
        """Remove old files of killed processes; a save or deletion killed between its last two renames is finished."""
        folder = self.root / kind
        with suppress(OSError):
            for part in [folder / name for name in os.listdir(folder) if name.endswith(".part")]:
                if time.time() - part.lstat().st_mtime < PART_AGE_S:
                    continue
                sidecar, path = folder / (part.stem + ENDING), folder / (part.stem + KINDS[kind])
                if is_id(part.stem) and path.exists() and not sidecar.exists():
                    with suppress(FileNotFoundError):
                        (part / sidecar.name).rename(sidecar)
                deleted = part.name[:ID_LENGTH] if len(part.stem) > ID_LENGTH else ""
                if (
                    is_id(deleted)
                    and (part / (deleted + ENDING)).exists()
                    and not (folder / (deleted + ENDING)).exists()
                ):
                    discard(folder / (deleted + KINDS[kind]))
                    discard(folder / (deleted + TENSORS))
                discard(part)


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
    text, draft = sidecar_text(item), part / item.path.name
    with _explained(what, every=False):
        write(draft)
    if not (draft.is_file() if item.path.suffix else draft.is_dir()):
        expected = f"a file '*{item.path.suffix}'" if item.path.suffix else "a folder"
        raise WorkspaceError(f"{what} failed: expected {expected}, got none written. This is a bug; report it.")
    with _explained(what):
        (part / (item.id + ENDING)).write_text(text, encoding="utf-8")


def _publish(item: Item, part: Path) -> None:
    """Move the item, with the tensors beside it, then its sidecar, from the temporary folder into place: all or nothing."""
    sidecar, tensors = item.path.parent / (item.id + ENDING), item.path.with_suffix(TENSORS)
    try:
        if (part / tensors.name).exists():
            (part / tensors.name).rename(tensors)
        (part / item.path.name).rename(item.path)
        (part / sidecar.name).rename(sidecar)
    except BaseException:
        if not sidecar.exists():
            discard(item.path)
            discard(tensors)
        raise


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
