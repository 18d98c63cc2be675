"""A folder on a local or mounted disk, as a store.

Reads follow symbolic links. Listings do too, but not into a folder that they are already inside. The root
may be a link itself; a put or delete through a link below the root that leads out of it is refused, so
that images cannot be overwritten.

A put writes the bytes to a temporary file in the target's own folder, syncs it, and then links or renames
it into place. So a name either has all its bytes or does not exist, even after a crash or a power cut.
Temporary files that a crash leaves behind are never listed; `remove_abandoned` deletes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cellcount_core.domain.errors import CellcountError, ConfigFault, OutputFault, StorageFault
from cellcount_core.stores.base import (
    Absent,
    Created,
    Denied,
    Listed,
    Piece,
    Store,
    batches,
    checked_key,
    checked_prefix,
    checked_range,
)
from cellcount_core.stores.requests import each_in_order, in_order

STAGED_PREFIX = ".cellcount-"
STAGED_SUFFIX = ".partial"

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO}
_REFUSED = {errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_UNNAMED_FILES = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_SHORT_READ_TRIES = 3
_ELSEWHERE = "take another output (a run that is there already goes on in a copy)"


@dataclass(frozen=True, slots=True)
class LocalStore:
    """The store below the absolute folder `root`, which need not exist before the first put."""

    root: str

    @property
    def url(self) -> str:
        """The absolute path of the root."""
        return self.root

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """See `base.Store.list`. Lists regular files only. Raises StorageFault if a folder cannot be read."""
        folder = checked_prefix(prefix)
        yield from batches(_walk(self.root, folder))

    def get(self, key: str) -> bytes:
        """See `base.Store.get`. Raises StorageFault if the disk reports an error."""
        path = self._path(key)
        for _ in range(_SHORT_READ_TRIES):
            try:
                announced, body = _read(path)
            except OSError as fault:
                raise _read_fault(fault, key, path) from fault
            if len(body) >= announced:
                return body
        raise _short(path, len(body), announced)

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """See `base.Store.get_many`."""
        return in_order(self.get, keys, ahead=ahead)

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """See `base.Store.get_range`. Raises StorageFault if the disk reports an error."""
        checked_range(start, stop)
        path = self._path(key)
        for _ in range(_SHORT_READ_TRIES):
            try:
                piece = _read_range(path, start, stop)
            except OSError as fault:
                raise _read_fault(fault, key, path) from fault
            announced = max(0, min(stop, piece.size) - start)
            if len(piece.body) >= announced:
                return piece
        raise _short(path, len(piece.body), announced)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """See `base.Store.get_ranges`."""
        return each_in_order(lambda span: self.get_range(key, *span), ranges, ahead=ahead)

    def put_new(self, key: str, body: bytes) -> Created:
        """See `base.Store.put_new`.

        On file systems without hard links (exFAT, some network mounts) checking the name and renaming are
        two steps: if two writers come at the same moment, the later one wins.
        """
        path = self._own_path(key)
        with _write_faults(path):
            if os.path.lexists(path):
                return Created.EXISTS
            folder = path.parent
            folder.mkdir(parents=True, exist_ok=True)
            try:
                created = _put_new_unnamed(folder, path, body)
            except OSError as fault:
                if fault.errno not in _NO_UNNAMED_FILES | _NO_HARD_LINKS:
                    raise
                created = _put_new_named(folder, path, body)
            _sync_folder(folder)
            return created

    def put(self, key: str, body: bytes) -> None:
        """See `base.Store.put`."""
        path = self._own_path(key)
        with _write_faults(path):
            folder = path.parent
            folder.mkdir(parents=True, exist_ok=True)
            with _staged(folder, body) as staged:
                staged.replace(path)
            _sync_folder(folder)

    def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        path = self._own_path(key)
        with _write_faults(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def size_of(self, key: str) -> int | None:
        """See `base.Store.size_of`."""
        path = self._path(key)
        try:
            found = path.stat()
        except OSError as fault:
            meaning = _read_fault(fault, key, path)
            if isinstance(meaning, Absent):
                return None
            raise meaning from fault
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _path(self, key: str) -> Path:
        return Path(self.root, checked_key(key))

    def _own_path(self, key: str) -> Path:
        """The path to write to. Raises OutputFault if a symbolic link on the way leads out of the root."""
        path = self._path(key)
        root, folder = os.path.realpath(self.root), os.path.realpath(path.parent)
        if folder != root and os.path.commonpath((root, folder)) != root:
            raise OutputFault(
                f"{path}: a symbolic link leads to {folder}, outside of {self.root}; nothing is written there. "
                "Remove the link, or make the output folder itself the link"
            )
        return path


def open_local(path: str | os.PathLike[str]) -> LocalStore:
    """Open the store below `path`. A relative path becomes absolute, `~` is replaced by the home folder, and
    links are kept.

    Raises ConfigFault if the home folder that `~` stands for is not known.
    """
    try:
        return LocalStore(str(Path(path).expanduser().absolute()))
    except RuntimeError:
        user = os.fspath(path).partition("/")[0]
        raise ConfigFault(
            f"{os.fspath(path)}: the home folder of {user!r} is not known; write it out"
        ) from None


def is_staged(name: str) -> bool:
    """Whether a file of this name is the temporary file of a put that a crash cut short."""
    return name.startswith(STAGED_PREFIX) and name.endswith(STAGED_SUFFIX)


def remove_abandoned(store: Store, folders: Iterable[str]) -> None:
    """Delete the temporary files that crashes left in the root of a local store, and in `folders` and
    everything below them.

    Files of puts that are still running are kept. In other stores there is nothing to do, because they
    keep nothing of an interrupted put. A file that cannot be deleted stays; it does no harm.
    """
    if not isinstance(store, LocalStore):
        return
    root = Path(store.root)
    with contextlib.suppress(OSError):
        _remove_abandoned(entry for entry in os.scandir(root) if is_staged(entry.name))
    for folder in folders:
        for parent, _, names in os.walk(root / folder):
            _remove_abandoned(Path(parent, name) for name in names if is_staged(name))


def _remove_abandoned(staged: Iterable[os.PathLike[str]]) -> None:
    for path in staged:
        with contextlib.suppress(OSError), Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Path(path).unlink()


def _walk(root: str, folder: str) -> Iterator[Listed]:
    """Yield every regular file below `root/folder`, with one folder open at a time.

    Each folder that waits to be read is kept together with the folders above it, and with the key it has
    without links (None if a link led out of the root).
    """
    top = os.path.realpath(root)
    waiting: list[tuple[str, frozenset[tuple[int, int]], str | None]] = [
        (folder, frozenset(), _own_key(top, Path(root, folder)))
    ]
    while waiting:
        inside, above, own = waiting.pop()
        path = Path(root, inside)
        try:
            found = path.stat()
            identity = (found.st_dev, found.st_ino)
            if identity in above or not stat.S_ISDIR(found.st_mode):
                continue
            with os.scandir(path) as entries:
                for entry in entries:
                    key = f"{inside}/{entry.name}" if inside else entry.name
                    straight = own if own is None else f"{own}/{entry.name}" if own else entry.name
                    if entry.is_symlink():
                        straight = _own_key(top, Path(path, entry.name))
                    if _is_folder(entry):
                        waiting.append((key, above | {identity}, straight))
                    elif (listed := _listed(entry, key, straight)) is not None:
                        yield listed
        except FileNotFoundError:
            continue
        except OSError as fault:
            raise StorageFault(
                f"{path}: the folder cannot be listed ({os.strerror(fault.errno or 0)}); "
                "check that it is mounted and that this user may read it"
            ) from fault


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _own_key(top: str, path: Path) -> str | None:
    """The key below `top` of the file that `path` leads to: "" for `top` itself, None if it lies elsewhere."""
    target = os.path.realpath(path)
    if target == top:
        return ""
    below = top.rstrip("/") + "/"
    return target.removeprefix(below) if target.startswith(below) else None


def _listed(entry: os.DirEntry[str], key: str, own: str | None) -> Listed | None:
    if is_staged(entry.name):
        return None
    try:
        found = entry.stat()
    except OSError as fault:
        if fault.errno in _NOT_THERE:
            return Listed(key, 0, "")
        raise
    if not stat.S_ISREG(found.st_mode):
        return None
    link = own if own is not None and own != key else ""
    return Listed(key, found.st_size, _tag(found), link)


def _tag(found: os.stat_result) -> str:
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"


def _read(path: Path) -> tuple[int, bytes]:
    """The size that the file system announces, and all bytes up to the end of the file."""
    with _opened(path) as (file, found):
        return found.st_size, file.readall()


def _read_range(path: Path, start: int, stop: int) -> Piece:
    """The bytes of a range that exist, with the size and tag that the file has after they were read."""
    with _opened(path) as (file, found):
        pieces, at, end = list[bytes](), start, min(stop, found.st_size)
        while at < end and (got := os.pread(file.fileno(), end - at, at)):
            pieces.append(got)
            at += len(got)
        after = os.fstat(file.fileno())
        return Piece(b"".join(pieces), after.st_size, _tag(after))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.FileIO, os.stat_result]]:
    """Open a regular file for reading, together with what the file system says about it."""
    # O_NONBLOCK: a named pipe in the place of a file must not make the reader wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with io.FileIO(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "not a regular file", str(path))
        yield file, found


def _short(path: Path, there: int, announced: int) -> StorageFault:
    return StorageFault(
        f"{path}: the file keeps ending before its own size ({there} of {announced} bytes); "
        "is something still writing it?"
    )


def _read_fault(fault: OSError, key: str, path: Path) -> Absent | Denied | StorageFault:
    if fault.errno in _NOT_THERE:
        return Absent(key)
    if fault.errno in _REFUSED:
        return Denied(key, "this user may not read it")
    return StorageFault(f"{path}: the disk cannot be read ({fault.strerror}); check the disk or the mount")


@contextmanager
def _write_faults(path: Path) -> Iterator[None]:
    """Translate the operating system's write errors: OutputFault concerns this place, StorageFault the disk."""
    try:
        yield
    except OSError as fault:
        if isinstance(fault, CellcountError):
            raise
        if fault.errno in _FULL:
            raise StorageFault(
                f"{path}: cannot be written, the disk or the quota is full; free some space and run the same "
                "command again, it goes on where it stopped"
            ) from fault
        if fault.errno == errno.EROFS:
            raise OutputFault(
                f"{path}: cannot be written, the file system is read-only; mount it for writing, or {_ELSEWHERE}"
            ) from fault
        if fault.errno in _REFUSED:
            raise OutputFault(
                f"{path}: cannot be written, this user has no permission; change its owner or permissions (chown, chmod), or {_ELSEWHERE}"
            ) from fault
        if fault.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise OutputFault(
                f"{path}: cannot be written ({fault.strerror}); choose another output"
            ) from fault
        raise StorageFault(
            f"{path}: cannot be written ({fault.strerror}); check the disk or the mount"
        ) from fault


def _put_new_unnamed(folder: Path, path: Path, body: bytes) -> Created:
    """Write a file without a name and then give it one, so that a crash in between leaves nothing behind (Linux only)."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.EOPNOTSUPP, "this system has no files without a name")
    descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, body)
        # A directory descriptor makes os.link call linkat(AT_SYMLINK_FOLLOW), without which it would try to
        # link the /proc entry itself; see open(2), O_TMPFILE.
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=at)
        except FileExistsError:
            return Created.EXISTS
        finally:
            os.close(at)
        return Created.NEW
    finally:
        os.close(descriptor)


def _put_new_named(folder: Path, path: Path, body: bytes) -> Created:
    with _staged(folder, body) as staged:
        try:
            os.link(staged, path)
        except FileExistsError:
            return Created.EXISTS
        except OSError as fault:
            if fault.errno not in _NO_HARD_LINKS:
                raise
            if os.path.lexists(path):
                return Created.EXISTS
            staged.replace(path)
        return Created.NEW


@contextmanager
def _staged(folder: Path, body: bytes) -> Iterator[Path]:
    """A temporary file in `folder` that holds `body` and is synced to disk. It is locked while in use, and
    deleted at the end unless it was renamed.
    """
    staged = folder / f"{STAGED_PREFIX}{uuid.uuid4().hex}{STAGED_SUFFIX}"
    try:
        descriptor = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            # Where a file system has no locks, nothing that is abandoned is removed from it either.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(descriptor, body)
            yield staged
        finally:
            os.close(descriptor)
    finally:
        staged.unlink(missing_ok=True)


def _write_all(descriptor: int, body: bytes) -> None:
    left = memoryview(body)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        # Some network file systems cannot sync a folder; the file itself is on disk already.
        if fault.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
