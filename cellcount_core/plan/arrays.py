"""Inputs whose images are arrays: listed chunks are joined with the arrays that metadata names, one row per channel and time point.

A plate of arrays has many objects. Only the key, size and tag of each chunk are kept, sorted on disk; metadata objects are kept in
memory while the input is planned. The parts of a row are the objects of the counted level, of one channel, and of the planes that
`run.z` needs. Counting reads nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey, Parsed, parts_tag
from cellcount_core.domain.ngff import ZarrArray
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.arrays import ArrayAt, Arrays, Nodes
from cellcount_core.layouts.base import Ignored
from cellcount_core.plan.facts import Facts, joined
from cellcount_core.plan.findings import NO_PATH, Findings
from cellcount_core.plan.rows import Row, Sorter, row_of
from cellcount_core.stores.base import Listed, Store, addressable

MOST_NODES = 500_000
"""Metadata objects of one input: each group and array has one or two."""

ZMode = str | int
LeftOut = Callable[[str], Ignored | None]
Stored = Mapping[str, tuple[int, str]]
"""Size and tag of the objects of an array, by their paths below it."""

_OTHER = "chunks that are not counted: other resolutions, or of no image"


@dataclass(frozen=True, slots=True)
class Selected:
    """Which objects and images of an input are planned.

    `object_left_out` decides by the key of a listed object, `image_left_out` by the path of an image's array. `z` is `run.z`. `channels`
    are the channels asked for, () if none was; the parts of other channels are not kept.
    """

    object_left_out: LeftOut
    image_left_out: LeftOut
    z: ZMode
    channels: tuple[str, ...]

    def wants(self, channel: str) -> bool:
        """Whether a channel of this name may be asked for."""
        return not self.channels or channel.casefold() in (name.casefold() for name in self.channels)


def read_arrays(
    store: Store,
    batches: Iterable[list[Listed]],
    arrays: Arrays,
    selected: Selected,
    found: Findings,
    sorter: Sorter,
    chunks: Sorter,
) -> Facts:
    """Fill `sorter` with the rows of all images of the input; `batches` is its listing, `chunks` an empty sorter.

    Raises ConfigFault as `Arrays.walk`, and for more than half a million metadata objects; store faults pass.
    """
    nodes = Nodes()
    for batch in batches:
        for listed in batch:
            found.files += 1
            _take(listed, arrays, selected, found, nodes, chunks)
    if nodes.number > MOST_NODES:
        raise ConfigFault(
            f"{store.url}: there are {nodes.number:,} groups and arrays, and {MOST_NODES:,} are read at most; count the plates one by one"
        )
    images, plates, warnings = list[ArrayAt](), list[PlateFacts](), list[str]()
    for each in arrays.walk(store, nodes):
        if isinstance(each, PlateFacts):
            plates.append(each)
        elif isinstance(each, str):
            warnings.append(each)
        elif (why := selected.image_left_out(each.path)) is not None:
            found.leave_out(each.path, why.why)
        else:
            images.append(each)
    for image, stored in _joined(images, chunks, found):
        for row in _rows(image, stored, selected):
            # A channel that is not known is not one without a name.
            note = found.add_image if row.channel or not row.reason else found.add_plate
            note(_parsed(row))
            sorter.add(row)
    if len(sorter) and not found.channels:
        found.add_image(_parsed(next(Row._make(row) for row in sorter.rows())))
    stated = {(one.plate, one.folder): one for one in plates}
    return joined({of: one for of, one in stated.items() if of in found.acquisitions}, found, warnings)


def _take(
    listed: Listed, arrays: Arrays, selected: Selected, found: Findings, nodes: Nodes, chunks: Sorter
) -> None:
    key = listed.key
    if not key.isascii() and key != key.encode("utf-8", "backslashreplace").decode("utf-8"):
        found.add_not_text(key.encode("utf-8", "backslashreplace").decode("utf-8"))
        return
    why = Ignored(NO_PATH) if not addressable(key) else selected.object_left_out(key)
    node = why or arrays.node(key)
    if isinstance(node, Ignored):
        found.leave_out(key, node.why)
    elif node is not None:
        nodes.add(*node, listed)
    else:
        chunks.add((key, listed.size, listed.etag))


def _joined(images: list[ArrayAt], chunks: Sorter, found: Findings) -> Iterator[tuple[ArrayAt, Stored]]:
    """Yield each image with the objects below the path of its array. Both come in the order of their keys."""
    upcoming = chunks.rows()
    chunk = next(upcoming, None)
    for image in sorted(images, key=lambda image: f"{image.path}/"):
        prefix = f"{image.path}/"
        while chunk is not None and str(chunk[0]) < prefix:
            found.leave_out(str(chunk[0]), _OTHER)
            chunk = next(upcoming, None)
        stored: dict[str, tuple[int, str]] = {}
        while chunk is not None and str(chunk[0]).startswith(prefix):
            key, size, etag = chunk
            stored[str(key)[len(prefix) :]] = (int(str(size)), str(etag))
            chunk = next(upcoming, None)
        yield image, stored
    while chunk is not None:
        found.leave_out(str(chunk[0]), _OTHER)
        chunk = next(upcoming, None)


def _rows(image: ArrayAt, stored: Stored, selected: Selected) -> Iterator[Row]:
    """Yield a row for each time point and channel of an image, or one row with the reason if the image cannot be counted."""
    array = image.array
    if array is None or image.reason is not None:
        parsed = Parsed(image.field, "", 0, image.folder)
        reason = Reason.UNREADABLE if image.reason is None else image.reason
        yield row_of(parsed, image.path, reason=reason.value, detail=image.detail)
        return
    sizes = dict(zip(image.axes, array.shape, strict=True))
    times = sizes.get("t", 1)
    for time in range(times):
        for number, channel in enumerate(image.channels):
            field = image.field
            key = FieldKey(field.plate, field.well, field.site, time + 1)
            parsed = Parsed(key, channel, 0, image.folder)
            if channel and not selected.wants(channel):
                yield row_of(parsed, image.path)
                continue
            at = {"t": time, "c": number, "z": _plane(selected.z, sizes.get("z", 1))}
            chosen = {axis: at[name] for axis, name in enumerate(image.axes) if name in at}
            yield _row(image, array, parsed, time if times > 1 else -1, chosen, stored)


def _plane(z: ZMode, planes: int) -> int | None:
    """The plane whose chunks are needed, from 0; None for all planes.

    The first for a plane that is not there: reading the image then reports it.
    """
    if z == "first":
        return 0
    if not isinstance(z, int):
        return None
    return z - 1 if 1 <= z <= planes else 0


def _row(
    image: ArrayAt,
    array: ZarrArray,
    parsed: Parsed,
    index: int,
    chosen: Mapping[int, int | None],
    stored: Stored,
) -> Row:
    names = [array.chunk_name(at) for at in array.chunks_of(chosen)]
    there = [name for name in names if name in stored]
    if not there:
        what = f"channel {parsed.channel!r}: " if parsed.channel else ""
        detail = f"{what}none of the {len(names)} chunks of this array was ever written; as an image it would be of one value alone"
        return row_of(parsed, image.path, index=index, reason=Reason.ABSENT.value, detail=detail)
    parts = [(one.key, one.size, one.etag) for one in image.metadata]
    parts += [(f"{image.path}/{name}", *stored[name]) for name in there]
    return row_of(
        parsed,
        image.path,
        index=index,
        size=sum(size for _, size, _ in parts),
        etag=parts_tag(parts),
        parts=tuple((key, size) for key, size, _ in parts),
    )


def _parsed(row: Row) -> Parsed:
    return Parsed(FieldKey(row.plate, row.well, row.site, row.timepoint), row.channel, row.plane, row.folder)
