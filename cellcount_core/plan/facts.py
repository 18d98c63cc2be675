"""What metadata files state of the plates of a listing: it is read, joined with the plates by folder and name, and compared with the
files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.layouts.base import Layout
from cellcount_core.layouts.metadata import Unreadable
from cellcount_core.plan.fields import Names, unknown_channels
from cellcount_core.plan.findings import Acquisition, Findings, SidecarFile
from cellcount_core.plan.rows import Row
from cellcount_core.stores.base import Absent, Denied, Store

MOST_SIDECARS = 20_000
"""Metadata files of one input; there is one a plate, or a few."""

KEPT_APART = "plates of one name in several folders are kept apart as plate@folder"

LEADS_NOWHERE = "leads nowhere: a broken link, or a file that went away while it was listed"
_BY_NAMES = "the plate is planned from its file names alone"
_SHOWN = 5
_MOST_WARNINGS = 20
_MOST_IMAGES = 32


Acquired = tuple[str, str]
"""A plate as file names call it, and the folder that its files lie in."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What metadata files state: `plates` by their names in the plan, and `warnings` for the user.

    `names` holds the plates whose name in the plan differs from the one in file names.
    """

    plates: Mapping[str, PlateFacts] = field(default_factory=dict)
    names: Mapping[Acquired, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_facts(store: Store, layout: Layout, found: Findings) -> Facts:
    """Read the metadata files of a listing, one folder at a time, and join them with the plates that were found.

    `warnings` say which metadata files cannot be read, describe no plate of the listing, or contradict the files; in all these cases
    only what the files show is planned. Raises ConfigFault if there are more than 20,000 metadata files, and the store's faults.
    """
    warnings = [
        f"{folder} is a folder with the name of a metadata file, and is not read as one: put the file itself there, if there is one"
        for folder in sorted(found.metadata_folders)
    ]
    stated = _stated(store, layout, found, warnings)
    return joined(stated, found, warnings)


def joined(stated: Mapping[Acquired, PlateFacts], found: Findings, warnings: list[str]) -> Facts:
    """Join what is `stated` with the plates that were found, under their names in the plan.

    A plate has the name that its metadata gives, or else the one in its file names. Plates with the same name in several folders are
    called `<plate>@<folder>`.
    """
    names = {of: (stated[of].name if of in stated else "") or of[0] for of in found.acquisitions}
    several = {name for name, number in Counter(names.values()).items() if number > 1}
    if several:
        shown = ", ".join(map(repr, sorted(several)[:_SHOWN])) + (", …" if len(several) > _SHOWN else "")
        warnings.append(f"{KEPT_APART}: {shown}")
    names = {of: f"{name}@{of[1]}" if name in several and of[1] else name for of, name in names.items()}
    for of, facts in stated.items():
        warnings += _contradictions(names[of], facts, found.acquisitions[of])
    return Facts(
        {names[of]: facts for of, facts in stated.items()},
        {of: name for of, name in names.items() if name != of[0]},
        tuple(_shortened(warnings)),
    )


def _stated(store: Store, layout: Layout, found: Findings, warnings: list[str]) -> dict[Acquired, PlateFacts]:
    if len(found.sidecars) > MOST_SIDECARS:
        raise ConfigFault(
            f"{store.url}: there are {len(found.sidecars)} metadata files such as {next(iter(found.sidecars.values())).key!r}; "
            f"{MOST_SIDECARS} are read at most. Count the folders one by one, or leave the files out with run.exclude"
        )
    folders: defaultdict[str, list[SidecarFile]] = defaultdict(list)
    for (folder, _), sidecar in sorted(found.sidecars.items()):
        folders[folder].append(sidecar)
    stated: dict[Acquired, PlateFacts] = {}
    copies = {found.sidecars[place].key: those for place, those in found.copies.items()}
    for files in folders.values():
        for facts in _described(store, layout, files, warnings, copies):
            warnings += [f"{facts.source}: {note}" for note in facts.notes]
            of = _plate_of(facts, found)
            if of is None:
                called = facts.name or facts.plate
                warnings.append(
                    f"{facts.source} describes the plate {called!r}, and there are no images of it"
                )
            elif of in stated:
                warnings.append(
                    f"{facts.source} describes the plate {of[0]!r} a second time, after {stated[of].source}; it is not used"
                )
            else:
                stated[of] = facts
    return stated


def _shortened(warnings: list[str]) -> list[str]:
    """The first few warnings, and how many more there are: nobody reads a line for each of a thousand plates."""
    if len(warnings) <= _MOST_WARNINGS:
        return warnings
    return [*warnings[:_MOST_WARNINGS], f"… and {len(warnings) - _MOST_WARNINGS} more of metadata files"]


def against_images(store: Store, facts: Facts, rows: Iterable[Row], max_pixels: int) -> Facts:
    """The facts, with a warning for each plate whose first image has another shape than its metadata states.

    At most 32 images are opened. An image that cannot be read is ignored here.
    """
    stated = {plate: one for plate, one in facts.plates.items() if one.image_shape is not None}
    stated = dict(islice(stated.items(), _MOST_IMAGES))
    warnings: list[str] = []
    for row in rows:
        if not stated:
            break
        if row.plate not in stated or not row.size or row.reason:
            continue
        one = stated.pop(row.plate)
        shape = _shape_in(store, row, max_pixels)
        if shape is not None and shape != one.image_shape:
            warnings.append(
                f"plate {row.plate!r}: {row.key} has {_sides(shape)} px, and {one.source} states {_sides(one.image_shape)} px; what is there "
                f"is counted{_doubtful_size(one)}"
            )
    return replace(facts, warnings=(*facts.warnings, *_shortened(warnings))) if warnings else facts


def _sides(shape: tuple[int, int] | None) -> str:
    """Width and height, in the order in which instruments and viewers give them."""
    return "" if shape is None else f"{shape[1]} x {shape[0]}"


def _doubtful_size(facts: PlateFacts) -> str:
    if facts.um_per_px is None:
        return ""
    return (
        f", and the stated pixel size of {facts.um_per_px:g} µm may be that of other images: give the right one with "
        "--set run.um_per_px=PIXELSIZE"
    )


def _shape_in(store: Store, row: Row, max_pixels: int) -> tuple[int, int] | None:
    from cellcount_core.images.decode import open_image

    try:
        return open_image(store.get(row.key), row.key, max_pixels=max_pixels).shape
    except (FieldFault, Absent, Denied):
        return None


def known_names(
    store: Store,
    run: RunConfig,
    facts: Mapping[str, PlateFacts],
    seen: Collection[str],
    rows: Callable[[], Iterable[Row]],
) -> Names:
    """What instruments call the channels that are `seen` in file names: by metadata files and, if one is asked for that is not among those, by
    the headers of images too."""
    names = channel_names(facts, seen)
    if not unknown_channels(run, seen, names):
        return names
    return {**names_in_images(store, rows(), run.max_pixels), **names}


def channel_names(facts: Mapping[str, PlateFacts], seen: Collection[str]) -> Names:
    """What instruments call the channels that are `seen` in file names, according to metadata files."""
    stated = ((plate, *each) for plate, one in facts.items() for each in one.channels)
    return _named((plate, channel, name) for plate, channel, name in stated if channel in seen)


def names_in_images(store: Store, rows: Iterable[Row], max_pixels: int) -> Names:
    """What instruments call the channels, according to the headers of images: one image of each plate and channel, at most 32 in all.

    Images that cannot be read are ignored.
    """
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.channel and row.size and not row.reason and (row.plate, row.channel) not in first:
            if len(first) == _MOST_IMAGES:
                break
            first[row.plate, row.channel] = row
    return _named(
        (plate, channel, _name_in(store, row, max_pixels)) for (plate, channel), row in first.items()
    )


def _name_in(store: Store, row: Row, max_pixels: int) -> str:
    from cellcount_core.images.decode import open_image

    try:
        channels = open_image(store.get(row.key), row.key, max_pixels=max_pixels).channels
    except (FieldFault, Absent, Denied):
        return ""
    return channels[0] if len(channels) == 1 else ""


def _named(stated: Iterable[tuple[str, str, str]]) -> Names:
    """Collect `Names` from triples of plate, channel and name."""
    names: dict[str, dict[str, list[str]]] = {}
    for plate, channel, name in stated:
        if name:
            names.setdefault(name, {}).setdefault(channel, []).append(plate)
    return names


def _described(
    store: Store,
    layout: Layout,
    files: list[SidecarFile],
    warnings: list[str],
    copies: Mapping[str, Sequence[SidecarFile]],
) -> Iterator[PlateFacts]:
    """Yield what the metadata files of one folder state. `copies` holds the copies of each file, by its key."""
    bodies: dict[str, bytes] = {}
    for file in files:
        if file.size > file.most_bytes:
            warnings.append(
                f"{file.key}: has {file.size:,} bytes, more than the {file.most_bytes:,} up to which metadata files are read; {_BY_NAMES}"
            )
            continue
        try:
            bodies[file.key] = store.get(file.key)
        except Absent:
            warnings.append(f"{file.key} {LEADS_NOWHERE}; {_BY_NAMES}")
            continue
        except Denied as fault:
            warnings.append(f"{fault}; {_BY_NAMES}")
            continue
        others = [
            each.key for each in sorted(copies.get(file.key, ())) if _differs(store, each, bodies[file.key])
        ]
        if others:
            more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            warnings.append(
                f"{others[0]}{more} says otherwise than {file.key}, which is used: the two should be copies of each other"
            )
    if not bodies:
        return
    try:
        yield from layout.describe(bodies)
    except Unreadable as fault:
        warnings.append(f"{fault}; {_BY_NAMES}")


def _differs(store: Store, copy: SidecarFile, body: bytes) -> bool:
    """Whether a copy of a metadata file differs from `body`. A copy that cannot be read counts as equal."""
    if copy.size != len(body):
        return True
    try:
        return store.get(copy.key) != body
    except (Absent, Denied):
        return False


def _plate_of(facts: PlateFacts, found: Findings) -> Acquired | None:
    """The plate that these facts describe: the one with its name in its folder, or else the only plate of that folder."""
    if (facts.plate, facts.folder) in found.acquisitions:
        return facts.plate, facts.folder
    there = [of for of in found.acquisitions if of[1] == facts.folder]
    return there[0] if len(there) == 1 else None


def _contradictions(plate: str, facts: PlateFacts, seen: Acquisition) -> list[str]:
    """Where the metadata contradicts the files, in words. What the files show is planned."""
    told: list[str] = []
    if facts.timepoints is not None and facts.timepoints != len(seen.timepoints):
        told.append(f"{_number(facts.timepoints, 'time point')} (files are of {len(seen.timepoints)})")
    stacked = len(seen.planes - {0})
    # Plane 0 is a projection, or the first of a stack that counts from 0.
    if facts.planes is not None and stacked and facts.planes not in (stacked, len(seen.planes)):
        told.append(f"{_number(facts.planes, 'z plane')} (files are of {stacked})")
    absent = [
        f"{channel} ({name})" if name else channel
        for channel, name in facts.channels
        if channel not in seen.channels
    ]
    if facts.channels and absent:
        told.append(f"the channels {', '.join(absent[:_SHOWN])} (no file is of them)")
    if not told:
        return []
    return [f"plate {plate!r}: {facts.source} states {', '.join(told)}; what is there is counted"]


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
