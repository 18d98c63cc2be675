"""The tables that CellProfiler's LoadData reads (JUMP, pe2loaddata, BBBC021): one row for each field, with the files of its channels.

`FileName_<channel>` and `PathName_<channel>`, or `URL_<channel>`, name the file of a channel; `Image_` may stand before each, as in
tables that CellProfiler writes. `Illum*` are illumination functions and are left out. "Orig", CellProfiler's word for an image as it was
taken, is no part of a channel's name: `FileName_OrigDNA` is the channel "DNA". `Metadata_Plate`, `Metadata_Well`, `Metadata_Site`
(or `FieldID`), `Metadata_Timepoint` (or `TimepointID`) and `Metadata_PlaneID` say what the row is, with the instrument's own numbers
(pe2loaddata: fields and planes from 1, time points from 0). A table without a well or a site takes it from the file's name, if that is
one of ImageXpress or Harmony (BBBC021 has its sites there alone), never from the order of rows.

Paths are those of the machine that wrote the table: absolute, `s3://…`, or below a folder that is not the input. The part of a path above
the input is `base`. It is found once, from the first rows of which a file is in the input: the longest end of its path that is a key
there. All other paths must be below the same base, and none may lead out of it. Nothing outside of the input is ever opened, so images on
a public bucket are read by giving that bucket as the input, with `storage.anonymous`.

From pe2loaddata there are also pixel size and positions (in metres, y up), the size of images, and the instrument's names of channels.
Published tables have faults (jump-cellpainting/datasets, issues 33, 61, 78): a row that names one file for two channels is not counted,
because nothing says which channel the file shows; a file that is not there is missing; where `Metadata_Row` and `Metadata_Col`, or the
file's name, say another well than `Metadata_Well`, that is told and `Metadata_Well` holds.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, islice
from typing import Literal
from urllib.parse import unquote

from cellcount_core.domain.errors import ConfigFault, nearest
from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import PlateFacts, Position, WellPosition, canonical_well
from cellcount_core.domain.settings import Place
from cellcount_core.layouts.base import Entry, Layout, LayoutKind, LayoutSettings, Table, Traits, parent
from cellcount_core.layouts.harmony import Harmony
from cellcount_core.layouts.imagexpress import ImageXpress
from cellcount_core.layouts.metadata import Odd, only, pixel_size
from cellcount_core.layouts.table import TableFile, whole_number
from cellcount_core.stores.base import Denied, StorageOptions, Store, addressable, checked_key

USUAL = ("load_data.csv", "load_data.parquet", "load_data_with_illum.csv", "load_data_with_illum.parquet")
"""Names of the table that are looked for in the input if the settings name none."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "plate": ("Plate", "PlateName", "PlateID", "Assay_Plate_Barcode", "Barcode"),
    "well": ("Well", "well_position", "WellName"),
    "row": ("Row",),
    "column": ("Col", "Column"),
    "site": ("Site", "FieldID", "Field", "FOV"),
    "timepoint": ("Timepoint", "TimepointID", "TimePoint"),
    "plane": ("PlaneID", "Plane", "ZIndex"),
}
"""What a row is, and the names that columns of it have behind `Metadata_`."""

_FILE = re.compile(r"(?:Image_)?(?P<what>FileName|PathName|URL|Frame|Series)_(?P<channel>.+)")
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")
_PLAIN_NAME = re.compile(r"(?!\.\.?$)[^/\\:\0]+")
_ORIGINAL, _CORRECTION = "Orig", "illum"
_PROBED_ROWS = 16
_UM = 1e6
_DIGITS = re.compile(r"([0-9]{1,2})(?:\.0+)?")


class LoadDataSettings(LayoutSettings):
    """A LoadData table of CellProfiler (CSV or Parquet; JUMP, pe2loaddata, BBBC021): one row for each field, with the files of its channels.

    `manifest` is a path relative to the input, or a path or URL of its own; if it is left out, `load_data.csv` or `.parquet` of the input
    is read. `base` is the part of the table's paths that is above the input, found from the files if it is left out. `columns` maps
    `plate`, `well`, `row`, `column`, `site`, `timepoint`, `plane` to the table's columns where those have names of their own.
    """

    kind: Literal["loaddata"] = "loaddata"
    manifest: Place = ""
    base: str | None = None
    columns: dict[str, str] = {}  # noqa: RUF012 (pydantic gives each section its own)


@dataclass(frozen=True, slots=True)
class LoadData(Layout):
    """See the module and its settings. `root` is the plate of files in the input itself if the table names no plate."""

    manifest: str
    base: str | None
    columns: Mapping[str, str]
    root: str

    def parse(self, key: str) -> None:
        """None for every key: the table says what a file is."""
        return

    @property
    def table(self) -> Table:
        """The layout itself."""
        return self

    def entries(self, store: Store, options: StorageOptions) -> Iterator[Entry | PlateFacts]:
        """See `Table.entries`. Each row gives an entry for each channel of which it names a file."""
        location = self.manifest or _usual(store)
        header = _LoadColumns(location, self.columns)
        found = TableFile(location).rows(store, options, header.choose)
        first = list(islice(found, _PROBED_ROWS))
        paths = [path for where, row in first for _, path in header.files(where, row)]
        base = _base(location, store, paths) if self.base is None else _given_base(self.base)
        facts: defaultdict[str, _Facts] = defaultdict(lambda: _Facts(location))
        for where, row in chain(first, found):
            files = [(channel, _below(where, base, path)) for channel, path in header.files(where, row)]
            if not files:
                raise ConfigFault(f"{where}: names no file in any of {', '.join(header.shown_files())}")
            named = _by_name(files[0][1])
            place = self._place(where, row, files[0][1], named)
            facts[place.plate].add(where, row, place, named, header.names(row))
            plane = whole_number(where, "plane", row.get("plane") or "0")
            alike = len({key for _, key in files}) < len(files)
            for channel, key in files:
                doubt = _doubt(where, key, files) if alike else ""
                yield Entry(key, Parsed(place, channel, plane), doubt)
        for plate, one in facts.items():
            yield one.facts(plate)

    def _place(self, where: str, row: Mapping[str, str], key: str, named: Parsed | None) -> FieldKey:
        well = canonical_well(row.get("well", "")) or _well_of(row) or (named.field.well if named else "")
        if not well:
            raise ConfigFault(
                f"{where}: says no well, in no column and not in the name of {key}; name the column with run.layout.columns.well"
            )
        site = row.get("site") or (str(named.field.site) if named else "1")
        plate = row.get("plate") or parent(key) or self.root
        timepoint = whole_number(where, "timepoint", row.get("timepoint") or "1")
        return FieldKey(plate, well, whole_number(where, "site", site), timepoint)


class _LoadColumns:
    """The columns of a table that are read: the files of each channel, and what a row is."""

    def __init__(self, location: str, columns: Mapping[str, str]) -> None:
        self._location = location
        self._columns = columns
        self._channels: dict[str, str] = {}

    def choose(self, header: list[str]) -> dict[str, int]:
        """See `TableFile.rows`. Files are called as "FileName DNA", what a row is as in `NAMES`, other facts as behind `Metadata_`."""
        chosen: dict[str, int] = {}
        matches = [(index, match) for index, name in enumerate(header) if (match := _FILE.fullmatch(name))]
        files = {match["channel"] for _, match in matches if match["what"] in ("FileName", "URL")}
        taken = {name for name in files if not name.lower().startswith(_CORRECTION)}
        if not taken:
            shown = ", ".join(repr(name) for name in header[:8])
            raise ConfigFault(
                f"{self._location}: has no column FileName_<channel> or URL_<channel>, which a LoadData table has; known: {shown}"
            )
        for name in sorted(taken):
            plain = name.removeprefix(_ORIGINAL)
            self._channels[name] = plain if plain and (plain == name or plain not in taken) else name
        for index, match in matches:
            if match["channel"] in taken:
                chosen.setdefault(f"{match['what']} {match['channel']}", index)
        for ours, theirs in NAMES.items():
            if ours in self._columns:
                if self._columns[ours] not in header:
                    hint = nearest(self._columns[ours], header)
                    raise ConfigFault(
                        f"{self._location}: has no column {self._columns[ours]!r} (for {ours!r}){hint}"
                    )
                chosen[ours] = header.index(self._columns[ours])
            elif (index_of := self._column(header, theirs)) is not None:
                chosen[ours] = index_of
        for fact in ("ImageResolutionX", "ImageSizeX", "ImageSizeY", "PositionX", "PositionY"):
            if (index_of := self._column(header, (fact,))) is not None:
                chosen[fact] = index_of
        for channel in taken:
            if (name := f"Metadata_ChannelName_{channel}") in header:
                chosen[f"ChannelName {channel}"] = header.index(name)
        return chosen

    def _column(self, header: list[str], names: tuple[str, ...]) -> int | None:
        """The place of the first column of these names; tables with one for each channel have the same in all of them."""
        for name in names:
            for prefix in ("Metadata_", "Image_Metadata_"):
                for ending in ("", *(f"_{channel}" for channel in self._channels)):
                    if (column := f"{prefix}{name}{ending}") in header:
                        return header.index(column)
        return None

    def files(self, where: str, row: Mapping[str, str]) -> list[tuple[str, str]]:
        """The channels of a row with the paths of their files, as they stand in the table, in one spelling."""
        found = []
        for theirs, channel in self._channels.items():
            for what in ("Frame", "Series"):
                if (row.get(f"{what} {theirs}") or "0") not in ("0", "0.0"):
                    raise ConfigFault(
                        f"{where}: {what}_{theirs} is {row[f'{what} {theirs}']!r}: an image inside of a file that holds several cannot be "
                        "named by a LoadData table here; 0 was expected"
                    )
            name = row.get(f"FileName {theirs}", "")
            folder = row.get(f"PathName {theirs}", "")
            if name and folder and _PLAIN_NAME.fullmatch(name):
                found.append((channel, f"{_folder(where, folder)}{name}"))
            elif (
                text := f"{folder.rstrip('/')}/{name}"
                if name and folder
                else name or row.get(f"URL {theirs}", "")
            ):
                found.append((channel, _plain_path(where, text)))
        return found

    def names(self, row: Mapping[str, str]) -> dict[str, str]:
        """What the instrument calls each channel of a row."""
        return {channel: row.get(f"ChannelName {theirs}", "") for theirs, channel in self._channels.items()}

    def shown_files(self) -> list[str]:
        """Names of the columns that may name files."""
        return [f"FileName_{theirs}" for theirs in self._channels][:5]


@dataclass(slots=True)
class _Facts:
    """What the rows of one plate state, as far as they have been read."""

    location: str
    sizes: set[float] = field(default_factory=set)
    shapes: set[tuple[int, int]] = field(default_factory=set)
    names: dict[str, set[str]] = field(default_factory=dict)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    odd: Odd = field(default_factory=Odd)

    def add(
        self,
        where: str,
        row: Mapping[str, str],
        place: FieldKey,
        named: Parsed | None,
        names: Mapping[str, str],
    ) -> None:
        """Take what a row states, and note where it contradicts itself."""
        line = where.removeprefix(f"{self.location}: ")
        if (other := _well_of(row)) and other != place.well:
            self.odd.add(
                "has another well in Metadata_Row and Metadata_Col than in Metadata_Well, which holds", line
            )
        if named is not None and named.field.well != place.well:
            self.odd.add("has another well in the name of the file than in the table, which holds", line)
        if (size := _metres(row, "ImageResolutionX")) is not None:
            self.sizes.add(round(size * _UM, 6))
        sides = [_metres(row, f"ImageSize{axis}") for axis in "YX"]
        if None not in sides:
            self.shapes.add((int(sides[0] or 0), int(sides[1] or 0)))
        x, y = (_metres(row, f"Position{axis}") for axis in "XY")
        if x is not None and y is not None:
            self.positions[place.well, place.site] = Position(round(x * _UM, 3), round(0.0 - y * _UM, 3))
        for channel, name in names.items():
            self.names.setdefault(channel, set()).add(name)

    def facts(self, plate: str) -> PlateFacts:
        """All that was read."""
        notes = [f"plate {plate!r}: {note}" for note in self.odd.notes("row")]
        size = only(self.sizes)
        return PlateFacts(
            folder="",
            plate=plate,
            source=self.location,
            channels=tuple((channel, min(names)) for channel, names in self.names.items() if len(names) == 1),
            um_per_px=None if size is None else pixel_size(size, "", notes),
            image_shape=only(self.shapes),
            positions=self.positions,
            notes=tuple(notes),
        )


def _is_there(store: Store, key: str) -> bool:
    try:
        return addressable(key, store.url) and store.size_of(key) is not None
    except Denied:
        return False


def _usual(store: Store) -> str:
    for name in USUAL:
        if _is_there(store, name):
            return name
    raise ConfigFault(
        f"{store.url}: has none of {', '.join(USUAL)}: name the table with --set run.layout.manifest=FILE"
    )


def _plain_path(where: str, text: str) -> str:
    """A path or URL of the table with "/" between its parts, without the scheme `file`. Raises ConfigFault if it climbs."""
    path = _plain(text)
    if path is None:
        raise ConfigFault(f"{where}: the path {text!r} has '..' in it, which leads out of its folder")
    return path


def _folder(where: str, text: str) -> str:
    """A folder as `_plain_path`, so that a name can stand behind it."""
    path = _plain_path(where, text)
    return f"{path}/" if path and not path.endswith("/") else path


@lru_cache(maxsize=1024)
def _plain(text: str) -> str | None:
    """See `_plain_path`; None if it climbs. Remembered, because tables name a few folders again and again."""
    path = text.replace("\\", "/")
    if path.lower().startswith("file:"):
        path = "/" + unquote(path[len("file:") :]).lstrip("/")
    scheme = _SCHEME.match(path)
    head = scheme[0] if scheme else "/" if path.startswith("/") else ""
    parts = [part for part in path[len(head) :].split("/") if part not in ("", ".")]
    return None if ".." in parts else head + "/".join(parts)


def _base(location: str, store: Store, paths: list[str]) -> str:
    """The beginning of the table's paths that the input stands for, "" or with "/" at its end: what stands before the longest end of the
    first path that is a key of the input."""
    for path in paths:
        if (scheme := _SCHEME.match(path)) is not None and scheme["scheme"].lower() in ("http", "https"):
            raise ConfigFault(
                f"{location}: names {path!r}; images are read from the input alone, never from the web. If they are copies of those in the "
                "input, say which part of the URL the input stands for: --set run.layout.base=URL"
            )
        if path.startswith(f"{store.url}/"):
            return f"{store.url}/"
    for path in paths:
        head = _SCHEME.match(path)
        start = head.end() if head else int(path.startswith("/"))
        while start < len(path):
            if _is_there(store, path[start:]):
                return path[:start]
            start = path.find("/", start) + 1 or len(path)
    if not paths:
        return ""
    raise ConfigFault(
        f"{location}: none of the first {len(paths)} files that it names, such as {paths[0]!r}, is in the input "
        f"({store.url}) below any of its folders: give the input that holds the images, or --set run.layout.base=PATH, the part of the "
        "table's paths that the input stands for"
    )


def _given_base(base: str) -> str:
    plain = _plain_path("run.layout.base", base)
    return f"{plain}/" if plain and not plain.endswith("/") else plain


def _below(where: str, base: str, path: str) -> str:
    """The key of a path below the base."""
    key = path.removeprefix(base)
    if not path.startswith(base) or (not base and (key.startswith("/") or _SCHEME.match(key))):
        raise ConfigFault(
            f"{where}: {path!r} is not below {base or 'the input'!r}, which the input stands for (by the rows before, or run.layout.base): count "
            "an input that holds all of the table's images, or a table for each input"
        )
    # Paths were brought into one spelling before; only a byte that no path can have is left to refuse.
    return checked_key(key) if "\0" in key or not key else key


def _doubt(where: str, key: str, files: list[tuple[str, str]]) -> str:
    """Why the file of a row cannot be that of its channel: the row names it for others too; "" if it does not."""
    channels = [channel for channel, each in files if each == key]
    return f"{where} names it for the channels {', '.join(channels)}" if len(channels) > 1 else ""


def _by_name(key: str) -> Parsed | None:
    """The well and site that the file's own name tells, if it is one of ImageXpress or Harmony."""
    name = key.rpartition("/")[2]
    for layout in (Harmony("-"), ImageXpress("-")):
        if isinstance(parsed := layout.parse(name), Parsed):
            return parsed
    return None


def _well_of(row: Mapping[str, str]) -> str:
    """The well of the row's own row and column (numbers from 1, or a letter for the row); "" if it has none."""
    column = _DIGITS.fullmatch(row.get("column", ""))
    if column is None:
        return ""
    line = row.get("row", "")
    if (number := _DIGITS.fullmatch(line)) is None:
        well = canonical_well(f"{line}{column[1]}")
        return well if well[:1].isalpha() else ""
    position = WellPosition(int(number[1]) - 1, int(column[1]) - 1)
    return position.name if 0 <= position.row < 32 and 0 <= position.column < 48 else ""


def _metres(row: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(row.get(name) or math.nan)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _build(config: LoadDataSettings, root: str) -> LoadData:
    for name in sorted(set(config.columns) - set(NAMES)):
        raise ConfigFault(f"run.layout.columns: {name!r} is unknown{nearest(name, NAMES)}")
    return LoadData(config.manifest, config.base, dict(config.columns), root)


KIND = LayoutKind("loaddata", LoadDataSettings, _build, Traits(told_by_table=True))
