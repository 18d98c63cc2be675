"""Any file system that fsspec supports, as a store: `memory://`, `gs://`, `abfs://`, `sftp://` and others.

fsspec leaves some guarantees to each file system, so they cannot be promised here. A put is whole or not
at all only if the file system writes that way. `put_new` is a single atomic step only where there is a
conditional write (S3, Google, and memory within one process); elsewhere it checks first and then writes,
and if two writers come at the same moment the later one wins.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from cellcount_core.domain.errors import CellcountError, ConfigFault, CredentialsFault, RunFault, StorageFault
from cellcount_core.stores.base import (
    Absent,
    Created,
    Denied,
    Listed,
    Piece,
    StorageOptions,
    batches,
    checked_key,
    checked_prefix,
    checked_range,
)
from cellcount_core.stores.requests import each_in_order, in_order
from cellcount_core.stores.s3_errors import Failure, S3Meaning, meaning_of, run_fault

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Errors of the libraries below fsspec that are no OSError: scheme -> (module, class).
_LIBRARY_ERRORS = {
    "s3": ("botocore.exceptions", "BotoCoreError"),
    "gs": ("gcsfs.retry", "HttpError"),
    "gcs": ("gcsfs.retry", "HttpError"),
    "abfs": ("azure.core.exceptions", "AzureError"),
    "az": ("azure.core.exceptions", "AzureError"),
    "http": ("aiohttp", "ClientError"),
    "https": ("aiohttp", "ClientError"),
    "sftp": ("paramiko.ssh_exception", "SSHException"),
}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "AuthenticationException",
}
_SHORT_READ_TRIES = 3
_WITH_FOLDERS = {"sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs", "arrow_hdfs", "dbfs", "local"}
_TAG_NAMES = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "checksum", "hash")
_TIME_NAMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class _Entry:
    """What fsspec says about a file or folder: its path, its size in bytes and its tag."""

    name: str
    is_folder: bool
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class GenericStore:
    """The store below `url`, through fsspec. The file system is opened on first use, in whichever process that is."""

    url: str
    options: StorageOptions
    _opened: builtins.list[tuple[AbstractFileSystem, str]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _creating: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[GenericStore], tuple[str, StorageOptions]]:
        return (GenericStore, (self.url, self.options))

    @property
    def scheme(self) -> str:
        """The part of the URL before '://', in lower case."""
        return self.url.split("://", 1)[0].lower()

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """See `base.Store.list`. Folders are listed one at a time, so memory holds the listing of one folder."""
        fs, root = self._fs()
        yield from batches(self._below(fs, root, _joined(root, checked_prefix(prefix))))

    def _below(self, fs: AbstractFileSystem, root: str, start: str) -> Iterator[Listed]:
        """The objects below the folder `start` of the file system."""
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            for entry in self._entries(fs, folder):
                if entry.name.strip("/") == folder.strip("/"):
                    continue
                if entry.is_folder:
                    waiting.append(entry.name)
                else:
                    yield Listed(_key_of(entry.name, root), entry.size, entry.tag)

    def get(self, key: str) -> bytes:
        """See `base.Store.get`. Whether a body that was cut short is noticed depends on the file system."""
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        try:
            with self._read_faults(key):
                return bytes(fs.cat_file(path))
        except IsADirectoryError:
            raise Absent(key) from None

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """See `base.Store.get_many`."""
        return in_order(self.get, keys, ahead=ahead)

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """See `base.Store.get_range`. It takes two requests, because fsspec does not tell which object the bytes belong to."""
        checked_range(start, stop)
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        for _ in range(_SHORT_READ_TRIES):
            with self._read_faults(key):
                entry = _entry(fs.info(path))
            if entry.is_folder:
                raise Absent(key)
            size = entry.size
            if size <= start:
                return Piece(b"", size, entry.tag)
            with self._read_faults(key):
                body = bytes(fs.cat_file(path, start=start, end=min(stop, size)))
            if len(body) == size > stop - start:
                # A web server that knows no ranges sends everything.
                body = body[start:stop]
            if len(body) == min(stop, size) - start:
                return Piece(body, size, entry.tag)
        raise StorageFault(
            f"{self.url}/{key}: the store keeps giving {len(body)} of the {min(stop, size) - start} bytes asked for"
        )

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """See `base.Store.get_ranges`."""
        return each_in_order(lambda span: self.get_range(key, *span), ranges, ahead=ahead)

    def put_new(self, key: str, body: bytes) -> Created:
        """See `base.Store.put_new`, and this module's text for what it guarantees on each file system."""
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        try:
            with self._creating, self._write_faults(key):
                self._make_folder(fs, path)
                if _creates_only(fs):
                    fs.pipe_file(path, body, mode="create")
                elif fs.exists(path):
                    return Created.EXISTS
                else:
                    fs.pipe_file(path, body)
        except FileExistsError:
            return Created.EXISTS
        return Created.NEW

    def put(self, key: str, body: bytes) -> None:
        """See `base.Store.put`, and this module's text for what it guarantees on each file system."""
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        with self._write_faults(key):
            self._make_folder(fs, path)
            fs.pipe_file(path, body)

    def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        try:
            with self._faults(key):
                fs.rm_file(path)
        except Absent:
            return
        except Denied as refused:
            raise CredentialsFault(f"{self.url}/{key}: may not be deleted ({refused.detail})") from refused

    def size_of(self, key: str) -> int | None:
        """See `base.Store.size_of`."""
        fs, root = self._fs()
        path = _joined(root, checked_key(key))
        try:
            with self._read_faults(key):
                entry = _entry(fs.info(path))
        except Absent:
            return None
        return None if entry.is_folder else entry.size

    def _fs(self) -> tuple[AbstractFileSystem, str]:
        with self._opening:
            if not self._opened:
                self._opened.append(_open_file_system(self.url, self.scheme, self.options))
            return self._opened[0]

    def _make_folder(self, fs: AbstractFileSystem, path: str) -> None:
        # An object store needs none, and s3fs would make the bucket.
        if self.scheme in _WITH_FOLDERS:
            fs.makedirs(fs._parent(path), exist_ok=True)

    def _entries(self, fs: AbstractFileSystem, folder: str) -> builtins.list[_Entry]:
        """The entries of one folder, or none if it does not exist."""
        try:
            with self._faults(folder):
                return [_entry(info) for info in fs.ls(folder, detail=True)]
        except (Absent, NotADirectoryError):
            return []
        except Denied as refused:
            raise CredentialsFault(f"{self.url}: {folder} may not be listed ({refused.detail})") from refused

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """Translate what the file system raises into the errors of `base`; any other OSError is a fault of the store."""
        unusable: tuple[type[Exception], ...] = (OSError, *_library_errors(self.scheme))
        try:
            yield
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except unusable as fault:
            if isinstance(fault, CellcountError):
                raise
            raise self._meaning(fault, key) from None

    @contextmanager
    def _read_faults(self, key: str) -> Iterator[None]:
        """As `_faults`, for reads. A refusal concerns this object alone only if the root can be listed: the
        reply to a HEAD does not say why.
        """
        try:
            with self._faults(key):
                yield
        except Denied:
            self._entries(*self._fs())
            raise

    @contextmanager
    def _write_faults(self, key: str) -> Iterator[None]:
        """As `_faults`, for writes: nothing can be absent, and a refusal concerns the whole output."""
        try:
            with self._faults(key):
                yield
        except Absent:
            raise StorageFault(
                f"{self.url}/{key}: cannot be written, the place above it does not exist"
            ) from None
        except Denied as refused:
            raise CredentialsFault(f"{self.url}/{key}: may not be written ({refused.detail})") from refused

    def _meaning(self, fault: BaseException, key: str) -> Absent | Denied | RunFault | FileExistsError:
        failure = _s3_failure(fault)
        if failure is not None and failure.meaning is S3Meaning.EXISTS:
            return FileExistsError(key)
        if failure is not None and failure.meaning not in (
            S3Meaning.NO_OBJECT,
            S3Meaning.REFUSED,
            S3Meaning.UNEXPECTED,
        ):
            return run_fault(
                failure, f"{self.url}/{key}", self.options.endpoint or "AWS S3", self.options.region or ""
            )
        if isinstance(fault, FileNotFoundError):
            return Absent(key)
        if isinstance(fault, PermissionError):
            return Denied(key, f"the store refuses it ({fault})")
        if type(fault).__name__ in _NO_CREDENTIALS:
            return CredentialsFault(f"{self.url}: no usable credentials were found ({fault})")
        return StorageFault(f"{self.url}/{key}: unreachable ({type(fault).__name__}: {fault})")


def known_schemes() -> frozenset[str]:
    """The URL schemes that fsspec knows, whether or not their packages are installed."""
    from fsspec.registry import available_protocols

    return frozenset(available_protocols())


def _open_file_system(url: str, scheme: str, options: StorageOptions) -> tuple[AbstractFileSystem, str]:
    """The file system and the path of the root in it. Raises ConfigFault if its package is not installed."""
    import fsspec

    try:
        named = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(url)
        given = {**named, **_arguments(scheme, options)}
        fs = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **given)
    except TypeError as fault:
        raise ConfigFault(
            f"{url}: the store cannot be opened: {scheme}:// needs more than its URL says, which cannot be given here; mount or copy it"
        ) from fault
    except OSError as fault:
        raise StorageFault(f"{url}: unreachable ({type(fault).__name__}: {fault})") from fault
    except (ImportError, ValueError) as fault:
        raise ConfigFault(f"{url}: the store cannot be opened: {fault}") from fault
    return fs, str(fs._strip_protocol(url)).rstrip("/")


def _arguments(scheme: str, options: StorageOptions) -> dict[str, object]:
    if scheme not in ("s3", "s3a"):
        return {}
    config = {
        "connect_timeout": min(5.0, options.timeout_s),
        "read_timeout": options.timeout_s,
        "retries": {"max_attempts": options.retries, "mode": "standard"},
    }
    client = {"region_name": options.region} if options.region else {}
    return {
        "anon": options.anonymous,
        "endpoint_url": options.endpoint,
        "config_kwargs": config,
        "client_kwargs": client,
    }


def _creates_only(fs: AbstractFileSystem) -> bool:
    """Whether the file system's own write knows mode="create" (one that does not would take it and overwrite)."""
    write = getattr(type(fs), "_pipe_file", type(fs).pipe_file)
    return "mode" in inspect.signature(write).parameters


def _library_errors(scheme: str) -> tuple[type[Exception], ...]:
    if (known := _LIBRARY_ERRORS.get(scheme)) is None:
        return ()
    module, name = known
    found = getattr(importlib.import_module(module), name)
    return (found,)


def _s3_failure(fault: BaseException) -> Failure | None:
    """The reply behind an error of s3fs, None where there was none."""
    reply = getattr(fault.__cause__, "response", None) or getattr(fault, "response", None)
    if not isinstance(reply, Mapping) or "Error" not in reply:
        return None
    code = str(reply["Error"].get("Code", ""))
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code.isdigit() and status in (403, 404):
        # The reply to a HEAD has no body, so no code: 404 and 403 are all that is known.
        return Failure(S3Meaning.NO_OBJECT if status == 404 else S3Meaning.REFUSED, status, "", "")
    return Failure(meaning_of(status, code), status, code, str(reply["Error"].get("Message", "")))


def _joined(root: str, key: str) -> str:
    return f"{root}/{key}" if key else root


def _key_of(name: str, root: str) -> str:
    return (
        name[len(root) :].lstrip("/")
        if name.startswith(root)
        else name.lstrip("/")[len(root.lstrip("/")) :].lstrip("/")
    )


def _entry(info: Mapping[str, object]) -> _Entry:
    size = int(str(info.get("size") or 0))
    return _Entry(str(info["name"]).rstrip("/"), info["type"] == "directory", size, _tag(info, size))


def _tag(info: Mapping[str, object], size: int) -> str:
    """A tag that changes with the content: the store's own, else size and time of the last change."""
    for name in _TAG_NAMES:
        if info.get(name):
            return str(info[name]).strip('"')
    for name in _TIME_NAMES:
        if (when := info.get(name)) is not None:
            return f"{size:x}-{when.isoformat() if isinstance(when, datetime) else when}"
    return f"{size:x}"
