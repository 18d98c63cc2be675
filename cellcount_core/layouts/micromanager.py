"""Data sets of Micro-Manager, 1.4 and 2.0: image files of single planes, or one OME-TIFF of each position.

Single planes lie in a folder of their position: `<set>/<position>/img_channel000_position000_time000000000_z000.tif` (2.0) or
`<set>/<position>/img_000000000_DAPI_000.tif` (1.4: time, channel, plane). OME-TIFFs are called `<prefix>_MMStack_<position>.ome.tif` and hold
all channels, planes and time points; a large one goes on in `…_1.ome.tif`, which is read with it. (Real: micro-manager/micro-manager,
mmstudio, test resources.) All numbers count from 0. Channels of 2.0 are numbered, and `metadata.txt` names them.

A position is a field of a well where its label is that of the HCS plugin, `A1-Site_0`: well A01, site 0. Any other label (`Pos0`,
`1-Pos_000_001`, of which the numbers are column and row of a grid) is no well: each such position is a well of its own label, site 1.

`metadata.txt` (in the position's folder, or `…_metadata.txt` beside the OME-TIFF) has a `Summary` that states the same in each position: names of
channels, numbers of planes and time points, pixel size, and the list of positions with their stage coordinates in µm. Rows of a grid have
growing y (1.4 test set), so y is taken to point down. An acquisition that was stopped may leave a `metadata.txt` that is cut short;
it is refused, and the names hold.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cellcount_core.domain.fields import FieldKey, Parsed
from cellcount_core.domain.plates import ExpectedFields, PlateFacts, Position, parse_well
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Sidecar,
    Traits,
    file_name,
    ignored_name,
    is_hidden,
    parent,
)
from cellcount_core.layouts.metadata import Json, Unreadable, pixel_size, read_json

_PLANE = re.compile(
    r"img_channel(?P<channel>[0-9]{3,6})_position[0-9]{3,6}_time(?P<timepoint>[0-9]{9})_z(?P<plane>[0-9]{3,6})\.tiff?"
    r"|img_(?P<timepoint1>[0-9]{9})_(?P<channel1>[^/]+)_(?P<plane1>[0-9]{3})\.tiff?",
    re.IGNORECASE,
)
_STACK = re.compile(
    r"(?P<prefix>[^/]*?)_?MMStack(?:_(?P<label>[^/]*?))??(?P<more>_[1-9][0-9]{0,2})?(?P<end>\.ome\.tiff?|_metadata\.txt)"
)
_SITE = re.compile(r"(?P<well>[A-Za-z]{1,2}[0-9]{1,2})-Site_(?P<site>[0-9]{1,6})")
_METADATA = "metadata.txt"
_MOST_BYTES = 64 * 2**20
_MOST_POSITIONS = 100_000
_FARTHEST = 1e9
_NO_LABELS = frozenset({"", "Undefined"})


class MicroManagerSettings(LayoutSettings):
    """Micro-Manager: `Pos0/img_channel000_position000_time000000000_z000.tif` or `*_MMStack_*.ome.tif`, with `metadata.txt`."""

    kind: Literal["micromanager"] = "micromanager"


@dataclass(frozen=True, slots=True)
class MicroManager(Layout):
    """See the module. `root` is the plate if the input itself is the data set, and names give no prefix."""

    root: str

    def parse(self, key: str) -> Parsed | Sidecar | Ignored | None:
        """See `Layout.parse`. None for an image whose name follows none of the conventions."""
        name = file_name(key)
        stack = _STACK.fullmatch(name)
        if name == _METADATA or (stack is not None and stack["end"].endswith(".txt")):
            if is_hidden(key):
                return Ignored("hidden")
            prefix = stack["prefix"] if stack is not None else ""
            return Sidecar(
                _set_folder(key), f"{prefix}_{_METADATA}" if prefix else _METADATA, _MOST_BYTES, alike=False
            )
        if (ignored := ignored_name(key)) is not None:
            return ignored
        folder = _set_folder(key)
        if stack is not None:
            label, more = _label_of(stack)
            if more:
                return Ignored("rest of an OME-TIFF that is read with its first file")
            well, site = _well(label)
            return Parsed(FieldKey(self._plate(key), well, site, 0), folder=folder)
        plane = _PLANE.fullmatch(name)
        if plane is None:
            return None
        well, site = _well(file_name(parent(key)))
        channel = plane["channel1"] or str(int(plane["channel"]))
        timepoint, z = (int(plane[each] or plane[f"{each}1"]) for each in ("timepoint", "plane"))
        return Parsed(FieldKey(self._plate(key), well, site, timepoint), channel, z, folder)

    def describe(self, sidecars: Mapping[str, bytes]) -> tuple[PlateFacts, ...]:
        """What the summaries state, one for each data set of the folder; all positions of a set have the same."""
        return tuple(
            _facts(key, self._plate(key), read_json(key, body)) for key, body in sorted(sidecars.items())
        )

    def _plate(self, key: str) -> str:
        stack = _STACK.fullmatch(file_name(key))
        return (stack["prefix"] if stack is not None else "") or file_name(_set_folder(key)) or self.root


def _set_folder(key: str) -> str:
    """The folder of the data set, from one of its files: above that of the position for single planes."""
    folder = parent(key)
    return folder if "MMStack" in file_name(key) else parent(folder)


def _label_of(stack: re.Match[str]) -> tuple[str, bool]:
    """The position's label in the name of an OME-TIFF, and whether the file is the rest of another one.

    `_1` after "A1-Site" is the site; after anything else it says that the file goes on.
    """
    label, more = stack["label"] or "", stack["more"] or ""
    if more and label.lower().endswith("-site"):
        return label + more, False
    return label, bool(more)


def _well(label: str) -> tuple[str, int]:
    site = _SITE.fullmatch(label)
    position = parse_well(site["well"]) if site is not None else None
    if site is None or position is None:
        return label or "Pos0", 1
    return position.name, int(site["site"])


def _facts(key: str, plate: str, value: Json) -> PlateFacts:
    summary = value.get("Summary") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(summary, dict):
        raise Unreadable(key, "has no object 'Summary', which metadata.txt of Micro-Manager begins with")
    notes: list[str] = []
    wells: defaultdict[str, set[int]] = defaultdict(set)
    positions: dict[tuple[str, int], Position] = {}
    for label, position in _positions(key, summary):
        well, site = _well(label)
        if site in wells[well]:
            notes.append(f"two positions are called {label!r}; their places on the stage are not taken")
            wells.clear()
            positions.clear()
            break
        wells[well].add(site)
        if position is not None:
            positions[well, site] = position
    why = f"no file; {file_name(key)} lists this position"
    height, width = (_whole(key, summary, name) for name in ("Height", "Width"))
    numbered = file_name(key) == _METADATA and any(each.startswith("Coords-") for each in value)
    return PlateFacts(
        folder=_set_folder(key),
        plate=plate,
        source=key,
        channels=_channels(key, summary) if numbered else (),
        um_per_px=_pixel_size(key, value, summary, notes),
        image_shape=(height, width) if height and width else None,
        positions=positions,
        expected=tuple(
            ExpectedFields((well,), tuple(sorted(sites)), why) for well, sites in sorted(wells.items())
        ),
        timepoints=_whole(key, summary, "Frames") if file_name(key) == _METADATA else None,
        planes=_whole(key, summary, "Slices") if file_name(key) == _METADATA else None,
        notes=tuple(notes),
    )


def _positions(key: str, summary: dict[str, Json]) -> Iterator[tuple[str, Position | None]]:
    """The labels of the positions with their places: `InitialPositionList` of 1.4, `StagePositions` of 2.0. None if labels are not given."""
    for name, label_name in (("InitialPositionList", "Label"), ("StagePositions", "label")):
        listed = summary.get(name) or []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise Unreadable(key, f"{name} is not a list of positions")
        if len(listed) > _MOST_POSITIONS:
            raise Unreadable(key, f"{name} has more than {_MOST_POSITIONS} positions")
        records = [each for each in listed if isinstance(each, dict)]
        labels = [each.get(label_name) for each in records]
        if any(isinstance(label, str) and label in _NO_LABELS for label in labels):
            continue
        for label, record in zip(labels, records, strict=True):
            if not isinstance(label, str):
                raise Unreadable(
                    key, f"{label_name} of a position in {name} is {str(label)[:40]!r}; a text was expected"
                )
            yield label, _place(record)


def _place(record: dict[str, Json]) -> Position | None:
    """The place of a position on the XY stage, in µm."""
    coordinates = record.get("DeviceCoordinatesUm")
    if isinstance(coordinates, dict):
        stages = [each for each in coordinates.values() if isinstance(each, list) and len(each) == 2]
        x, y = stages[0] if len(stages) == 1 else (None, None)
        return _position(x, y)
    parts = record.get("subpositions")
    if isinstance(parts, list):
        for part in parts:
            if isinstance(part, dict) and part.get("stageName") == record.get("defaultXYStage"):
                return _position(part.get("x"), part.get("y"))
    return None


def _position(x: Json, y: Json) -> Position | None:
    known = [float(each) for each in (x, y) if isinstance(each, int | float) and abs(each) < _FARTHEST]
    return Position(round(known[0], 3), round(known[1], 3)) if len(known) == 2 else None


def _channels(key: str, summary: dict[str, Json]) -> tuple[tuple[str, str], ...]:
    names = summary.get("ChNames") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Unreadable(key, "ChNames is not a list of names")
    return tuple((str(number), str(name)) for number, name in enumerate(names[:1000]))


def _whole(key: str, summary: dict[str, Json], name: str) -> int | None:
    """A number that is there and above 0; Micro-Manager writes 0 or -1 for what does not apply."""
    value = summary.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**9):
        raise Unreadable(key, f"{name} is {str(value)[:40]!r}; a whole number was expected")
    return value if value is not None and value > 0 else None


def _pixel_size(key: str, value: dict[str, Json], summary: dict[str, Json], notes: list[str]) -> float | None:
    """The pixel size of the summary, else of the first image that is described; 0 stands for none."""
    first = next((each for each in value.values() if isinstance(each, dict) and "PixelSizeUm" in each), {})
    for found in (summary.get("PixelSize_um"), first.get("PixelSizeUm")):
        if found is None or found == 0:
            continue
        if not isinstance(found, int | float) or not abs(found) < _FARTHEST:
            raise Unreadable(key, f"the pixel size is {str(found)[:40]!r}; a number was expected")
        return pixel_size(found, "", notes)
    return None


def _build(_: MicroManagerSettings, root: str) -> MicroManager:
    return MicroManager(root)


KIND = LayoutKind("micromanager", MicroManagerSettings, _build, Traits(has_sidecars=True))
