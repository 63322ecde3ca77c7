"""Files that more than one process may use: written whole or not at all, and folders that one at a time owns.

A kill or a full disk leaves the old file whole (`write_atomically`). A process that changes files of a folder in place owns the folder
meanwhile (`owned`): by a lock of the operating system, so that a killed process never blocks the next one; without such locks, by a
file that names a running process. Ownership is advisory: it binds only code that calls `owned`. The folder can still be deleted by
others, which `Hold.stands` reports.

What is read may be a pipe, a device or endless, as links and hand-made files can be: `opened` and `read_bytes` refuse that at once.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path

from vlm_analysis.errors import DISK_FULL

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK, NAMED = "owner.lock", "owner.pid"
POLL_S = 0.1
MOST_NAME = 10_000  # bytes of a lock file
UNNAMED_S = 10.0  # a lock file that is empty for longer was left by a process that was killed while writing it
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)  # errors of file systems without locks


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Call `write` with a temporary path beside `path`, then rename it to `path`; a failure leaves nothing behind."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def discard(path: Path) -> None:
    """Remove a file, link or folder as far as possible; the rest is removed later."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def opened(path: Path) -> BufferedReader:
    """Open an ordinary file for reading; opening a pipe would wait for ever, and a device has no end.

    Raises:
        OSError: it is missing, cannot be read, or is no ordinary file.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "expected an ordinary file, got a folder, pipe or device", str(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of an ordinary file (see `opened`).

    Raises:
        OSError: it cannot be read, or holds more than `most` bytes.
    """
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"expected at most {most:,} bytes, got more", str(path))
    return content


def file_hash(path: Path) -> str:
    """Return the sha256 of an ordinary file (see `opened`), as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def advice_for(error: OSError) -> str:
    """Return advice for a folder that cannot be used for this reason, as the beginning of a sentence."""
    if error.errno in DISK_FULL:
        return "Free some space or choose another folder"
    if error.errno == errno.ENOENT:
        return "Something else removed files of it meanwhile: start again"
    return "Make it writable or choose another folder"


@dataclass(frozen=True)
class Owner:
    """The owner of a folder: a process of a host, and its start time in seconds since the epoch."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        """Return the owner as a phrase for messages."""
        if self == myself():
            return "other work of this process"
        return f"process {self.pid}" if self.host == socket.gethostname() else f"process {self.pid} on {self.host}"


@functools.cache
def _started(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).create_time())


def myself() -> Owner:
    """Return this process as an owner."""
    return Owner(os.getpid(), socket.gethostname(), _started(os.getpid()))


@dataclass(frozen=True)
class Hold:
    """A folder owned by this process, by the open file of its lock."""

    path: Path
    file: int

    def stands(self) -> bool:
        """Return whether the folder is still owned; False once it was deleted, even if it was made again."""
        try:
            return os.path.samestat(os.fstat(self.file), self.path.stat())
        except OSError:
            return False

    def let_go(self) -> None:
        """Remove the lock file, then release the lock: a process waiting for the removed file notices and tries again."""
        with suppress(OSError):  # Windows cannot remove an open file
            if self.stands():
                self.path.unlink()
        os.close(self.file)
        if fcntl is None:
            with suppress(OSError):
                self.path.unlink()


@contextmanager
def owned(folder: Path, wait: Callable[[Owner | None], object]) -> Iterator[Hold]:
    """Own a folder inside the block, exclusively among processes and threads.

    Args:
        folder: an existing folder.
        wait: called repeatedly with the owner while another owns the folder; None while the owner has not written its name yet. An
            exception in it ends the waiting.

    Raises:
        OSError: the folder does not exist, or no file can be created in it.
    """
    while (hold := _claimed(Path(folder))) is None:
        wait(owner_of(folder))
        time.sleep(POLL_S)
    try:
        yield hold
    finally:
        hold.let_go()


def tidy_parts(folder: Path) -> None:
    """Remove the temporary folders of killed processes from a folder: those that none owns. Never raises."""
    with suppress(OSError):
        for part in folder.glob(".*.part"):
            is_new = time.time() - part.lstat().st_mtime < UNNAMED_S  # its process may not own it yet
            if not is_new and part.is_dir() and not part.is_symlink() and (hold := _claimed(part)) is not None:
                hold.let_go()
                shutil.rmtree(part, ignore_errors=True)


def owner_of(folder: Path) -> Owner | None:
    """Return the last owner named in the folder's lock; None without one."""
    for name in (LOCK, NAMED):
        owner = _named_in(Path(folder) / name)
        if owner is not None:
            return owner
    return None


def _named_in(path: Path) -> Owner | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        content = json.loads(read_bytes(path, MOST_NAME))
        return Owner(int(content["pid"]), str(content["host"]), float(content["started"]))
    return None


def _claimed(folder: Path) -> Hold | None:
    """Return the hold on a folder; None while another owner has it."""
    if fcntl is None:
        return _claimed_by_name(folder / NAMED)
    path = folder / LOCK
    hold = Hold(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    try:
        fcntl.flock(hold.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if hold.stands():  # else its last owner removed it before releasing it
            _write_name(hold)
            return hold
    except BlockingIOError:
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            os.close(hold.file)
            raise
        os.close(hold.file)
        return _claimed_by_name(folder / NAMED)
    os.close(hold.file)
    return None


def _write_name(hold: Hold) -> None:
    with suppress(OSError):  # on a full disk the lock works without a name
        os.ftruncate(hold.file, 0)
        os.write(hold.file, json.dumps(asdict(myself())).encode())


def _claimed_by_name(path: Path) -> Hold | None:
    """Return the hold on a folder by a file created exclusively; None where it exists, after removing the file of a dead process."""
    try:
        hold = Hold(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        _remove_dead(path)
        return None
    _write_name(hold)
    return hold


def _remove_dead(path: Path) -> None:
    """Remove the lock of a process that no longer runs; it is renamed first, so that of two removals one fails."""
    owner, grave = _named_in(path), path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with suppress(OSError):
        if owner is None and time.time() - path.stat().st_mtime < UNNAMED_S:
            return
        if owner is not None and (owner.host != socket.gethostname() or _lives(owner)):
            return
        os.rename(path, grave)
        if _named_in(grave) != owner:  # another process removed it before, and this is a new lock
            os.link(grave, path)
        grave.unlink()


def _lives(owner: Owner) -> bool:
    """Return whether the owner's process runs; a later process may have the same number."""
    import psutil

    try:
        return abs(psutil.Process(owner.pid).create_time() - owner.started) < 2
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True
