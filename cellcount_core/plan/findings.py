"""The numbers of a plan: files are counted while they are listed (`Findings`), fields while they are planned (`Census`, `PlanSummary`)."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cellcount_core.domain.errors import ConfigFault
from cellcount_core.domain.fields import Parsed, PlannedField
from cellcount_core.domain.plates import PlateFacts
from cellcount_core.domain.scales import PlateNumbers, PlateSize
from cellcount_core.layouts.base import NO_EXTENSION, OF_ZARR, Sidecar, is_derived, is_unread, is_unread_photo
from cellcount_core.stores.base import Listed

EXAMPLES = 10
"""How many of the names that do not parse are shown: the first in sorted order."""

MOST_COPIES = 20
"""How many copies of a metadata file (of one size) are compared with the one that is read."""

_SHOWN_WHYS = 8

NO_PATH = "key with an empty, '.' or '..' folder or a control character, which names no file; copy it to another name to count it"
MARKER = "marker of a folder"
LINKED = "link to a file that is counted"
NOT_INCLUDED = "not in run.include"
EXCLUDED = "in run.exclude"

COUNT_THEM = "to count them like images: --set run.masks=count"
CONVERT_THEM = "to count them, save them as TIFF first (Fiji, bfconvert)"
CONVERT_PHOTOS = "to count them, save them as PNG or TIFF first, in a program for photos"
NAME_THEM = "to count them, give them names that end as images do (.tif, .png, .jpg)"

_WAYS = (
    (is_derived, COUNT_THEM), (is_unread, CONVERT_THEM), (is_unread_photo, CONVERT_PHOTOS), (NO_EXTENSION.__eq__, NAME_THEM),
)  # fmt: skip
"""What a user may do about files that are left out, by the reason."""


def warned_of(why: str) -> bool:
    """Whether files left out for the reason `why` deserve a warning, because the user may have wanted them counted."""
    return any(concerns(why) for concerns, _ in _WAYS) or why in (NO_PATH, MARKER, LINKED, OF_ZARR)


@dataclass(slots=True)
class Acquisition:
    """What file names tell of one plate in one folder. `numbered` are the running numbers of wells that are only numbered."""

    channels: set[str] = field(default_factory=set)
    timepoints: set[int] = field(default_factory=set)
    planes: set[int] = field(default_factory=set)
    numbered: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True, order=True)
class SidecarFile:
    """A metadata file: the number of folders above it, its key, its size, and the largest size that is read (both in bytes)."""

    depth: int
    key: str
    size: int
    most_bytes: int


@dataclass(slots=True)
class Findings:
    """Tallies of one listing. Memory grows with the number of plates, not with the number of files.

    `unparsed` counts images whose names cannot be read, `not_text` those of them whose names are not UTF-8. `ignored` counts
    other files by the reason for leaving them alone; `ignored_examples` has the first name of each in sorted order.
    `acquisitions` is what was seen of each plate in each folder, `sidecars` the metadata files by folder and name, `copies` those of the same place
    that lie deeper (some of them).
    `metadata_folders` are folders that have the name of a metadata file. `conventions` counts images by the instrument whose names theirs look like, if the layout reads any name.
    """

    files: int = 0
    ignored: Counter[str] = field(default_factory=Counter)
    ignored_examples: dict[str, str] = field(default_factory=dict)
    unparsed: int = 0
    unparsed_examples: list[str] = field(default_factory=list)
    not_text: int = 0
    not_text_examples: list[str] = field(default_factory=list)
    acquisitions: dict[tuple[str, str], Acquisition] = field(default_factory=dict)
    sidecars: dict[tuple[str, str], SidecarFile] = field(default_factory=dict)
    copies: dict[tuple[str, str], list[SidecarFile]] = field(default_factory=dict)
    images: int = 0
    conventions: Counter[str] = field(default_factory=Counter)
    metadata_folders: set[str] = field(default_factory=set)

    def leave_out(self, key: str, why: str) -> None:
        """Count a file that is not planned, with the reason."""
        self.ignored[why] += 1
        if key < self.ignored_examples.get(why, "\U0010ffff"):
            self.ignored_examples[why] = key

    def add_unparsed(self, key: str) -> None:
        """Count an image whose name does not parse."""
        self.unparsed += 1
        _keep_first(self.unparsed_examples, key)

    def add_not_text(self, key: str) -> None:
        """Count an image whose name is not UTF-8, so that no table can hold it; it counts as unparsed too."""
        self.add_unparsed(key)
        self.not_text += 1
        _keep_first(self.not_text_examples, key)

    def add_image(self, parsed: Parsed) -> None:
        """Count an image whose name is read."""
        self.images += 1
        place = (parsed.field.plate, parsed.folder)
        if (seen := self.acquisitions.get(place)) is None:
            seen = self.acquisitions[place] = Acquisition()
        seen.channels.add(parsed.channel)
        seen.timepoints.add(parsed.field.timepoint)
        seen.planes.add(parsed.plane)
        if parsed.numbered:
            seen.numbered.add(parsed.numbered)

    def add_plate(self, parsed: Parsed) -> None:
        """Note the plate of an image about which nothing else is known."""
        self.acquisitions.setdefault((parsed.field.plate, parsed.folder), Acquisition())

    def add_sidecar(self, listed: Listed, sidecar: Sidecar) -> None:
        """Note a metadata file. If there are several copies, the one in the highest folder is kept, and the first by key among equals."""
        place = (sidecar.folder, sidecar.name)
        file = SidecarFile(listed.key.count("/"), listed.key, listed.size, sidecar.most_bytes)
        kept = self.sidecars.setdefault(place, file)
        if kept == file:
            return
        self.sidecars[place] = min(file, kept)
        if not sidecar.alike:
            return
        copies = self.copies.setdefault(place, [])
        # Of those of one size the first are compared, of others one is enough to tell.
        if sum(each.size == max(file, kept).size for each in copies) < MOST_COPIES:
            copies.append(max(file, kept))

    @property
    def channels(self) -> frozenset[str]:
        """The channels in file names, with "" among them if some names do not tell a channel."""
        return frozenset(channel for seen in self.acquisitions.values() for channel in seen.channels)


def refuse_unparsed(found: Findings) -> None:
    """Raise ConfigFault if there are images whose names cannot be read (`run.unparsed=refuse`)."""
    if not found.unparsed:
        return
    told = []
    if unread := found.unparsed - found.not_text:
        examples = [key for key in found.unparsed_examples if key not in found.not_text_examples]
        told.append(
            f"the layout cannot read {_names(unread, examples)}. Choose another layout (flat reads any name, "
            "but no channel from it; pattern reads what a regular expression says)"
        )
    if found.not_text:
        is_none = "is not UTF-8 text" if found.not_text == 1 else "are not UTF-8 text"
        text = _names(found.not_text, found.not_text_examples).replace(
            ":", f" {is_none} and cannot stand in a table:", 1
        )
        told.append(f"{text}. Rename such files (convmv -f latin1 -t utf8 --notest FILE)")
    raise ConfigFault(
        f"{'; '.join(told)}, leave them out (--set 'run.exclude=[NAME]'), or go on without them: --set run.unparsed=ignore"
    )


def _names(number: int, examples: list[str]) -> str:
    """ "the names of 4 image files: 'a', 'b', 'c', …"."""
    shown = ", ".join(f"'{key}'" for key in examples[:3])
    many = "the name of 1 image file" if number == 1 else f"the names of {number} image files"
    return f"{many}: {shown}" + (", …" if number > len(examples[:3]) else "")


def _keep_first(examples: list[str], key: str) -> None:
    if len(examples) < EXAMPLES or key < examples[-1]:
        insort(examples, key)
        del examples[EXAMPLES:]


def nothing_found(found: Findings, url: str) -> ConfigFault:
    """The fault for an input without images, which says what is there instead."""
    if not found.files:
        return ConfigFault(f"{url}: there are no files; is the path right?")
    whys = [f"{count} {why}" for why, count in found.ignored.most_common(_SHOWN_WHYS)]
    if found.sidecars:
        whys.append(_many_metadata(len(found.sidecars)))
    if found.unparsed:
        why = "that is not UTF-8 text" if found.not_text else "the layout cannot read"
        example = (found.not_text_examples or found.unparsed_examples)[0]
        whys.append(f"{found.unparsed} with a name {why}, such as '{example}'")
    hint = "".join(f"; {way}" for concerns, way in _WAYS if any(map(concerns, found.ignored)))
    return ConfigFault(
        f"{url}: no image to count among {found.files} file{'' if found.files == 1 else 's'}: {'; '.join(whys)}{hint}"
    )


def _many_metadata(files: int) -> str:
    return "1 metadata file" if files == 1 else f"{files} metadata files"


def left_out_lines(found: Findings) -> list[str]:
    """Warnings about files that were left out although the user may have wanted them counted, one line for each reason."""
    return [
        f"left out: {count} {'file' if count == 1 else 'files'}, {why}, such as {found.ignored_examples[why]!r}"
        + "".join(f"; {way}" for concerns, way in _WAYS if concerns(why))
        for why, count in sorted(found.ignored.items())
        if warned_of(why)
    ]


@dataclass(frozen=True, slots=True)
class PlateSummary:
    """A plate: its fields, and how many sites its wells have (fewest, median, most; the lower median of an even number)."""

    plate: str
    wells: int
    fields: int
    sites_min: int
    sites_median: int
    sites_max: int


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Everything `cellcount plan` prints.

    `size` is in bytes, of the files to be read. `reasons` counts fields already known to be missing or failed, `ignored`
    files by why (`ignored_examples`: one of each), `unparsed` images whose names do not parse (`unparsed_examples`: the first of them in sorted order).
    `counted` and `measured` are channels; "" is the one of files without a channel in their name; `channel_names` is how the
    instrument calls channels. `facts` is what metadata files state of plates. `scales` are the object
    sizes found in a sample of the images, `plate_numbers` what the task found out about plates. `layout` is the layout, with the reason
    for it if it was found out.
    """

    plates: tuple[PlateSummary, ...]
    fields: int
    sources: int
    shards: int
    size: int
    channels_seen: tuple[str, ...]
    counted: tuple[str, ...]
    measured: tuple[str, ...]
    channel_names: Mapping[str, str]
    facts: Mapping[str, PlateFacts]
    reasons: dict[str, int]
    ignored: dict[str, int]
    ignored_examples: dict[str, str]
    unparsed: int
    unparsed_examples: tuple[str, ...]
    scales: tuple[PlateSize, ...]
    warnings: tuple[str, ...]
    plate_numbers: tuple[PlateNumbers, ...] = ()
    layout: str = ""


@dataclass(slots=True)
class _PlateTally:
    fields: int = 0
    wells_by_sites: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Census:
    """Counts planned fields in key order. Holds a few numbers a plate.

    By plate, `unseen` counts fields that metadata files state and that have no file, `unstated` fields with files that they do
    not state.
    """

    fields: int = 0
    sources: int = 0
    size: int = 0
    outside: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unseen: Counter[str] = field(default_factory=Counter)
    unstated: Counter[str] = field(default_factory=Counter)
    _plates: dict[str, _PlateTally] = field(default_factory=dict)
    _well: tuple[str, str] | None = None
    _sites: set[int] = field(default_factory=set)
    _last: tuple[str, str] = ("", "")

    def watch(
        self, fields: Iterable[PlannedField], inside: tuple[frozenset[str], frozenset[int]] | None
    ) -> Iterator[PlannedField]:
        """Pass `fields` on and count them. `outside` counts those whose well or site is not in `inside` (wells, sites), if it is given."""
        for planned in fields:
            self._count(planned)
            if inside is not None and (
                planned.key.well not in inside[0] or planned.key.site not in inside[1]
            ):
                self.outside += 1
            yield planned
        self._close_well()

    def plates(self) -> tuple[PlateSummary, ...]:
        """The plates, in order."""
        return tuple(_plate_summary(plate, tally) for plate, tally in self._plates.items())

    def _count(self, planned: PlannedField) -> None:
        key = planned.key
        if (key.plate, key.well) != self._well:
            self._close_well()
            self._well = (key.plate, key.well)
        self._sites.add(key.site)
        self._plates.setdefault(key.plate, _PlateTally()).fields += 1
        self.fields += 1
        self.sources += len(planned.sources)
        if planned.reason is not None:
            self.reasons[planned.reason.value] += 1
            return
        for source in planned.sources:
            # Fields of one file follow each other; sources of one array are other chunks of it.
            if (source.key, source.etag) != self._last:
                self.size += source.size
                self._last = (source.key, source.etag)

    def _close_well(self) -> None:
        if self._well is not None:
            self._plates[self._well[0]].wells_by_sites[len(self._sites)] += 1
        self._well = None
        self._sites = set()


def _plate_summary(plate: str, tally: _PlateTally) -> PlateSummary:
    sites = sorted(tally.wells_by_sites)
    return PlateSummary(
        plate,
        tally.wells_by_sites.total(),
        tally.fields,
        sites[0],
        _lower_median(tally.wells_by_sites, sites),
        sites[-1],
    )


def _lower_median(counts: Counter[int], values: Sequence[int]) -> int:
    below = 0
    middle = (counts.total() + 1) // 2
    for value in values:
        below += counts[value]
        if below >= middle:
            return value
    return values[-1]
