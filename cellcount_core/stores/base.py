"""What every store can do, and the values and errors that it uses.

An object is named by its *key*: a path relative to the store's root, with '/' between its parts and no
leading '/'. Three situations have three types, because they must not be mixed up: the object does not
exist (`Absent`); the store refuses this one object but gives others (`Denied`); the store cannot be used
at all (`StorageFault`, `CredentialsFault`, `OutputFault`), so nothing is known about any object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cellcount_core.domain.errors import CellcountError, ConfigFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

LIST_BATCH = 1000
"""Objects that a store lists at once, at most."""

USUAL_SCHEMES = ("file", "s3")


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME = 255
"""Bytes of a file's name on the file systems there are."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing: its key, its size in bytes, and a tag that changes when its content changes.

    If `etag` is empty, the name exists but its content could not be examined (a dangling link, or a file
    that disappeared while the folder was read); reading it raises Absent. If `key` reaches the file
    through a symbolic link, `link` is the key of the file itself below the same root; otherwise it is "".
    """

    key: str
    size: int
    etag: str
    link: str = ""


class Absent(CellcountError, FileNotFoundError):
    """The store answered, and has no object with this `key`."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: there is no such file"


class Denied(CellcountError, PermissionError):
    """The store answered, and refuses access to this one `key`; `detail` is its reason."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(key, detail)
        self.key = key
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.key}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an object, with the size of the whole object in bytes and its tag.

    Two pieces of one object that differ in tag or size were read before and after the object was replaced.
    """

    body: bytes
    size: int
    etag: str


class Created(Enum):
    """What `put_new` did: it wrote the object (NEW), or left alone the one that existed (EXISTS)."""

    NEW = "new"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How to reach a store. There are no credentials in it: those always come from the standard chain.

    - `endpoint`: URL of an S3-compatible service; None takes the one of the environment, or AWS itself.
    - `retries`: how often one request is repeated after a temporary fault (throttling, reset connection, time-out).
    - `timeout_s`: how long one request may be silent, in seconds, and how long its retries may take in all.
    - `schemes`: the URL schemes that are allowed; a plain path has the scheme "file".

    Raises ConfigFault if a value is out of range or the endpoint is not an http(s) URL.
    """

    endpoint: str | None = None
    region: str | None = None
    anonymous: bool = False
    retries: int = 8
    timeout_s: float = 30.0
    schemes: tuple[str, ...] = USUAL_SCHEMES

    def __post_init__(self) -> None:
        if self.endpoint is not None:
            checked_endpoint(self.endpoint)
        if self.retries < 0 or self.timeout_s <= 0:
            raise ConfigFault(
                f"storage.retries must be 0 or more and storage.timeout_s above 0 "
                f"(got {self.retries} and {self.timeout_s})"
            )

    @property
    def allow_http(self) -> bool:
        """Whether the endpoint uses http instead of https."""
        return self.endpoint is not None and self.endpoint.startswith("http://")


class Store(Protocol):
    """A root with objects below it. It can be pickled; neither its pickle nor its repr contains a credential.

    Every method may raise StorageFault or CredentialsFault, and raises ConfigFault if the key is not a
    valid one (see `checked_key`).
    """

    @property
    def url(self) -> str:
        """The root, in the form that `open_store` takes; it never contains a credential."""
        ...

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """List all objects below the folder `prefix`, at any depth, in batches of at most LIST_BATCH.

        `prefix` matches whole parts of a path: `plate1` does not match `plate10/a.tif`. A root or prefix
        that does not exist yields nothing. The order depends on the store. Hidden files are included. On
        S3 so are objects whose keys are not usable as paths (see `addressable`), and the 0-byte objects
        that mark folders, which `size_of` does not find.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return the whole object. If fewer bytes arrive than announced, it is read again; a short body is
        never returned.

        Raises Absent or Denied.
        """
        ...

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """Read the objects of `keys` in parallel and yield them in that order.

        At most `ahead` objects (1 or more) are being read or waiting to be taken. Absent and Denied are
        yielded as values; faults that concern the whole run are raised.
        """
        ...

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """Return the bytes from `start` (counted from 0) up to, but not including, `stop`.

        The piece is shorter if the object ends before `stop`, and empty if it ends before `start`. If
        fewer bytes arrive than announced, they are read again. Raises Absent or Denied, and ValueError if
        the range contains no byte.
        """
        ...

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """Read several `ranges` of one object in parallel and yield them in that order, each as `get_range`
        returns it.

        At most `ahead` pieces (1 or more) are being read or waiting to be taken.
        """
        ...

    def put_new(self, key: str, body: bytes) -> Created:
        """Write the object, whole or not at all, and only if there is none with this key.

        If the reply to a put gets lost, the put is repeated and then finds an object. On S3 the result is
        NEW if that object holds these bytes, and EXISTS if it holds others. Other stores may return EXISTS
        for what this very call wrote, so compare the bytes if that matters. Raises OutputFault if the
        place cannot be written.
        """
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write the object, whole or not at all, and replace any that exists.

        Raises OutputFault if the place cannot be written.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object. It is not an error if it does not exist."""
        ...

    def size_of(self, key: str) -> int | None:
        """Return the size of the object in bytes, or None if it does not exist. Raises Denied."""
        ...


def files_beside(store: Store, key: str) -> Callable[[str], bytes | None]:
    """Return a function that reads the files in the same folder as `key`, by name.

    It returns None if the file does not exist or is refused, or if the text cannot be a file name.
    """
    folder = key.rpartition("/")[0]

    def get(name: str) -> bytes | None:
        if (
            name in ("", ".", "..")
            or "/" in name
            or "\0" in name
            or len(name.encode(errors="replace")) > _LONGEST_NAME
        ):
            return None
        try:
            return store.get(f"{folder}/{name}" if folder else name)
        except (Absent, Denied):
            return None

    return get


def checked_key(key: str) -> str:
    """Return `key` unchanged. Raises ConfigFault if it is empty or leads out of the root."""
    if not addressable(key):
        raise ConfigFault(
            f"the key {key!r} must be a relative path below the store's root, without empty, '.' or '..' segments"
        )
    return key


def batches(listed: Iterable[Listed]) -> Iterator[list[Listed]]:
    """The objects of a listing, in their order, in lists of `LIST_BATCH`; the last one has what is left, if anything."""
    rest = iter(listed)
    while batch := list(islice(rest, LIST_BATCH)):
        yield batch


def addressable(key: str, url: str = "") -> bool:
    """Whether `checked_key` accepts this key. In a store on S3 (by its `url`) the key must not contain
    control characters either, because such an object cannot be requested.
    """
    if url.startswith("s3://") and _CONTROL.search(key) is not None:
        return False
    return not any(segment in ("", ".", "..") for segment in key.split("/")) and "\0" not in key


def checked_range(start: int, stop: int) -> int:
    """Return the number of bytes from `start` to `stop`. Raises ValueError if there is none, or `start` is negative."""
    if not 0 <= start < stop:
        raise ValueError(f"a range has at least one byte and begins at 0 or later (got {start} to {stop})")
    return stop - start


def checked_prefix(prefix: str) -> str:
    """Return `prefix` without a trailing '/', or "" for the root. Raises ConfigFault as `checked_key` does."""
    return checked_key(prefix.rstrip("/")) if prefix else ""


def checked_endpoint(endpoint: str) -> str:
    """Return `endpoint` unchanged. Raises ConfigFault if it is not an http(s) URL, or contains a user or password."""
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        raise ConfigFault(
            "storage.endpoint must not carry a user or password; credentials come from the environment, "
            "~/.aws or the machine's role"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigFault(
            f"storage.endpoint must be like 'https://host:port' (got {endpoint!r}); "
            "did you forget 'https://' or 'http://'?"
        )
    return endpoint
