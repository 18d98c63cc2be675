"""The files of a shard's fields: each is read once, ahead of need, opened once, and let go after the last field that uses it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import PlannedField, Source, SourcePart
from cellcount_core.images.decode import ImageFile, open_image
from cellcount_core.images.imagefile import UNDECLARED, Beside, Declared, alone, as_declared
from cellcount_core.images.reader import WHOLE_LIMIT, Ranged, Reader, Whole, not_had
from cellcount_core.stores.base import Absent, Denied, Store, files_beside

Body = bytes | Absent | Denied | Ranged
"""What reading an object gave: its bytes, the reason why there are none, or a reader for an object too large to be held whole."""

_READ_IN_PARTS = (".tif", ".tiff")


class Loaded(ABC):
    """A file or array that fields read planes from. It is opened by the first field that needs it.

    `users` fields share it. Its bytes are let go once each of them has called `release`.
    """

    def __init__(self, users: int) -> None:
        self._users = users
        self._image: ImageFile | None = None
        self._fault: FieldFault | None = None
        self._lock = threading.Lock()

    @property
    @abstractmethod
    def size(self) -> int:
        """The most bytes that are held for it at once."""

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """Bytes read for it so far."""

    def image(self) -> ImageFile:
        """The opened image. Raises FieldFault if it cannot be opened, for every field that shares it."""
        with self._lock:
            if self._fault is not None:
                raise self._fault
            if self._image is None:
                try:
                    self._image = self._open()
                except FieldFault as fault:
                    self._fault = fault
                    self._let_go()
                    raise
                # Kept where there was no memory to open it: it may be tried again.
                self._let_go()
            return self._image

    def release(self) -> None:
        """Say that a field has decoded everything it needs of this file."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._image = None

    @abstractmethod
    def _open(self) -> ImageFile: ...

    @abstractmethod
    def _let_go(self) -> None: ...


class LoadedFile(Loaded):
    """One object of the store, or the reason why it could not be read.

    `declared` is what the run says about its axes, `beside` gives the other files of an OME set.
    """

    def __init__(
        self,
        key: str,
        body: Body,
        planned_size: int,
        max_pixels: int,
        users: int = 1,
        declared: Declared = UNDECLARED,
        beside: Beside = alone,
    ) -> None:
        super().__init__(users)
        self._key = key
        self._planned_size = planned_size
        self._body: Body | None = body
        self._ranged = body if isinstance(body, Ranged) else None
        self._length = len(body) if isinstance(body, bytes) else 0
        self._max_pixels = max_pixels
        self._declared = declared
        self._beside = beside

    @property
    def size(self) -> int:
        """See `Loaded.size`."""
        return self._length if self._ranged is None else WHOLE_LIMIT

    @property
    def bytes_read(self) -> int:
        """See `Loaded.bytes_read`."""
        return self._length if self._ranged is None else self._ranged.bytes_read

    def _open(self) -> ImageFile:
        assert self._body is not None
        return open_image(
            _had(SourcePart(self._key, self._planned_size), self._body),
            self._key,
            max_pixels=self._max_pixels,
            declared=self._declared,
            beside=self._beside,
        )

    def _let_go(self) -> None:
        self._body = None


class LoadedArray(Loaded):
    """The objects of one OME-Zarr array: its metadata, and the chunks that are needed."""

    def __init__(self, key: str, bodies: Mapping[SourcePart, Body], max_pixels: int) -> None:
        super().__init__(users=1)
        self._key = key
        self._max_pixels = max_pixels
        self._bodies: Mapping[SourcePart, Body] = bodies
        self._ranged = [body for body in bodies.values() if isinstance(body, Ranged)]
        self._length = sum(len(body) for body in bodies.values() if isinstance(body, bytes))

    @property
    def size(self) -> int:
        """See `Loaded.size`."""
        return self._length + sum(body.size for body in self._ranged)

    @property
    def bytes_read(self) -> int:
        """See `Loaded.bytes_read`."""
        return self._length + sum(body.bytes_read for body in self._ranged)

    def _open(self) -> ImageFile:
        # Late: few runs read arrays.
        from cellcount_core.images.zarr import open_array

        parts = {part.key: _had(part, body) for part, body in self._bodies.items()}
        return open_array(parts, self._key, self._max_pixels)

    def _let_go(self) -> None:
        self._bodies = {}


def _had(part: SourcePart, body: Body) -> Reader:
    """A reader of an object that is still the one that was planned. Raises FieldFault ABSENT, ACCESS_DENIED or CHANGED."""
    if isinstance(body, Absent | Denied):
        raise not_had(body)
    if isinstance(body, Ranged):
        return body
    if len(body) != part.size:
        detail = f"it had {part.size} bytes when the run was planned and has {len(body)} now"
        raise FieldFault(Reason.CHANGED, detail, part.key)
    return Whole(body)


def read_fields(
    store: Store, fields: Sequence[PlannedField], *, ahead: int, run: RunConfig
) -> Iterator[tuple[PlannedField, dict[str, Loaded]]]:
    """Yield each field with its files, by the keys of its sources, in order.

    Objects are read `ahead` of need, each once, however many fields share it. Of an object above WHOLE_LIMIT in a format that can
    be read in parts, only what is counted is read, while it is decoded; so are the other files of an OME set. Fields that planning
    already gave up come without files. Raises StorageFault or CredentialsFault if the store fails as a whole.
    """
    uses = Counter(part for planned in fields for part in planned.objects)
    shared = Counter(key for planned in fields for key in _files(planned))
    ranged = {part for planned in fields for part in _read_in_parts(planned)}
    declared = as_declared(run.axes, run.pages)
    held: dict[SourcePart, Body] = {}
    files: dict[str, LoadedFile] = {}
    whole = [part for part in uses if part not in ranged]
    bodies = zip(whole, store.get_many([part.key for part in whole], ahead=ahead), strict=True)
    for planned in fields:
        for part in planned.objects:
            if part in ranged:
                held.setdefault(part, Ranged(store, part.key, part.size))
            while part not in held:
                read, (_, body) = next(bodies)
                held[read] = body
        loaded: dict[str, Loaded] = dict(_arrays(planned, held, run.max_pixels))
        for key, source in _files(planned).items():
            if key not in files:
                files[key] = LoadedFile(
                    key,
                    held[source.objects[0]],
                    source.size,
                    run.max_pixels,
                    shared[key],
                    _pages(source, declared),
                    files_beside(store, key),
                )
            loaded[key] = files[key]
        yield planned, loaded
        for part in planned.objects:
            uses[part] -= 1
            if not uses[part]:
                del held[part]
                files.pop(part.key, None)


def _pages(source: Source, declared: Declared) -> Declared:
    """What is known of the axes of a file. If the plan says which page each image is, pages are images of their own."""
    tables = (
        declared == UNDECLARED
        and source.index >= 0
        and source.key.lower().endswith((*_READ_IN_PARTS, ".flex"))
    )
    return Declared(pages="each") if tables else declared


def _files(planned: PlannedField) -> dict[str, Source]:
    """Sources of a field that are one object each, by key."""
    if planned.reason is not None:
        return {}
    return {source.key: source for source in planned.sources if not source.parts}


def _arrays(
    planned: PlannedField, held: Mapping[SourcePart, Body], max_pixels: int
) -> Iterator[tuple[str, LoadedArray]]:
    """The arrays of a field, each with the parts that any of the field's sources needs."""
    parts: dict[str, dict[SourcePart, Body]] = {}
    for source in planned.sources if planned.reason is None else ():
        for part in source.parts:
            parts.setdefault(source.key, {})[part] = held[part]
    for key, bodies in parts.items():
        yield key, LoadedArray(key, bodies, max_pixels)


def _read_in_parts(planned: PlannedField) -> Iterator[SourcePart]:
    for source in planned.sources if planned.reason is None else ():
        for part in source.objects:
            if part.size > WHOLE_LIMIT and (source.parts or part.key.lower().endswith(_READ_IN_PARTS)):
                yield part
