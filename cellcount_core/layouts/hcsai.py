"""ImageXpress HCS.ai names (MetaXpress Acquire), and the `.jdce` and `image_metadata_N.csv` of each acquisition.

A run is a folder with `experiment/`, `experiment_z_stack/`, `experiment_montage/` and `autofocus/`. Each of the first three holds
`timepoint<n>/<prefix>_t0_C05_s0_w0_z0.tif`, one `<name>.jdce` and one or more `image_metadata_N.csv`. Time points, sites, wavelengths and z
count from 0, and so do the tables; planes alone are z + 1, because plane 0 is the instrument's own projection: where both folders lie in a
run, `experiment` holds the projection (or the only image) of each field and `experiment_z_stack` its stack. Several z in `experiment` itself
are not read. A montage is stitched from the same fields, so it is left out, as are the images of the autofocus.

The `.jdce` is JSON, before which there may be other text: the plate's rows and columns, its barcode or identifier, the wavelengths with their
filters, and the pixel size of the objective in µm, which is off the scale of the stage by +2 % (4x) to -10 % (10x), so places in overlaps
need a tolerance. Each line of a CSV is an image that was taken: Row and Column from 1, Field, Wavelength, Timepoint and ZIndex from 0, and
its stage position in µm with y down (on the real file, the third row lies at 29.3 mm, and the offset from the well's centre is added to it).
(bioio-imagexpress; fractal-uzh-converters.)
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts, Position, WellPosition, expected_fields, parse_well
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
    Json,
    Odd,
    Unreadable,
    Values,
    only,
    pixel_size,
    read_json,
    text_of,
)

_NAME = re.compile(
    r".*_t(?P<timepoint>[0-9]{1,6})_(?P<well>[A-Z]{1,2}[0-9]{2})_s(?P<site>[0-9]{1,6})_w(?P<channel>[0-9]{1,3})_z(?P<plane>[0-9]{1,5})\.tiff?",
    re.IGNORECASE,
)
_TIMEPOINT = re.compile(r"timepoint[0-9]+", re.IGNORECASE)
_CSV = re.compile(r"image_metadata_[0-9]+\.csv", re.IGNORECASE)
_JDCE = "jdce"
_SINGLE, _STACK, _MONTAGE, _AUTOFOCUS = "experiment", "experiment_z_stack", "experiment_montage", "autofocus"
_COLUMNS = ("Row", "Column", "Field", "ImageFileName")

PROJECTION = 0
_MOST_INDEX = 999_999


class HcsAiSettings(LayoutSettings):
    """ImageXpress HCS.ai (MetaXpress Acquire): `experiment/timepoint0/<name>_t0_C05_s0_w0_z0.tif`, with `.jdce` and `image_metadata_1.csv`."""

    kind: Literal["hcsai"] = "hcsai"


@dataclass(frozen=True, slots=True)
class HcsAi(Layout):
    """The plate is its barcode or identifier in the `.jdce`, or else the folder of the run; `root` if that is the input."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name does not follow the convention."""
        run, unit = _place(parent(key))
        hidden = is_hidden(key)
        if not hidden and unit == _MONTAGE:
            return Ignored("montage of the same fields")
        if not hidden and unit == _AUTOFOCUS:
            return Ignored("image of the autofocus")
        if not hidden and (extension(key) == _JDCE or _CSV.fullmatch(file_name(key))):
            return Sidecar(run, f"{unit}/{file_name(key)}")
        if (ignored := ignored_name(key)) is not None:
            return ignored
        match = _NAME.fullmatch(file_name(key))
        well = _well(match["well"]) if match else None
        if match is None or well is None:
            return None
        plane = int(match["plane"])
        if unit == _SINGLE:
            if plane:
                return None
            plane = PROJECTION
        else:
            plane += 1
        where = FieldKey(
            run.rpartition("/")[2] or self.root, well, int(match["site"]), int(match["timepoint"])
        )
        return Parsed(where, f"w{int(match['channel'])}", plane, run)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the files of all acquisitions of one run state together."""
        protocols = [
            _protocol(key, body) for key, body in sorted(sidecars.items()) if extension(key) == _JDCE
        ]
        images = _Images(self)
        for key, body in sorted(sidecars.items()):
            if extension(key) != _JDCE:
                images.read(key, body)
        return (_facts(sorted(sidecars)[0], protocols, images, set(sidecars)),)


@lru_cache(maxsize=4096)
def _well(text: str) -> str | None:
    position = parse_well(text)
    return None if position is None else position.name


@lru_cache(maxsize=4096)
def _place(folder: str) -> tuple[str, str]:
    """The folder of the run, and the folder of the acquisition in it: "" if the input is an acquisition itself."""
    parts = folder.split("/") if folder else []
    if parts and _TIMEPOINT.fullmatch(parts[-1]):
        parts = parts[:-1]
    if parts and parts[-1].lower() in (_SINGLE, _STACK, _MONTAGE):
        return "/".join(parts[:-1]), parts[-1].lower()
    if _AUTOFOCUS in map(str.lower, parts):
        return "/".join(parts), _AUTOFOCUS
    return "/".join(parts), ""


@dataclass(frozen=True, slots=True)
class _At:
    """A value of a JSON file and where it stands. Every method raises Unreadable if the value is of another type than is asked for."""

    key: str
    path: str
    value: Json

    def get(self, name: str) -> _At:
        """The member `name` of an object; null if it has none, or is null itself."""
        where = f"{self.path}.{name}" if self.path else name
        if self.value is None:
            return _At(self.key, where, None)
        if not isinstance(self.value, dict):
            raise self._fault("an object")
        return _At(self.key, where, self.value.get(name))

    def each(self) -> Iterator[_At]:
        """The members of a list; none if it is null."""
        if self.value is not None and not isinstance(self.value, list):
            raise self._fault("a list")
        for at, value in enumerate(self.value or []):
            yield _At(self.key, f"{self.path}[{at}]", value)

    def text(self) -> str:
        """The text; "" for null."""
        if self.value is not None and not isinstance(self.value, str):
            raise self._fault("a text")
        return (self.value or "").strip()[:200]

    def number(self) -> float | None:
        """The number; None for null."""
        if self.value is None:
            return None
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._fault("a number")
        return Values(self.key, "the experiment", {self.path: str(self.value)}).number(self.path)

    def whole(self, most: int, least: int = 1) -> int | None:
        """The whole number from `least` to `most`; None for null."""
        if self.value is None:
            return None
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            raise self._fault(f"a whole number from {least} to {most}")
        return self.value

    def _fault(self, expected: str) -> Unreadable:
        return Unreadable(
            self.key, f"{self.path or 'the file'} is {str(self.value)[:60]!r}; {expected} was expected"
        )


@dataclass(frozen=True, slots=True)
class _Protocol:
    """What a `.jdce` states. `names` are the channels' by their numbers, `files` the CSVs that it names."""

    key: str
    plate: str
    rows: int | None
    columns: int | None
    size: float | None
    shape: tuple[int, int] | None
    names: Mapping[int, str]
    files: tuple[str, ...]
    notes: tuple[str, ...]


def _protocol(key: str, body: bytes) -> _Protocol:
    start = body.find(b"{")
    stack = _At(key, "", read_json(key, body[max(start, 0) :])).get("ImageStack")
    protocol = stack.get("AutoLeadAcquisitionProtocol")
    if protocol.value is None:
        raise Unreadable(
            key, "has no ImageStack.AutoLeadAcquisitionProtocol, in which a .jdce file states the plate"
        )
    notes: list[str] = []
    plate, camera = protocol.get("Plate"), protocol.get("Camera").get("Size")
    height, width = camera.get("Height").whole(1_000_000), camera.get("Width").whole(1_000_000)
    names = {}
    for wave in protocol.get("Wavelengths").each():
        number = wave.get("Index").whole(999, 0)
        if number is None:
            raise Unreadable(key, f"{wave.path} has no Index")
        names[number] = (
            wave.get("EmissionFilter").get("Name").text() or wave.get("ExcitationFilter").get("Name").text()
        )
    return _Protocol(
        key,
        stack.get("SpecimenHolder").get("Barcode").text() or stack.get("PlateId").text(),
        plate.get("Rows").whole(MOST_ROWS),
        plate.get("Columns").whole(MOST_COLUMNS),
        _calibration(protocol.get("ObjectiveCalibration"), notes),
        (height, width) if height is not None and width is not None else None,
        names,
        tuple(each.text() for each in stack.get("ImageMetadataFiles").each()),
        tuple(notes),
    )


def _calibration(stated: _At, notes: list[str]) -> float | None:
    width, height, unit = (
        stated.get("PixelWidth").number(),
        stated.get("PixelHeight").number(),
        stated.get("Unit").text(),
    )
    if width is None:
        return None
    if unit not in ("µm", "μm", "um") or (height is not None and abs(height - width) > 0.01 * abs(width)):
        notes.append(
            f"the pixel size {width:g} x {height or width:g} {unit!r} is stated, which is not taken: one size in µm was expected"
        )
        return None
    return pixel_size(width, "", notes)


@dataclass(slots=True)
class _Images:
    """What the lines of the CSVs state of the images that were taken."""

    layout: HcsAi
    sites: defaultdict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    sources: dict[str, None] = field(default_factory=dict)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    channels: set[str] = field(default_factory=set)
    planes: set[int] = field(default_factory=set)
    shapes: set[tuple[int, int]] = field(default_factory=set)
    odd: Odd = field(default_factory=Odd)

    def read(self, key: str, body: bytes) -> None:
        """Read one CSV."""
        self.sources[key] = None
        lines = csv.reader(io.StringIO(text_of(body).replace("\0", ""), newline=""))
        try:
            header = [name.strip() for name in next(lines, [])]
            if absent := [name for name in _COLUMNS if name not in header]:
                raise Unreadable(key, f"has no column {absent[0]}, which each image_metadata file has")
            for cells in lines:
                if any(cells):
                    of = f"line {lines.line_num}"
                    self._image(Values(key, of, dict(zip(header, map(str.strip, cells), strict=False))))
        except csv.Error as error:
            raise Unreadable(key, f"not a CSV table: {error}") from None

    def _image(self, line: Values) -> None:
        name = line.values.get("ImageFileName", "")
        folder = line.values.get("ImageSubFolderPath", "").replace("\\", "/").strip("/")
        if not name:
            return
        if ".." in folder.split("/") or "://" in folder or "/" in name or "\\" in name:
            self.odd.add("would lie outside of their folder; they are not opened", f"{folder}/{name}")
            return
        parsed = self.layout.parse(f"{parent(line.key)}/{name}" if parent(line.key) else name)
        if not isinstance(parsed, Parsed):
            self.odd.add("have a name that is not read", name)
            return
        where = parsed.field
        well = WellPosition(line.whole("Row", MOST_ROWS) - 1, line.whole("Column", MOST_COLUMNS) - 1).name
        if (well, line.whole("Field", _MOST_INDEX, 0)) != (where.well, where.site):
            self.odd.add(
                "are of another well or field than their file is named after; files go by their names", name
            )
        self.sites[where.well, where.timepoint].add(where.site)
        self.channels.add(parsed.channel)
        self.planes.add(parsed.plane)
        if line.values.get("ImageSizeYPx") and line.values.get("ImageSizeXPx"):
            self.shapes.add((line.whole("ImageSizeYPx", 1_000_000), line.whole("ImageSizeXPx", 1_000_000)))
        if line.values.get("PositionXUm") and line.values.get("PositionYUm"):
            self.positions[where.well, where.site] = Position(
                line.number("PositionXUm"), line.number("PositionYUm")
            )


def _facts(first: str, protocols: list[_Protocol], images: _Images, there: set[str]) -> PlateFacts:
    source = next((one.key for one in protocols), first)
    names = {number: name for one in reversed(protocols) for number, name in one.names.items()}
    channels = images.channels or {f"w{number}" for number in names}
    notes = [note for one in protocols for note in one.notes] + images.odd.notes("image")
    sizes = {one.size for one in protocols if one.size is not None}
    if len(sizes) > 1:
        notes.append(
            f"acquisitions of the run have different pixel sizes ({', '.join(f'{size:g}' for size in sorted(sizes))} µm), so none is taken"
        )
    for one in protocols:
        absent = [name for name in one.files if f"{parent(one.key)}/{name}".lstrip("/") not in there]
        if absent:
            notes.append(
                f"names {absent[0]!r}, which is not there, so fields that it lists are not known to be missing"
            )
    listed = " and ".join(file_name(key) for key in images.sources)
    return PlateFacts(
        folder=_place(parent(source))[0],
        plate="",
        source=source,
        name=next((one.plate for one in protocols if one.plate), ""),
        rows=next((one.rows for one in protocols if one.rows), None),
        columns=next((one.columns for one in protocols if one.columns), None),
        channels=tuple(
            (channel, names.get(int(channel[1:]), ""))
            for channel in sorted(channels, key=lambda each: int(each[1:]))
        ),
        um_per_px=only(sizes),
        image_shape=only(images.shapes) or (None if images.shapes else only(one.shape for one in protocols)),
        positions=images.positions,
        expected=expected_fields(images.sites, f"no file; {listed} has a line of this field"),
        timepoints=len({time for _, time in images.sites}) or None,
        planes=len(images.planes - {PROJECTION}) or None,
        notes=tuple(notes),
    )


def _build(_: HcsAiSettings, root: str) -> HcsAi:
    return HcsAi(root)


KIND = LayoutKind("hcsai", HcsAiSettings, _build, Traits(projection_plane=PROJECTION, has_sidecars=True))
