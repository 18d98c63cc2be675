"""What every store can do, and the values and errors that go with it.

An object is named by its *key*: '/'-separated, relative to the store's root, never with a leading '/'.
Three things that must not be mixed up have three types: an object that is not there (`Absent`), one object that
the store refuses while it gives others (`Denied`), and a store that cannot be used (`StorageFault`,
`CredentialsFault`, `OutputFault`), after which nothing is known about any object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from cellcount_core.domain.errors import CellcountError, ConfigFault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LIST_BATCH = 1000

USUAL_SCHEMES = ("file", "s3")


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME = 255
"""Bytes of a file's name on the file systems there are."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing: key, size in bytes, and a tag that changes when the content does.

    An empty `etag` marks a name whose content could not be looked at (a dangling link, a file that went away
    while the folder was read); reading it raises Absent. `link` is the key of the same file below the same root, where
    `key` leads there through a symbolic link; "" for a file of its own.
    """

    key: str
    size: int
    etag: str
    link: str = ""


class Absent(CellcountError, FileNotFoundError):
    """The store answers, and has no object of this `key`."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"{self.key}: there is no such file"


class Denied(CellcountError, PermissionError):
    """The store answers, and refuses this one `key`; `detail` is its reason."""

    def __init__(self, key: str, detail: str) -> None:
        super().__init__(key, detail)
        self.key = key
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.key}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an object, and which object they are of: the size of the whole in bytes, and its tag.

    Pieces of one object with different tags or sizes were read before and after it was replaced.
    """

    body: bytes
    size: int
    etag: str


class Created(Enum):
    """What a conditional put did: wrote the object, or left the one that was there."""

    NEW = "new"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How a store is reached. Holds no credentials: those come from the standard chain alone.

    `endpoint`: URL of an S3-compatible service, None for the one of the environment or AWS itself.
    `retries`: how often one request is tried again after a fault that passes (throttling, resets, time-outs).
    `timeout_s`: longest silence within one request, in seconds, and the longest time spent on its retries.
    `schemes`: those that a URL may have; a path has the scheme "file".
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
        """Whether the endpoint is plain http."""
        return self.endpoint is not None and self.endpoint.startswith("http://")


class Store(Protocol):
    """A root with objects below it. Picklable; neither pickle nor repr holds a credential.

    Every method may raise StorageFault or CredentialsFault, and ConfigFault for a key that is none.
    """

    @property
    def url(self) -> str:
        """The root, as `open_store` takes it; never with a credential."""
        ...

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """All objects below the folder `prefix`, however deep, in batches of at most LIST_BATCH.

        `prefix` is matched by whole path segments: `plate1` does not give `plate10/a.tif`. A root or prefix
        that does not exist gives nothing. The order is the store's own. Hidden files come too, on S3 also objects whose keys
        are no paths (`addressable`) and the markers of folders, of 0 bytes, which `size_of` does not find.
        """
        ...

    def get(self, key: str) -> bytes:
        """The whole object. A body shorter than announced is read again, never returned.

        Raises Absent, Denied.
        """
        ...

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """The objects of `keys`, in that order, read in parallel.

        At most `ahead` objects (1 or more) are in flight or waiting to be taken. Absent and Denied are values
        here; run faults raise.
        """
        ...

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """The bytes `start` to `stop` (from 0, without the last) of the object.

        There are fewer where the object ends before `stop`, and none where it ends before `start`. A body shorter
        than announced is read again, never returned. Raises Absent, Denied, and ValueError for a range of no bytes.
        """
        ...

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """The `ranges` of one object, in that order, read in parallel; each as `get_range` gives it.

        At most `ahead` pieces (1 or more) are in flight or waiting to be taken.
        """
        ...

    def put_new(self, key: str, body: bytes) -> Created:
        """Write the object whole or not at all, and only if there is none of this key.

        A put whose reply got lost is tried again and then finds an object. On S3 it is NEW where it holds these bytes
        and EXISTS where it holds others; other stores may say EXISTS to what this put itself wrote, so compare the bytes
        where that matters. Raises OutputFault where the place cannot be written.
        """
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write the object whole or not at all, in place of the one that is there.

        Raises OutputFault where the place cannot be written.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is absent is fine."""
        ...

    def size_of(self, key: str) -> int | None:
        """The object's size in bytes, None where it is absent. Raises Denied."""
        ...


def files_beside(store: Store, key: str) -> Callable[[str], bytes | None]:
    """What reads the files in the folder of `key` by their names: None for one that is not there, is refused, or has no name of a file."""
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
    """`key` itself, if it names an object below a root; raises ConfigFault for one that climbs out or is empty."""
    if not addressable(key):
        raise ConfigFault(
            f"the key {key!r} must be a relative path below the store's root, without empty, '.' or '..' segments"
        )
    return key


def addressable(key: str, url: str = "") -> bool:
    """Whether `key` is one that `checked_key` takes, and in a store whose `url` is on S3 one without control characters, which
    cannot be asked for."""
    if url.startswith("s3://") and _CONTROL.search(key) is not None:
        return False
    return not any(segment in ("", ".", "..") for segment in key.split("/")) and "\0" not in key


def checked_range(start: int, stop: int) -> int:
    """The number of bytes from `start` to `stop`; raises ValueError where there is none."""
    if not 0 <= start < stop:
        raise ValueError(f"a range has at least one byte and begins at 0 or later (got {start} to {stop})")
    return stop - start


def checked_prefix(prefix: str) -> str:
    """`prefix` without a trailing '/', "" for the root; raises ConfigFault as `checked_key`."""
    return checked_key(prefix.rstrip("/")) if prefix else ""


def checked_endpoint(endpoint: str) -> str:
    """`endpoint` itself; raises ConfigFault where it is no http(s) URL or carries a user or password."""
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
