"""What is wrong with an input before it is counted: by its names and metadata files, and by a bounded sample of its images.

All of it is told at once. A *stop* is what a plan would refuse; a *fault* makes fields fail, be missing, or be counted wrongly; a *note*
is worth knowing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from heapq import heappush, heappushpop
from itertools import groupby, islice

import numpy as np

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.images.reader import WHOLE_LIMIT, Ranged
from cellcount_core.plan.facts import KEPT_APART, known_names
from cellcount_core.plan.fields import (
    ChannelChoice,
    Names,
    expected_groups,
    select_channels,
)
from cellcount_core.plan.findings import left_out_lines, nothing_found, refuse_unparsed
from cellcount_core.plan.inspect import Inspected, PlateNames, plates
from cellcount_core.plan.rows import Row
from cellcount_core.stores.base import Absent, Denied, Store

OPENED = 48
"""Images that are opened and read."""

MOST_HASHED = 200
MOST_HASHED_BYTES = 512 << 20
"""Files, and their bytes, that are read to compare their content where the store does not tell it."""

_MOST_REMEMBERED = 500_000
_GROUPS = 24
_ODD_SIZES = 16
_USUAL = 0.9
_SHOWN = 5
_SAME_SIZE = 0.02


class Weight(StrEnum):
    """How much a finding matters."""

    STOP = "stop"
    FAULT = "fault"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that is wrong or worth knowing, in words."""

    weight: Weight
    told: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What was read from an image of the sample."""

    row: Row
    shape: tuple[int, int]
    dtype: str
    um_per_px: float | None
    blank: bool
    zero: bool


@dataclass(slots=True)
class Checked:
    """The findings about an input, and its measure: fields, files and bytes of the channels that would be read, and the pixels of an image.

    `choice` are the channels, None if they have to be chosen. `sampled` is how many images were opened.
    """

    findings: list[Remark] = field(default_factory=list)
    plates: list[PlateNames] = field(default_factory=list)
    fields: int = 0
    files: int = 0
    size: int = 0
    megapixels: float = 0.0
    sampled: int = 0
    choice: ChannelChoice | None = None

    def add(self, weight: Weight, told: Iterable[str]) -> None:
        """Note some findings of one weight."""
        self.findings += [Remark(weight, each) for each in told]


def checked(store: Store, seen: Inspected, roles: Sequence[str]) -> Checked:
    """Everything that can be told about an input for a model of these `roles`, without counting it.

    Reads at most `OPENED` images and `MOST_HASHED` files more. Memory grows with the wells, not with the files, beyond half a million of them. The store's faults pass.
    """
    found, run = seen.discovery.found, seen.run
    told = Checked()
    if run.unparsed == "refuse":
        told.add(Weight.STOP, _refusal(lambda: refuse_unparsed(found)))
    told.add(Weight.NOTE, left_out_lines(found))
    for warning in seen.discovery.facts.warnings:
        told.add(Weight.NOTE if warning.startswith(KEPT_APART) else Weight.FAULT, [warning])
    if not len(seen.discovery.sorter):
        told.add(Weight.STOP, [str(nothing_found(found, store.url))])
        return told
    names = known_names(store, run, seen.discovery.facts.plates, found.channels, seen.discovery.rows)
    _choose_channels(told, run, roles, found.channels, names)
    told.plates = list(plates(seen))
    for plate in told.plates:
        told.add(Weight.FAULT, _of_wells(plate))
        for channel, why in _of_channels(plate):
            # A channel that is neither counted nor measured may be missing.
            wanted = told.choice is None or channel in map(told.choice.in_files, told.choice.wanted)
            told.add(Weight.FAULT if wanted else Weight.NOTE, [why])
    told.fields = sum(plate.fields for plate in told.plates)
    told.add(Weight.FAULT, _missing(seen))
    told.add(Weight.FAULT, _of_files(seen.discovery.rows()))
    _measure(told, seen)
    sample = _sample(seen.discovery.rows())
    _open(told, store, seen, sample)
    told.add(Weight.FAULT, _twice(store, seen.discovery.rows()))
    return told


def _refusal(act: Callable[[], None]) -> Iterator[str]:
    """The message of the ConfigFault that a call raises, if it does."""
    try:
        act()
    except ConfigFault as fault:
        yield str(fault)


def _choose_channels(
    told: Checked, run: RunConfig, roles: Sequence[str], seen: frozenset[str], names: Names
) -> None:
    try:
        told.choice = select_channels(run, roles, seen, names)
    except ConfigFault as fault:
        # Channels that nobody asked for are no fault of the input.
        told.add(Weight.STOP if run.channels or run.measure else Weight.NOTE, [str(fault)])


def _of_wells(plate: PlateNames) -> Iterator[str]:
    """Wells with other numbers of sites than most."""
    if odd := plate.odd_wells:
        shown = ", ".join(f"{well} {sites}" for well, sites in islice(odd.items(), _SHOWN))
        yield (
            f"plate {plate.plate!r}: {len(odd)} of {len(plate.wells)} wells have another number of sites than most ({plate.usual_sites}):"
            f" {shown}{', …' if len(odd) > _SHOWN else ''}"
        )


def _of_channels(plate: PlateNames) -> Iterator[tuple[str, str]]:
    """Channels that some fields of a plate have and others do not, each with that in words."""
    for channel, where in sorted(plate.without.items()):
        number = plate.fields - plate.channels[channel]
        yield (
            channel,
            f"plate {plate.plate!r}: {number} of {plate.fields} fields have no file of channel {channel or '(none in the name)'!r}, such as {where}",
        )


def _missing(seen: Inspected) -> Iterator[str]:
    """Fields that metadata states, or `run.expect` asks for, and of which there is no file."""
    facts = seen.discovery.facts.plates
    groups = expected_groups(seen.discovery.rows, seen.run.expect, facts, lambda: iter(()))
    for plate, each in groupby(groups, lambda group: group.place[0]):
        absent, why, example = 0, "", ""
        for group in each:
            if not group.rows:
                absent += 1
                why = why or group.why
                example = example or f"{group.place[1]} site {group.place[2]} time {group.place[3]}"
        if absent:
            yield f"plate {plate!r}: {absent} {'field is' if absent == 1 else 'fields are'} missing, such as {example}: {why}"


def _of_files(rows: Iterable[Row]) -> Iterator[str]:
    """Files of 0 bytes, files known to be of no use, and files that claim the same place."""
    empty: list[str] = []
    useless: dict[str, list[str]] = defaultdict(list)
    twice: list[tuple[str, str]] = []
    before: Row | None = None
    for row in rows:
        if row.reason:
            useless[row.reason].append(f"{row.key}: {row.detail}")
        elif not row.size:
            empty.append(row.key)
        if before is not None and before[:6] == row[:6] and before.key != row.key:
            twice.append((before.key, row.key))
        before = row
    if empty:
        yield f"{len(empty)} {'file has' if len(empty) == 1 else 'files have'} 0 bytes, such as {empty[0]}"
    for reason, files in sorted(useless.items()):
        yield f"{len(files)} {'file' if len(files) == 1 else 'files'} cannot be counted ({reason}), such as {files[0]}"
    if twice:
        first, second = twice[0]
        yield f"{len(twice)} files claim the place of another one (same field, channel and plane), such as {first} and {second}"


def _measure(told: Checked, seen: Inspected) -> None:
    """The files and bytes of the channels that would be read; of all channels, shared evenly, if they have to be chosen."""
    wanted = None if told.choice is None else {told.choice.in_files(each) for each in told.choice.wanted}
    channels = {row.channel for row in seen.discovery.rows()}
    share = 1 if wanted is not None else max(1, len(channels))
    for row in seen.discovery.rows():
        if wanted is None or row.channel in wanted or row.channel == "":
            told.files += 1
            told.size += row.size
    told.files, told.size = -(-told.files // share), told.size // share


def _sample(rows: Iterable[Row]) -> list[Row]:
    """Some images of each plate and channel, and those of an odd size among files of one size. The same for every order of the listing."""
    held: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    sizes: dict[str, Counter[int]] = {}
    odd: dict[tuple[str, int], Row] = {}
    for row in rows:
        if row.reason or not row.size or row.parts:
            continue
        sizes.setdefault(row.plate, Counter())[row.size] += 1
        if len(odd) < _MOST_REMEMBERED:
            odd.setdefault((row.plate, row.size), row)
        group = (row.plate, row.channel)
        if group not in held and len(held) == _GROUPS:
            continue
        # A heap of the smallest hashes: evenly spread, and the same whatever the order.
        digest = -int.from_bytes(blake2b(row.key.encode("utf-8", "surrogateescape"), digest_size=7).digest())
        heap = held.setdefault(group, [])
        (heappush if len(heap) < OPENED else heappushpop)(heap, (digest, row))
    each = max(1, OPENED // max(1, len(held)))
    chosen = [row for heap in held.values() for _, row in sorted(heap, reverse=True)[:each]]
    for plate, numbers in sizes.items():
        usual, number = numbers.most_common(1)[0]
        if number >= _USUAL * numbers.total():
            outliers = sorted(size for size in numbers if size != usual)[:_ODD_SIZES]
            chosen += [odd[plate, size] for size in outliers if (plate, size) in odd]
    return sorted({row.key: row for row in chosen}.values())


def _open(told: Checked, store: Store, seen: Inspected, sample: Sequence[Row]) -> None:
    """Open the images of the sample and note what is odd about them."""
    opened: list[Opened] = []
    faults: dict[str, list[str]] = defaultdict(list)
    for row in sample:
        try:
            opened.append(_opened(store, row, seen.run))
        except FieldFault as fault:
            faults[fault.reason.value].append(f"{row.key}: {fault.detail}")
        except (Absent, Denied) as fault:
            faults["unreadable"].append(str(fault))
    told.sampled = len(sample)
    for reason, files in sorted(faults.items()):
        told.add(
            Weight.FAULT,
            [f"{len(files)} of {len(sample)} images opened cannot be read ({reason}), such as {files[0]}"],
        )
    if opened:
        told.megapixels = float(np.mean([one.shape[0] * one.shape[1] for one in opened])) / 1e6
    told.add(Weight.FAULT, _blank(opened))
    for plate, group in groupby(sorted(opened, key=lambda one: one.row), lambda one: one.row.plate):
        images = list(group)
        told.add(Weight.FAULT, _mixed(plate, images))
        told.findings += _pixel_size(plate, images, seen)


def _opened(store: Store, row: Row, run: RunConfig) -> Opened:
    from cellcount_core.images.decode import open_image
    from cellcount_core.images.imagefile import as_declared
    from cellcount_core.stores.base import files_beside

    body = store.get(row.key) if row.size <= WHOLE_LIMIT else Ranged(store, row.key, row.size)
    image = open_image(
        body,
        row.key,
        max_pixels=run.max_pixels,
        declared=as_declared(run.axes, run.pages),
        beside=files_beside(store, row.key),
    )
    plane = image.read(image.channels[0], 0, max(row.slice_index, 0))
    low, high = plane.min(), plane.max()
    return Opened(
        row, image.shape, str(plane.dtype), image.um_per_px, bool(low == high), bool(high == low == 0)
    )


def _blank(opened: Sequence[Opened]) -> Iterator[str]:
    for what, some in (
        ("zeros alone", [one for one in opened if one.zero]),
        ("one value alone", [one for one in opened if one.blank and not one.zero]),
    ):
        if some:
            yield f"{len(some)} of {len(opened)} images opened hold {what}, such as {some[0].row.key}"


def _mixed(plate: str, images: Sequence[Opened]) -> Iterator[str]:
    """Images of one plate that differ in size or type."""
    for what, values in (
        ("sizes", {f"{one.shape[1]} x {one.shape[0]} px": one for one in reversed(images)}),
        ("pixel types", {one.dtype: one for one in reversed(images)}),
    ):
        if len(values) > 1:
            shown = ", ".join(f"{value} ({one.row.key})" for value, one in islice(values.items(), _SHOWN))
            yield f"plate {plate!r}: images of several {what}: {shown}"


def _pixel_size(plate: str, images: Sequence[Opened], seen: Inspected) -> Iterator[Remark]:
    """Whether the pixel size of a plate is known, and by whom; where the sources differ, a fault."""
    given, facts = seen.run.um_per_px, seen.discovery.facts.plates.get(plate)
    stated = None if facts is None else facts.um_per_px
    inside = sorted({round(one.um_per_px, 4) for one in images if one.um_per_px is not None})
    known = [
        *([("run.um_per_px", given)] if given is not None else []),
        *([(facts.source, stated)] if facts is not None and stated is not None else []),
        *((f"image files ({_with_size(images, size)})", size) for size in inside),
    ]
    if not known:
        yield Remark(
            Weight.NOTE,
            f"plate {plate!r}: the pixel size is not known, neither from metadata nor from image files: give it with --um-per-px if lengths in µm"
            " matter",
        )
        return
    first, size = known[0]
    others = [
        f"{value:g} µm by {source}" for source, value in known[1:] if abs(value - size) > _SAME_SIZE * size
    ]
    if others:
        yield Remark(
            Weight.FAULT,
            f"plate {plate!r}: contradicting pixel sizes: {size:g} µm by {first}, which is used, {', '.join(others[:_SHOWN])}",
        )
    else:
        yield Remark(Weight.NOTE, f"plate {plate!r}: {size:g} µm per px, by {first}")


def _with_size(images: Sequence[Opened], size: float) -> str:
    return next(
        one.row.key for one in images if one.um_per_px is not None and round(one.um_per_px, 4) == size
    )


def _twice(store: Store, rows: Iterable[Row]) -> Iterator[str]:
    """Files of the same content: by the store's tags where they are digests of the content, otherwise a bounded number is read.

    Only files of equal size are compared, those of rare sizes first.
    """
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    by_content = store.url.startswith("s3://")
    number = 0
    seen: set[str] = set()
    for row in rows:
        if row.reason or not row.size or row.parts or row.key in seen:
            continue
        seen.add(row.key)
        number += 1
        if number > _MOST_REMEMBERED:
            break
        alike[row.size, row.etag if by_content else ""].append(row.key)
    groups = [(size, keys) for (size, _), keys in alike.items() if len(keys) > 1]
    compared = sum(len(keys) for _, keys in groups) if by_content else 0
    if not by_content:
        groups, compared = _of_equal_content(store, groups)
    more = sum(len(keys) - 1 for _, keys in groups)
    if more:
        first = min(keys for _, keys in groups)
        yield (
            f"{more} {'file has' if more == 1 else 'files have'} the content of another one, such as {first[0]} and {first[1]}"
            + ("" if by_content else f" ({compared} files of equal sizes were compared)")
        )


def _of_equal_content(
    store: Store, groups: Sequence[tuple[int, list[str]]]
) -> tuple[list[tuple[int, list[str]]], int]:
    """The groups of equal content among files of equal size, and how many files were read."""
    left, bytes_left = MOST_HASHED, MOST_HASHED_BYTES
    found: list[tuple[int, list[str]]] = []
    for size, keys in sorted(groups, key=lambda group: (len(group[1]), group[1])):
        some = sorted(keys)[: min(left, bytes_left // size)]
        if len(some) < 2:
            continue
        left, bytes_left = left - len(some), bytes_left - size * len(some)
        contents: dict[bytes, list[str]] = defaultdict(list)
        for key in some:
            try:
                contents[blake2b(store.get(key), digest_size=16).digest()].append(key)
            except (Absent, Denied):
                continue
        found += [(size, each) for each in contents.values() if len(each) > 1]
    return found, MOST_HASHED - left
