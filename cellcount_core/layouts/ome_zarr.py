"""OME-Zarr plates and images, versions 0.4 (Zarr 2) and 0.5 (Zarr 3). Only their metadata says what each object is.

A plate names its wells, a well its images, an image its axes, levels and channels, and an array its chunks. Names of folders are
used only if a plate's metadata is missing: its wells are then `ROW/COLUMN`, and planning warns of it. Labels and tables beside an
image are not counted. A site has the number of its image's path, from 1 ("0" is site 1), or its place in the well if paths are not
numbers. An image outside of a plate is counted as an image file is: its own folder gives the well, the folder above it the plate.
Images of a bioformats2raw folder are the sites of one well.

Specifications: https://ngff.openmicroscopy.org/0.4/ and /0.5/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from cellcount_core.domain.errors import ConfigFault, Reason
from cellcount_core.domain.fields import FieldKey
from cellcount_core.domain.ngff import (
    ARRAY_V2,
    ATTRIBUTES_V2,
    METADATA_NAMES,
    NODE_V3,
    ImageGroup,
    Json,
    NgffFault,
    PlateGroup,
    WellImage,
    WellPath,
    ZarrArray,
    array_of,
    attributes_of,
    holds_series,
    image_of,
    plate_of,
    well_of,
)
from cellcount_core.domain.plates import FORMATS, PlateFacts, canonical_well
from cellcount_core.layouts.arrays import ArrayAt, Arrays, Nodes
from cellcount_core.layouts.base import (
    Ignored,
    Layout,
    LayoutKind,
    LayoutSettings,
    Traits,
    file_name,
    image_like,
    parent,
)
from cellcount_core.stores.base import Absent, Denied, Listed, Store

_AHEAD = 16
_TOGETHER = 256
"""How many images have their metadata read together: bounds memory, and lets reads run in parallel."""

_REMEMBERED = 1_000
Value = TypeVar("Value")

_LARGEST_METADATA = 16 << 20
_BESIDE = frozenset({"labels", "tables"})
_ENDINGS = re.compile(r"(?:\.ome)?\.zarr$", re.IGNORECASE)
_SUFFIX = ".zarr/"
_NUMBER = re.compile(r"[0-9]{1,6}")
_ROW, _COLUMN = re.compile(r"[A-Z]{1,2}"), re.compile(r"[0-9]{1,2}")
_SHOWN = 5


class OmeZarrSettings(LayoutSettings):
    """OME-Zarr plates and images, 0.4 and 0.5: their metadata tells wells, fields, channels, pixel size and time points.

    `level` is the resolution that is counted, 0 being the finest. `acquisition` is the number of the acquisition that is counted if a
    plate has several, because they show the same fields.
    """

    kind: Literal["ome-zarr"] = "ome-zarr"
    level: Annotated[int, Field(ge=0)] = 0
    acquisition: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class OmeZarr(Layout):
    """See the module. `root` is the name of the plate or image if the input itself is one."""

    root: str
    level: int
    acquisition: int | None

    def parse(self, key: str) -> Ignored:
        """No single object is an image."""
        return Ignored("part of an array")

    @property
    def arrays(self) -> Arrays:
        """The layout itself."""
        return self

    def node(self, key: str) -> tuple[str, str] | Ignored | None:
        """See `Arrays.node`."""
        inside = key.rpartition(_SUFFIX)[2]
        if beside := _BESIDE.intersection(inside.split("/")[:-1]):
            return Ignored(f"{min(beside)} of an OME-Zarr")
        name = file_name(key)
        if name in METADATA_NAMES:
            return parent(key), name
        return (
            Ignored("image file outside of any OME-Zarr") if _SUFFIX not in key and image_like(key) else None
        )

    def walk(self, store: Store, nodes: Nodes) -> Iterator[ArrayAt | PlateFacts | str]:
        """See `Arrays.walk`."""
        return _Walk(self, store, nodes).all()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image belongs, and the path of its group. `folder` is that of its plate."""

    field: FieldKey
    folder: str
    path: str

    def faulty(self, reason: Reason, detail: str, path: str = "") -> ArrayAt:
        """The image, as one that cannot be counted."""
        return ArrayAt(self.field, self.folder, path or self.path, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class _Node:
    """A metadata object that was read: its folder, its entry in the listing (None if the folder has no such object), and its bytes or why
    they could not be read."""

    folder: str
    listed: Listed | None
    body: bytes | Absent | Denied

    @property
    def key(self) -> str:
        """The object's key, or its folder."""
        return self.folder if self.listed is None else self.listed.key

    def attributes(self) -> dict[str, Json]:
        """The OME attributes of a group. Raises NgffFault, Absent, Denied."""
        if self.listed is None:
            return {}
        return attributes_of(file_name(self.listed.key), self.had())

    def had(self) -> bytes:
        """The bytes. Raises Absent, Denied."""
        if not isinstance(self.body, bytes):
            raise self.body
        return self.body


_FAULTS = (NgffFault, Absent, Denied)


def _reason(fault: Exception) -> Reason:
    if isinstance(fault, Denied):
        return Reason.ACCESS_DENIED
    return Reason.ABSENT if isinstance(fault, Absent) else Reason.UNREADABLE


def _cause(fault: Exception, key: str) -> str:
    """What is wrong, and the metadata object in which it is."""
    return f"{fault} (in {key})" if isinstance(fault, NgffFault) else str(fault)


@dataclass(slots=True)
class _Walk:
    """One walk over the groups of an input, parents first."""

    layout: OmeZarr
    store: Store
    nodes: Nodes
    groups: dict[bytes, ImageGroup] = field(default_factory=dict)
    shapes: dict[bytes, ZarrArray] = field(default_factory=dict)
    """What metadata says, by its bytes. Images of a plate mostly have equal metadata, which is then parsed and kept once."""

    bare: dict[str, list[str]] = field(default_factory=dict)
    """Folders of plates without metadata, with the wells found in them."""

    unnamed: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Why names of channels were dropped -> the number of such images, and one of them."""

    def all(self) -> Iterator[ArrayAt | PlateFacts | str]:
        """The images of all plates, then those outside of plates, then warnings in words."""
        waiting = [""]
        while waiting:
            below: list[str] = []
            for node in self._read(waiting, (NODE_V3, ATTRIBUTES_V2)):
                found = self._root(node)
                if found is not None:
                    yield from found
                else:
                    # A group that says nothing of itself is a folder; what lies in it may.
                    below += [
                        _joined(node.folder, child) for child in sorted(self.nodes.children(node.folder))
                    ]
            waiting = below
        for why, (number, path) in sorted(self.unnamed.items()):
            images = f"1 image, {path}," if number == 1 else f"{number} images, such as {path},"
            yield f"of {images} the names of the channels are not used: {why}; where there are several, channels are called by their numbers, from 0"
        for folder, wells in sorted(self.bare.items()):
            shown = ", ".join(wells[:_SHOWN]) + (", …" if len(wells) > _SHOWN else "")
            yield (
                f"{folder or self.layout.root}: the metadata of this plate is missing ({ATTRIBUTES_V2} or {NODE_V3} with 'plate'): its wells"
                f" are called by their folders ({shown}), and a well that is not there is not missed"
            )

    def _root(self, node: _Node) -> Iterator[ArrayAt | PlateFacts] | None:
        """What a group yields if it is a plate, a well, an image or a folder of images; None if it is something else."""
        try:
            attributes = node.attributes()
            plate = plate_of(attributes)
        except _FAULTS as fault:
            raise ConfigFault(f"{node.key}: {fault}") from None
        if plate is not None:
            return self._plate(node, plate)
        if "well" in attributes:
            return self._images(self._of_bare_well(node))
        if "multiscales" in attributes and (bare := self._in_bare_well(node.folder)) is not None:
            return self._images([bare])
        if "multiscales" in attributes:
            return self._images([self._alone(node.folder, node.folder, 1)])
        if holds_series(attributes):
            children = self.nodes.children(node.folder)
            series = sorted((each for each in children if _NUMBER.fullmatch(each)), key=int)
            return self._images(
                self._alone(node.folder, _joined(node.folder, path), int(path) + 1) for path in series
            )
        return None

    def _alone(self, folder: str, path: str, site: int) -> _Place:
        """The place of an image outside of plates; `folder` is its own, or that of a series of images."""
        above = parent(folder)
        name = file_name(folder) or self.layout.root
        plate = file_name(above) or self.layout.root
        return _Place(FieldKey(_named(plate), _named(name), site, 1), above, path)

    def _plate(self, node: _Node, plate: PlateGroup) -> Iterator[ArrayAt | PlateFacts]:
        name = _named(file_name(node.folder) or self.layout.root)
        shape = (len(plate.rows), len(plate.columns))
        # Many writers name the rows and columns of the wells alone: what cannot be the shape of a plate is not used.
        rows, columns = shape if shape in FORMATS.values() else (None, None)
        yield PlateFacts(node.folder, name, node.key, plate.name, rows, columns)
        yield from self._images(self._fields(node, plate, name))

    def _fields(self, node: _Node, plate: PlateGroup, name: str) -> Iterator[_Place | ArrayAt]:
        """Yield the place of each image of a plate, well by well, and an ArrayAt with the reason for each field that is already known to be
        missing."""
        wells = {_joined(node.folder, well.path): well for well in plate.wells}
        there = []
        for path, well in wells.items():
            if self.nodes.holds(path):
                there.append(path)
            else:
                detail = f"there is nothing at this path, which {node.key} names as a well"
                yield _Place(_field(name, well, 1), node.folder, path).faulty(Reason.ABSENT, detail)
        for found in self._read(there, (NODE_V3, ATTRIBUTES_V2)):
            yield from self._sites(found, wells[found.folder], name, node.folder)

    def _sites(self, node: _Node, well: WellPath, name: str, folder: str) -> Iterator[_Place | ArrayAt]:
        """As `_fields`, for one well of the plate `name` in `folder`."""
        try:
            images = self._of_well(node)
        except _FAULTS as fault:
            place = _Place(_field(name, well, 1), folder, node.folder)
            yield place.faulty(_reason(fault), _cause(fault, node.key))
            return
        for number, image in enumerate(images, 1):
            site = int(image.path) + 1 if _NUMBER.fullmatch(image.path) else number
            place = _Place(_field(name, well, site), folder, _joined(node.folder, image.path))
            if self.nodes.holds(place.path):
                yield place
            else:
                detail = f"there is nothing at this path, which {node.key} names as an image"
                yield place.faulty(Reason.ABSENT, detail)

    def _of_bare_well(self, node: _Node) -> Iterator[_Place | ArrayAt]:
        """As `_sites`, for a well whose plate has no metadata."""
        plate, well, folder = self._bare(node.folder)
        return self._sites(node, well, plate, folder)

    def _in_bare_well(self, path: str) -> _Place | None:
        """The place of an image at `ROW/COLUMN/NUMBER` if neither plate nor well has metadata; None for any other path."""
        row, column, number = ("", self.layout.root, *path.split("/"))[-3:]
        if not (_ROW.fullmatch(row) and _COLUMN.fullmatch(column) and _NUMBER.fullmatch(number)):
            return None
        plate, well, folder = self._bare(parent(path))
        return _Place(_field(plate, well, int(number) + 1), folder, path)

    def _bare(self, path: str) -> tuple[str, WellPath, str]:
        """The name of the plate, the well and the folder of the plate, from the path of a well. The plate is noted for a warning."""
        above, row, column = ("", "", self.layout.root, *filter(None, path.split("/")))[-3:]
        folder = parent(parent(path))
        well = WellPath(path, row, column)
        known = self.bare.setdefault(folder, [])
        if (name := canonical_well(f"{row}{column}")) not in known:
            known.append(name)
        return _named(above or self.layout.root), well, folder

    def _of_well(self, node: _Node) -> Sequence[WellImage]:
        """The images of a well that are counted: those of one acquisition, because several acquisitions show the same fields.

        Raises ConfigFault if one has to be chosen.
        """
        images = well_of(node.attributes())
        if images is None:
            # The metadata of the well is missing; what lies in it says itself that it is an image.
            children = sorted(self.nodes.children(node.folder), key=lambda path: (len(path), path))
            return [WellImage(child, None) for child in children]
        numbers = sorted({image.acquisition for image in images if image.acquisition is not None})
        wanted = self.layout.acquisition
        if wanted is None and len(numbers) > 1:
            raise ConfigFault(
                f"{node.key}: the well has images of the acquisitions {', '.join(map(str, numbers))}, which show the same fields; say "
                f"which one is counted: --set run.layout.acquisition={numbers[0]}"
            )
        if wanted is None or not numbers:
            return images
        return [image for image in images if image.acquisition == wanted]

    def _images(self, places: Iterable[_Place | ArrayAt]) -> Iterator[ArrayAt]:
        """Yield each image with the array of the level that is counted."""
        upcoming = iter(places)
        while some := list(islice(upcoming, _TOGETHER)):
            at: dict[str, _Place] = {}
            for each in some:
                if isinstance(each, ArrayAt):
                    yield each
                else:
                    at[each.path] = each
            levels: dict[str, tuple[_Place, _Node, ImageGroup]] = {}
            for node in self._read(at, (NODE_V3, ATTRIBUTES_V2)):
                try:
                    group, path = self._level(node)
                except _FAULTS as fault:
                    yield at[node.folder].faulty(_reason(fault), _cause(fault, node.key))
                else:
                    levels[path] = (at[node.folder], node, group)
            for node in self._read(levels, (NODE_V3, ARRAY_V2)):
                yield self._array(node, *levels[node.folder])

    def _level(self, node: _Node) -> tuple[ImageGroup, str]:
        """What an image's metadata says, and the path of the array that is counted. Raises NgffFault, Absent or Denied."""
        body = node.had()
        if (group := self.groups.get(body)) is None:
            group = image_of(node.attributes())
            if group is None:
                raise NgffFault("no image is described there: 'multiscales' is expected")
            _remember(self.groups, body, group)
        if self.layout.level >= len(group.levels):
            last = len(group.levels) - 1
            raise ConfigFault(
                f"run.layout.level is {self.layout.level}, and {node.folder or self.layout.root} has the levels 0 to {last}"
            )
        return group, _joined(node.folder, group.levels[self.layout.level].path)

    def _array(self, node: _Node, place: _Place, image: _Node, group: ImageGroup) -> ArrayAt:
        """An image with its array, or why it cannot be counted."""
        if node.listed is None or image.listed is None:
            detail = f"there is no array at this path, which {image.key} names as a level"
            return place.faulty(Reason.ABSENT, detail, node.folder)
        try:
            body = node.had()
            if (array := self.shapes.get(body)) is None:
                array = array_of(file_name(node.listed.key), body)
                _remember(self.shapes, body, array)
            sizes = group.sizes(array)
            if why := group.unnamed(sizes.get("c", 1)):
                number, first = self.unnamed.get(why, (0, place.path or self.layout.root))
                self.unnamed[why] = (number + 1, first)
        except _FAULTS as fault:
            return place.faulty(_reason(fault), _cause(fault, node.key), node.folder)
        return ArrayAt(
            place.field,
            place.folder,
            node.folder,
            (image.listed, node.listed),
            array,
            group.axes,
            group.names(sizes.get("c", 1)),
        )

    def _read(self, folders: Iterable[str], names: tuple[str, ...]) -> Iterator[_Node]:
        """Yield the first metadata object of each folder that has one of `names`, in the order of the folders."""
        wanted = []
        for folder in folders:
            there = self.nodes.at(folder)
            wanted.append((folder, next((there[name] for name in names if name in there), None)))
        keys = []
        for _, listed in wanted:
            if listed is not None and listed.size > _LARGEST_METADATA:
                raise ConfigFault(
                    f"{listed.key}: has {listed.size / 2**20:.0f} MiB; metadata of up to {_LARGEST_METADATA >> 20} MiB is read"
                )
            keys += [] if listed is None else [listed.key]
        bodies = self.store.get_many(keys, ahead=_AHEAD)
        for folder, listed in wanted:
            yield _Node(folder, listed, b"" if listed is None else next(bodies)[1])


def _remember(known: dict[bytes, Value], body: bytes, value: Value) -> None:
    if len(known) < _REMEMBERED:
        known[body] = value


def _field(plate: str, well: WellPath, site: int) -> FieldKey:
    return FieldKey(plate, canonical_well(f"{well.row}{well.column}"), site, 1)


def _named(folder: str) -> str:
    """The name of a folder without the ending `.zarr` or `.ome.zarr`."""
    return _ENDINGS.sub("", folder) or folder


def _joined(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _build(settings: OmeZarrSettings, root: str) -> OmeZarr:
    return OmeZarr(root, settings.level, settings.acquisition)


KIND = LayoutKind("ome-zarr", OmeZarrSettings, _build, Traits(holds_arrays=True))
