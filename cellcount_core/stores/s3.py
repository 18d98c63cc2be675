"""`s3://bucket/prefix` on AWS or any other service that speaks S3, through obstore.

For single objects obstore's own retries are turned off and all retries are made here, so that a body cut
short, a lost reply and a conflict between two writers are retried too, within the same limits. Listings
use obstore's retries page by page; if a page is still cut short, it is requested again here.
"""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cellcount_core.domain.errors import RunFault, StorageFault
from cellcount_core.stores.base import (
    LIST_BATCH,
    Absent,
    Created,
    Denied,
    Listed,
    Piece,
    StorageOptions,
    checked_key,
    checked_prefix,
    checked_range,
)
from cellcount_core.stores.requests import each_in_order, in_order, note_retry
from cellcount_core.stores.s3_client import (
    CLIENT_ERRORS,
    UNADDRESSABLE,
    Clients,
    build_clients,
    pauses,
    place_of,
    plain_pages,
)
from cellcount_core.stores.s3_errors import PASSING, Failure, S3Meaning, failure_of, run_fault

if TYPE_CHECKING:
    import obstore.store

T = TypeVar("T")

_NO_SUCH_RANGE = 416


class _RequestError(Exception):
    """One request failed for good; `failure` is what the last attempt came to."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(frozen=True, slots=True)
class S3Store:
    """The objects of `bucket` below `prefix` ("" for the whole bucket).

    Credentials are looked up on the first request, in whichever process the store was unpickled, and again
    when they expire.
    """

    bucket: str
    prefix: str
    options: StorageOptions
    _opened: builtins.list[Clients] = field(default_factory=list, init=False, repr=False, compare=False)
    _opening: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, str, StorageOptions]]:
        return (S3Store, (self.bucket, self.prefix, self.options))

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def list(self, prefix: str = "") -> Iterator[list[Listed]]:
        """See `base.Store.list`. One request for every 1000 objects; keys are in the order of their UTF-8
        bytes.

        Keys that cannot be paths ("a//b", "a/../b") are listed as they are; reading them raises
        ConfigFault.
        """
        inside = checked_prefix(prefix)
        place = f"{self.url}/{inside}" if inside else self.url
        lister = self._clients().lister
        after: str | None = None
        upcoming = pauses(self.options)
        while True:
            try:
                for page in lister.list(inside or None, offset=after, chunk_size=LIST_BATCH):
                    after = page[-1]["path"] or None
                    upcoming = pauses(self.options)
                    listed = [
                        Listed(found["path"], found["size"], (found["e_tag"] or "").strip('"'))
                        for found in page
                        if found["path"]
                    ]
                    if listed:
                        yield listed
                return
            except UNADDRESSABLE:
                yield from self._plainly(inside, after)
                return
            except CLIENT_ERRORS as fault:
                failure = failure_of(str(fault))
            pause = next(upcoming, None) if failure.meaning is S3Meaning.TRUNCATED else None
            if pause is None:
                raise self._run_fault(failure, place)
            note_retry()
            time.sleep(pause)

    def _plainly(self, inside: str, after: str | None) -> Iterator[builtins.list[Listed]]:
        """List what comes after the key `after`, including keys that obstore cannot handle."""
        from botocore.exceptions import BotoCoreError, ClientError

        below = f"{inside}/" if inside else ""
        try:
            for page in plain_pages(self.bucket, self.prefix, after, self.options):
                # The marker of a folder is given without its '/', as obstore does.
                listed = [
                    Listed(key.rstrip("/") if size == 0 else key, size, tag)
                    for key, size, tag in page
                    if key.startswith(below) and key.strip("/")
                ]
                if listed:
                    yield listed
        except (BotoCoreError, ClientError) as fault:
            raise StorageFault(f"{self.url}/{inside}: cannot be listed ({fault})") from None

    def get(self, key: str) -> bytes:
        """See `base.Store.get`."""
        checked_key(key)

        def read(client: obstore.store.S3Store) -> bytes:
            reply = client.get(key)
            announced = reply.meta["size"]
            body = reply.bytes().to_bytes()
            if len(body) != announced:
                raise _RequestError(Failure(S3Meaning.TRUNCATED, 0, "", ""))
            return body

        try:
            return self._retried(read)
        except _RequestError as fault:
            raise self._object_fault(fault.failure, key) from None

    def get_many(self, keys: Sequence[str], *, ahead: int) -> Iterator[tuple[str, bytes | Absent | Denied]]:
        """See `base.Store.get_many`."""
        return in_order(self.get, keys, ahead=ahead)

    def get_range(self, key: str, start: int, stop: int) -> Piece:
        """See `base.Store.get_range`. One request, and one more if the object ends before the range begins."""
        checked_key(key)
        checked_range(start, stop)

        def read(client: obstore.store.S3Store) -> Piece:
            reply = client.get(key, options={"range": (start, stop)})
            size = reply.meta["size"]
            body = reply.bytes().to_bytes()
            if len(body) != min(stop, size) - start:
                raise _RequestError(Failure(S3Meaning.TRUNCATED, 0, "", ""))
            return Piece(body, size, (reply.meta["e_tag"] or "").strip('"'))

        try:
            return self._retried(read)
        except _RequestError as fault:
            failure = fault.failure
        if failure.status == _NO_SUCH_RANGE and (size := self.size_of(key)) is not None and size <= start:
            return Piece(b"", size, "")
        raise self._object_fault(failure, key)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]], *, ahead: int) -> Iterator[Piece]:
        """See `base.Store.get_ranges`."""
        return each_in_order(lambda span: self.get_range(key, *span), ranges, ahead=ahead)

    def put_new(self, key: str, body: bytes) -> Created:
        """See `base.Store.put_new`. Sends `If-None-Match: *`, and reads the object once more if an earlier attempt may have succeeded."""
        checked_key(key)
        tries = 0

        def create(client: obstore.store.S3Store) -> None:
            nonlocal tries
            tries += 1
            client.put(key, body, mode="create", use_multipart=False)

        try:
            self._retried(create)
        except _RequestError as fault:
            if fault.failure.meaning is not S3Meaning.EXISTS:
                raise self._run_fault(fault.failure, f"{self.url}/{key}") from None
            return Created.NEW if tries > 1 and self._holds(key, body) else Created.EXISTS
        return Created.NEW

    def put(self, key: str, body: bytes) -> None:
        """See `base.Store.put`."""
        checked_key(key)
        try:
            self._retried(lambda client: client.put(key, body, use_multipart=False))
        except _RequestError as fault:
            raise self._run_fault(fault.failure, f"{self.url}/{key}") from None

    def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        checked_key(key)
        try:
            self._retried(lambda client: client.delete(key))
        except _RequestError as fault:
            if fault.failure.meaning is not S3Meaning.NO_OBJECT:
                raise self._run_fault(fault.failure, f"{self.url}/{key}") from None

    def size_of(self, key: str) -> int | None:
        """See `base.Store.size_of`. One request, and one more if the first fails without saying why."""
        checked_key(key)
        try:
            return self._retried(lambda client: client.head(key)["size"])
        except _RequestError as fault:
            failure = fault.failure
        if not failure.code and failure.status in (301, 400, 401, 403, 404):
            # The reply to a HEAD has no body, so it cannot name its code; that of a GET can.
            try:
                return self._retried(lambda client: client.get(key).meta["size"])
            except _RequestError as fault:
                failure = fault.failure
        meaning = self._object_fault(failure, key)
        if isinstance(meaning, Absent):
            return None
        raise meaning

    def _holds(self, key: str, body: bytes) -> bool:
        try:
            return self.get(key) == body
        except (Absent, Denied):
            return False

    def _clients(self) -> Clients:
        with self._opening:
            if not self._opened:
                self._opened.append(build_clients(self.bucket, self.prefix, self.options))
            return self._opened[0]

    def _retried(self, request: Callable[[obstore.store.S3Store], T]) -> T:
        """The result of `request`, repeated while it fails in a temporary way. Raises _RequestError."""
        client = self._clients().objects
        upcoming = pauses(self.options)
        while True:
            try:
                return request(client)
            except CLIENT_ERRORS as fault:
                failure = failure_of(str(fault))
            except _RequestError as fault:
                failure = fault.failure
            pause = next(upcoming, None) if failure.meaning in PASSING else None
            if pause is None:
                raise _RequestError(failure)
            note_retry()
            time.sleep(pause)

    def _object_fault(self, failure: Failure, key: str) -> Absent | Denied | RunFault:
        if failure.meaning is S3Meaning.NO_OBJECT:
            return Absent(key)
        if failure.meaning is S3Meaning.REFUSED:
            return Denied(
                key, f"the store refuses it ({failure.status} {failure.code}: {failure.message[:200]})"
            )
        return self._run_fault(failure, f"{self.url}/{key}")

    def _run_fault(self, failure: Failure, place: str) -> RunFault:
        at = place_of(self.options)
        return run_fault(failure, place, at.endpoint or "AWS S3", at.region)
