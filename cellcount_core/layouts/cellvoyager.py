"""Yokogawa CellVoyager names (CV7000, CV8000, and CQ3K with running well numbers), and the `.mlf`, `.mrf` and `.mes` beside them.

`<plate>_<well>_T####F###L##A##Z##C##.tif` (time point, field, timeline, action, z, channel), all from 1; some exports have `.png` where the
`.mlf` says `.tif`. The plate's name itself may hold `_` and `#`. CQ3K writes `W####F####T####Z###C#.tif` into `Image/` or `Projection/`; its
wells are numbered row by row from 1, and files of `Projection/`, or of Z000, are the instrument's own projection (plane 0). `SC_*` and `DC_*`
are shading and dark frames.

`MeasurementData.mlf` has a record for each image that was written: its file, row and column (from 1), channel, and the stage position in µm
from the well's centre with y up. These records, and not wells x channels x times, are what is expected; a record's `TimePoint` counts
timelines, so the time point is that of the file's name. A record of type ERR has no file but a message, such as that of a failed autofocus:
it becomes the reason of the fields that were not written. A well without a record of a channel was not to be imaged in it: where that channel
is counted, its fields are skipped (`not_acquired`). Some `.mlf` end in `>>`. `MeasurementDetail.mrf` states the shape of the plate and
the pixel size of each channel, and names the `.mes`, which has the channels' names: the target ("DNA"), else the filter ("BP445/45"). If two
actions image one channel of one field, both files claim the same plane, and the field says so; choose one with `run.include`.
(fmi-faim/cellvoyager-types; real files: faim-ipa, fractal-uzh-converters.)
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import (
    ExpectedFields,
    PlateFacts,
    Position,
    WellPosition,
    expected_fields,
    numbered_well,
    parse_well,
)
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Traits,
    extension,
    file_name,
    ignored_name,
    is_hidden,
    parent,
)
from cellcount_core.layouts.metadata import (
    MOST_COLUMNS,
    MOST_ROWS,
    Odd,
    Unreadable,
    Values,
    only,
    pixel_size,
    read_xml,
)

_NAMED = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}[0-9]{2})_T(?P<timepoint>[0-9]{4,6})F(?P<site>[0-9]{3,6})L(?P<timeline>[0-9]{2,4})A(?P<action>[0-9]{2,4})"
    r"Z(?P<plane>[0-9]{2,4})C(?P<channel>[0-9]{2,4})\.(?:tiff?|png)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"W(?P<number>[0-9]{4,5})F(?P<site>[0-9]{4,6})T(?P<timepoint>[0-9]{4,6})Z(?P<plane>[0-9]{3,4})C(?P<channel>[0-9]{1,2})\.(?:tiff?|png)",
    re.IGNORECASE,
)
_CORRECTION = re.compile(r"(?:SC|DC)_.*\.(?:tiff?|png)", re.IGNORECASE)
_RECORDS, _DETAIL, _SETTING = "measurementdata.mlf", "measurementdetail.mrf", "mes"
_IMAGES, _PROJECTION = "image", "projection"

PROJECTION = 0
_MOST_BYTES = 512 * 2**20
"""An `.mlf` has some 350 bytes for each image, and a plate may have a million."""


class CellVoyagerSettings(LayoutSettings):
    """Yokogawa CellVoyager: `<plate>_<well>_T0001F001L01A01Z01C01.tif` (CV7000, CV8000), `W0029F0001T0001Z001C1.tif` (CQ3K), with `.mlf`, `.mrf`, `.mes`."""

    kind: Literal["cellvoyager"] = "cellvoyager"


@dataclass(frozen=True, slots=True)
class CellVoyager(Layout):
    """The plate is the name before the well; for names without one it is the measurement's title, the folder, or `root`."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        if not is_hidden(key) and (
            file_name(key).lower() in (_RECORDS, _DETAIL) or extension(key) == _SETTING
        ):
            return Sidecar(_folder(parent(key)), file_name(key), _MOST_BYTES)
        if (ignored := ignored_name(key)) is not None:
            return ignored
        name = file_name(key)
        if _CORRECTION.fullmatch(name):
            return Ignored("shading or dark frame")
        folder = _folder(parent(key))
        if (match := _NUMBERED.fullmatch(name)) is not None:
            plate = folder.rpartition("/")[2] or self.root
            plane = PROJECTION if file_name(parent(key)).lower() == _PROJECTION else int(match["plane"])
            number = int(match["number"])
            where = FieldKey(plate, numbered_well(number), int(match["site"]), int(match["timepoint"]))
            return Parsed(where, f"C{int(match['channel'])}", plane, folder, number) if number else None
        match = _NAMED.fullmatch(name)
        well = _well(match["well"]) if match else None
        if match is None or well is None:
            return None
        where = FieldKey(match["plate"], well, int(match["site"]), int(match["timepoint"]))
        return Parsed(where, f"C{int(match['channel']):02d}", int(match["plane"]), folder)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the records of one measurement and its settings state."""
        detail, records = _Detail(), None
        for key, body in sorted(sidecars.items()):
            if file_name(key).lower() == _DETAIL:
                read_xml(key, body, _RecordReader(key, detail).start)
                detail.whole(key)
        for key, body in sorted(sidecars.items()):
            if extension(key) == _SETTING and detail.setting in ("", file_name(key).lower()):
                read_xml(key, body, _RecordReader(key, detail).start)
        for key, body in sorted(sidecars.items()):
            if file_name(key).lower() == _RECORDS:
                records = _Records(key, self)
                ended = body.rstrip()
                read_xml(key, ended[:-1] if ended.endswith(b">>") else body, records.start, records.end)
                records.whole()
        source = records.key if records is not None else next(iter(sorted(sidecars)))
        return (_facts(source, detail, records or _Records(source, self)),)


@lru_cache(maxsize=4096)
def _well(text: str) -> str | None:
    position = parse_well(text)
    return None if position is None else position.name


def _folder(folder: str) -> str:
    """The folder of the measurement, which is that of the `.mlf`."""
    return parent(folder) if file_name(folder).lower() in (_IMAGES, _PROJECTION) else folder


@dataclass(slots=True)
class _Detail:
    """What `.mrf` and `.mes` state. `sizes` and `shapes` are those of channels, by their numbers; `setting` is the name of the `.mes`."""

    rows: int | None = None
    columns: int | None = None
    title: str = ""
    setting: str = ""
    sizes: dict[int, float] = field(default_factory=dict)
    shapes: dict[int, tuple[int, int]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def whole(self, key: str) -> None:
        """Raise Unreadable if the `.mrf` states nothing."""
        if self.rows is None:
            raise Unreadable(key, "has no MeasurementDetail, which an .mrf file consists of")


@dataclass(frozen=True, slots=True)
class _RecordReader:
    """Reads the elements of an `.mrf` or `.mes` into a `_Detail`."""

    key: str
    detail: _Detail

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        values = Values(self.key, f"a {name}", attributes)
        if name == "MeasurementDetail":
            self.detail.rows = values.whole("RowCount", MOST_ROWS)
            self.detail.columns = values.whole("ColumnCount", MOST_COLUMNS)
            self.detail.title = attributes.get("Title", "").strip()
            self.detail.setting = attributes.get("MeasurementSettingFileName", "").strip().lower()
        elif name == "MeasurementSetting" and self.detail.rows is None:
            self.detail.rows = values.whole("Rows", MOST_ROWS)
            self.detail.columns = values.whole("Columns", MOST_COLUMNS)
        elif name == "MeasurementChannel":
            self._channel(values)
        elif name == "Channel":
            called = attributes.get("Target", "").strip() or attributes.get("Acquisition", "").strip()
            self.detail.names[values.whole("Ch", 99)] = called

    def _channel(self, values: Values) -> None:
        channel = values.whole("Ch", 99)
        self.detail.shapes[channel] = (
            values.whole("VerticalPixels", 1_000_000),
            values.whole("HorizontalPixels", 1_000_000),
        )
        size = pixel_size(
            values.number("HorizontalPixelDimension"), f" of channel {channel}", self.detail.notes
        )
        if size is not None:
            self.detail.sizes[channel] = size


_Times = tuple[int, ...]


@dataclass(slots=True)
class _Records:
    """What the records of an `.mlf` state. `sites` are those of images, by well and time point; `errors` the other records."""

    key: str
    layout: CellVoyager
    found: bool = False
    record: Values | None = None
    plate: str = ""
    channels: dict[str, int] = field(default_factory=dict)
    sites: defaultdict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    imaged: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    planes: set[int] = field(default_factory=set)
    lines: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    wells: dict[int, str] = field(default_factory=dict)
    errors: dict[tuple[str, int, str], str] = field(default_factory=dict)
    odd: Odd = field(default_factory=Odd)

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        """An element begins."""
        self.found = self.found or name == "MeasurementData"
        self.record = Values(self.key, f"a {name}", attributes) if name == "MeasurementRecord" else None

    def end(self, name: str, text: str) -> None:
        """An element ends."""
        record, self.record = self.record, None
        if record is None or name != "MeasurementRecord":
            return
        row, column = record.whole("Row", MOST_ROWS), record.whole("Column", MOST_COLUMNS)
        well = WellPosition(row - 1, column - 1).name
        if record.values.get("Type") == "ERR":
            site = record.whole("FieldIndex", 100_000) if "FieldIndex" in record.values else 0
            self.errors[well, site, record.values.get("TimelineIndex", "")] = " ".join(text.split())[:300]
        elif record.values.get("Type") == "IMG":
            self._image(record, well, text.strip())
        else:
            self.odd.add(
                f"are of the type {record.values.get('Type', '')!r}, which is not known", text.strip()
            )

    def _image(self, record: Values, well: str, name: str) -> None:
        parsed = self.layout.parse(name.replace("\\", "/"))
        if not isinstance(parsed, Parsed):
            self.odd.add("name a file that does not follow the convention", name)
            return
        site = parsed.field.site
        if parsed.numbered:
            self.wells[parsed.numbered] = well
        elif parsed.field.well != well:
            self.odd.add(
                f"are of another well than their file is named after ({well}); files go by their names", name
            )
            well = parsed.field.well
        if record.whole("FieldIndex", 100_000) != site:
            self.odd.add("are of another field than their file is named after; files go by their names", name)
        self.plate = self.plate or ("" if parsed.numbered else parsed.field.plate)
        self.channels[parsed.channel] = record.whole("Ch", 99)
        self.imaged[well].add(parsed.channel)
        self.planes.add(parsed.plane)
        self.sites[well, parsed.field.timepoint].add(site)
        self.lines[record.values.get("TimelineIndex", "")].add(parsed.field.timepoint)
        self.positions[well, site] = Position(record.number("X"), 0.0 - record.number("Y"))

    def whole(self) -> None:
        """Raise Unreadable if there is nothing in it."""
        if not self.found:
            raise Unreadable(self.key, "has no MeasurementData, which an .mlf file consists of")
        if not self.sites and not self.errors:
            raise Unreadable(self.key, "has no record of an image")

    def expected(self) -> Iterator[ExpectedFields]:
        """The images that are recorded, and the fields of which there is only a message."""
        name = file_name(self.key)
        for (well, site, line), message in sorted(self.errors.items()):
            times = self._times(well, line)
            if absent := self._unrecorded(well, site, times):
                yield ExpectedFields((well,), absent, f"no file; {name} says: {message}", times)
        yield from expected_fields(self.sites, f"no file; {name} has a record of an image of this field")

    def _times(self, well: str, line: str) -> _Times:
        """The time points of a message: those of its timeline, or else of its well; () if neither has an image."""
        own = {timepoint for each, timepoint in self.sites if each == well}
        return tuple(sorted(self.lines.get(line, set()) or own))

    def _unrecorded(self, well: str, site: int, times: _Times) -> tuple[int, ...]:
        """The sites of a message of which no image is recorded. A message that names no site is of the whole well."""
        there = {
            each for (of, time), sites in self.sites.items() if of == well and time in times for each in sites
        }
        everywhere = set().union(*self.sites.values()) if self.sites else {1}
        return tuple(sorted(({site} if site else everywhere) - there))

    def notes(self) -> Iterator[str]:
        """What is odd, and messages about fields that were imaged all the same."""
        yield from self.odd.notes("record")
        told = [
            message
            for (well, site, line), message in sorted(self.errors.items())
            if not self._unrecorded(well, site, self._times(well, line))
        ]
        if told:
            more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
            yield f"the instrument reports of fields that it imaged all the same: {told[0]!r}{more}"


def _facts(source: str, detail: _Detail, records: _Records) -> PlateFacts:
    acquired = records.channels or {f"C{channel:02d}": channel for channel in detail.sizes}
    numbers = set(acquired.values())
    sizes = {size for channel, size in detail.sizes.items() if channel in numbers}
    notes = [*detail.notes, *records.notes()]
    if len(sizes) > 1:
        notes.append(
            f"channels have different pixel sizes ({', '.join(f'{size:g}' for size in sorted(sizes))} µm), so none is taken"
        )
    beyond = sorted(
        {
            well
            for well in (*(well for well, _ in records.sites), *(well for well, _, _ in records.errors))
            if not _on_plate(well, detail)
        }
    )
    if beyond:
        notes.append(
            f"records are of the well {beyond[0]}{' and others' if beyond[1:] else ''}, which a plate of {detail.rows} x {detail.columns} wells"
            " does not have"
        )
    return PlateFacts(
        folder=_folder(parent(source)),
        plate=records.plate,
        source=source,
        name="" if records.plate or not records.wells else detail.title,
        rows=detail.rows,
        columns=detail.columns,
        channels=tuple(
            (channel, detail.names.get(number, "")) for channel, number in sorted(acquired.items())
        ),
        um_per_px=only(sizes),
        image_shape=only({shape for channel, shape in detail.shapes.items() if channel in numbers}),
        positions=records.positions,
        expected=tuple(records.expected()),
        timepoints=len({timepoint for _, timepoint in records.sites}) or None,
        planes=len(records.planes - {PROJECTION}) or None,
        notes=tuple(notes),
        wells=records.wells,
        acquired={
            well: frozenset(channels)
            for well, channels in records.imaged.items()
            if len(channels) < len(records.channels)
        },
    )


def _on_plate(well: str, detail: _Detail) -> bool:
    position = parse_well(well)
    if position is None or detail.rows is None or detail.columns is None:
        return True
    return position.row < detail.rows and position.column < detail.columns


def _build(_: CellVoyagerSettings, root: str) -> CellVoyager:
    return CellVoyager(root)


KIND = LayoutKind(
    "cellvoyager", CellVoyagerSettings, _build, Traits(projection_plane=PROJECTION, has_sidecars=True)
)
