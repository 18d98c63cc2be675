"""The files of a shard: each read once, ahead of need, opened once, let go when its last field is counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import PlannedField
from cellcount_core.images.axes import UNDECLARED, Declared, as_declared
from cellcount_core.images.decode import ImageFile, open_image
from cellcount_core.images.imagefile import Beside, alone
from cellcount_core.stores.base import Absent, Denied, Store, files_beside


class LoadedFile:
    """The body of one object, or why it could not be had. Opened on first use, by whichever field comes first.

    `users` fields share it; when each has called `release`, the bytes are let go. `declared` is what the run says of its axes, `beside`
    gives the other files of an OME set.
    """

    def __init__(
        self,
        key: str,
        body: bytes | Absent | Denied,
        planned_size: int,
        max_pixels: int,
        users: int = 1,
        declared: Declared = UNDECLARED,
        beside: Beside = alone,
    ) -> None:
        self._users = users
        self._key = key
        self._planned_size = planned_size
        self._body: bytes | Absent | Denied | None = body
        self._max_pixels = max_pixels
        self._declared = declared
        self._beside = beside
        self._image: ImageFile | None = None
        self._fault: FieldFault | None = None
        self._lock = threading.Lock()
        self.size = len(body) if isinstance(body, bytes) else 0

    def image(self) -> ImageFile:
        """The opened image. Raises FieldFault (also again, for every field that shares the file)."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._image is None:
                try:
                    self._image = self._open()
                except FieldFault as fault:
                    self._fault = fault
                    self._body = None
                    raise
                # Kept where there was no memory to open it: it may be tried again.
                self._body = None
            return self._image

    def release(self) -> None:
        """A field has decoded what it needs of this file."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._image = None

    def _open(self) -> ImageFile:
        if isinstance(self._body, Absent):
            raise FieldFault(
                Reason.ABSENT, "it was listed when the run was planned and is gone now", self._key
            )
        if isinstance(self._body, Denied):
            raise FieldFault(Reason.ACCESS_DENIED, self._body.detail, self._key)
        assert self._body is not None
        if len(self._body) != self._planned_size:
            detail = (
                f"it had {self._planned_size} bytes when the run was planned and has {len(self._body)} now"
            )
            raise FieldFault(Reason.CHANGED, detail, self._key)
        return open_image(
            self._body,
            self._key,
            max_pixels=self._max_pixels,
            declared=self._declared,
            beside=self._beside,
        )


def read_fields(
    store: Store, fields: Sequence[PlannedField], *, ahead: int, run: RunConfig
) -> Iterator[tuple[PlannedField, dict[str, LoadedFile]]]:
    """The fields with their files, in order. Objects are read `ahead` of need; one read an object, however many fields share it.

    The other files of an OME set are read when a plane that lies in them is asked for. Fields that planning already gave up come
    with no files. Raises StorageFault, CredentialsFault.
    """
    uses = Counter(key for planned in fields for key in _keys(planned))
    sizes = {source.key: source.size for planned in fields for source in planned.sources}
    declared = as_declared(run.axes, run.pages)
    held: dict[str, LoadedFile] = {}
    bodies = store.get_many(list(uses), ahead=ahead)
    for planned in fields:
        keys = _keys(planned)
        while any(key not in held for key in keys):
            key, body = next(bodies)
            held[key] = LoadedFile(
                key, body, sizes[key], run.max_pixels, uses[key], declared, files_beside(store, key)
            )
        yield planned, {key: held[key] for key in keys}
        for key in keys:
            uses[key] -= 1
            if not uses[key]:
                del held[key]


def _keys(planned: PlannedField) -> list[str]:
    """Distinct keys to read for a field, in the order of its sources."""
    return list(dict.fromkeys(source.key for source in planned.sources)) if planned.reason is None else []
