"""A file is replaced whole or not at all: whatever happens on the way, its path holds the old bytes or the new ones.

The new bytes go to a temporary file in the same folder, reach the disk, and take the path over by a rename. The writer
holds a lock (flock) on its temporary file, so that the file of a writer that was killed can be told from that of one
still at work, on this machine or in another container, and is swept by the next writer in that folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["open_regular", "replace_file", "require_folder"]

_PREFIX, _SUFFIX = ".resnetcore-", ".tmp"


def open_regular(path: str | os.PathLike[str]) -> int:
    """A descriptor to read `path` from; OSError for a folder, FIFO, socket or device, without waiting for one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _check_regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_folder(path: str | os.PathLike[str]) -> None:
    """OSError where the folder that `path` is to be written to is not there: for who writes after long work."""
    os.stat(os.path.join(os.path.dirname(os.fsdecode(path)) or os.curdir, ""))


def replace_file(path: str | os.PathLike[str], chunks: Iterable[Any]) -> None:
    """Writes the bytes of `chunks` (buffers of single bytes) to `path`.

    An existing file keeps its mode and, where allowed, its owner; of a symbolic link, what it points to is replaced.
    Raises OSError (full disk, size limit, read-only folder or file, not a regular file) with the old file as it was.
    """
    target = os.path.realpath(os.fsdecode(path))
    old = _stat(target)
    folder_name, name = os.path.split(target)
    folder = os.open(folder_name, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sweep(folder)
        with _temporary(folder, old) as (temporary, descriptor):
            for chunk in chunks:
                _write(descriptor, chunk)
            os.fsync(descriptor)
            os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        _sync_folder(folder)
    except OSError as error:
        error.filename = target
        raise
    finally:
        os.close(folder)


def _stat(target: str) -> os.stat_result | None:
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return None
    _check_regular(old, target)
    # The rename would not ask: it replaces a write-protected file without a word.
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
    return old


def _check_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


@contextlib.contextmanager
def _temporary(folder: int, old: os.stat_result | None) -> Iterator[tuple[str, int]]:
    name, descriptor = _create(folder, 0o666 if old is None else 0o600)
    try:
        if old is not None:
            # Owner first: changing it clears bits of the mode.
            _keep_owner(descriptor, old)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
        yield name, descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(descriptor)


def _keep_owner(descriptor: int, old: os.stat_result) -> None:
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except OSError as error:
        # One whom a container's user namespace does not know is invalid.
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise


def _create(folder: int, mode: int) -> tuple[str, int]:
    while True:
        name = f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
        try:
            locked = _lock(descriptor)
        except OSError:
            # A file system without locks tells sweepers so too: there, nothing is swept.
            return name, descriptor
        # Before it was locked, another writer may have taken the file for an orphan.
        if locked and os.fstat(descriptor).st_nlink > 0:
            return name, descriptor
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(folder: int) -> None:
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX)]
    for name in names:
        with contextlib.suppress(OSError):
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=folder)
            try:
                if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(descriptor)


def _write(descriptor: int, chunk: Any) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync_folder(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        # Some network file systems know no fsync of a folder; the rename is then as durable as they make it.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
