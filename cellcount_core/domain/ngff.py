"""What the metadata of OME-Zarr says, as values: plates, wells, images and arrays of versions 0.4 (Zarr 2) and 0.5 (Zarr 3).

Specifications: https://ngff.openmicroscopy.org/0.4/ and /0.5/, https://zarr-specs.readthedocs.io/en/latest/ (v2.0 and v3 core).
Nothing is read here: callers pass the bytes of a `.zattrs`, `.zarray` or `zarr.json`, and `NgffFault` is raised if they do not follow the
specification. Paths are '/'-separated and relative to the group that names them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

GROUP_V2, ARRAY_V2, ATTRIBUTES_V2, NODE_V3 = ".zgroup", ".zarray", ".zattrs", "zarr.json"
METADATA_NAMES = frozenset({GROUP_V2, ARRAY_V2, ATTRIBUTES_V2, NODE_V3})
"""Names of the objects that describe groups and arrays."""

_LARGEST = 16 << 20
_MOST_AXES = 8
_MOST_CHUNKS = 1 << 22
_MOST = {"t": 100_000, "c": 1_000, "z": 100_000}
"""The most time points, channels and planes of an image. No instrument writes more, and each of them costs time."""

_OLD_AXES = ("t", "c", "z", "y", "x")
"""Axes of images older than version 0.3, which do not name them."""


class NgffFault(ValueError):
    """Metadata that does not follow the specification. The message says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class WellPath:
    """A well of a plate: the path of its group, and the names of its row and column ("B", "03")."""

    path: str
    row: str
    column: str


@dataclass(frozen=True, slots=True)
class PlateGroup:
    """A plate. `name` is "" if the metadata gives none; `rows` and `columns` are all those of the plate, including those without wells."""

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    wells: tuple[WellPath, ...]


@dataclass(frozen=True, slots=True)
class WellImage:
    """An image of a well: the path of its group below the well, and the number of its acquisition (None if it has none)."""

    path: str
    acquisition: int | None


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image: the path of its array below the image, and the size of a pixel along each axis, in the axes' units."""

    path: str
    scale: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ImageGroup:
    """An image: names of its axes (of "t", "c", "z", "y", "x"), their units ("" for none), its levels from the finest, and the names of
    its channels ("" for a channel without a name; empty if none has a name)."""

    axes: tuple[str, ...]
    units: tuple[str, ...]
    levels: tuple[Level, ...]
    channels: tuple[str, ...]

    def axis(self, name: str) -> int | None:
        """Number of the axis `name`, None if there is no such axis."""
        return self.axes.index(name) if name in self.axes else None

    def sizes(self, array: ZarrArray) -> dict[str, int]:
        """The length of the array along each axis of the image. Raises NgffFault if array and axes do not fit, or a length is not plausible."""
        if len(array.shape) != len(self.axes):
            raise NgffFault(
                f"the array's shape {list(array.shape)} does not go with the axes of its image: {', '.join(self.axes)}"
            )
        sizes = dict(zip(self.axes, array.shape, strict=True))
        for name, most in _MOST.items():
            if sizes.get(name, 1) > most:
                raise NgffFault(
                    f"the array has {sizes[name]:,} along axis {name!r}; {most:,} at most are read"
                )
        return sizes

    def names(self, count: int) -> tuple[str, ...]:
        """The names of its `count` channels: those of the metadata if each channel has a name of its own, else "" for one channel and "0",
        "1", … for several."""
        named = self.channels
        if len(named) == count and all(named) and len(set(named)) == count:
            return named
        return ("",) if count == 1 else tuple(str(number) for number in range(count))

    def unnamed(self, count: int) -> str:
        """Why the names in the metadata are not those of its `count` channels, in words; "" if they are, or if none is there."""
        named = self.channels
        if not any(named) or self.names(count) == named:
            return ""
        if len(named) != count:
            return f"'omero' describes {len(named)} {'channel' if len(named) == 1 else 'channels'}, and the array has {count}"
        twice = next((name for name in named if name and named.count(name) > 1), None)
        return (
            "'omero' leaves a channel without a name"
            if twice is None
            else f"'omero' calls two channels {twice!r}"
        )


@dataclass(frozen=True, slots=True)
class Codec:
    """One step of an array's encoding, by its name in Zarr 3, with its configuration."""

    name: str
    configuration: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An array: its shape, the shape of one stored object (chunk or shard), its type as numpy names it, the value of elements that are not
    stored, and the steps of its encoding in the order of writing. `prefix` and `separator` make the names of its objects."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    fill: Json
    codecs: tuple[Codec, ...]
    prefix: str
    separator: str

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True))

    def chunk_name(self, at: Sequence[int]) -> str:
        """Path of a chunk below the array.

        >>> ZarrArray((4, 4), (2, 2), "u1", 0, (), "c", "/").chunk_name((1, 0))
        'c/1/0'
        """
        return self.separator.join((*([self.prefix] if self.prefix else []), *map(str, at))) or "0"

    def chunks_of(self, chosen: Mapping[int, int | None]) -> Iterator[tuple[int, ...]]:
        """The chunks that hold the elements `chosen`: axis number -> index, or None for the whole axis. Axes that are left out are whole."""
        ranges: list[Iterable[int]] = []
        for axis, (chunk, count) in enumerate(zip(self.chunks, self.grid, strict=True)):
            index = chosen.get(axis)
            ranges.append(range(count) if index is None else (index // chunk,))
        return product(*ranges)


def attributes_of(name: str, body: bytes) -> dict[str, Json]:
    """The OME attributes in the bytes of a group's `.zattrs` or `zarr.json`; {} for an array or a group without any. Raises NgffFault."""
    node = _object(body)
    if name != NODE_V3:
        return node
    attributes = node.get("attributes")
    if node.get("node_type") != "group" or not isinstance(attributes, dict):
        return {}
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def is_array(name: str, body: bytes) -> bool:
    """Whether the bytes of a metadata object describe an array. Raises NgffFault."""
    return name == ARRAY_V2 or (name == NODE_V3 and _object(body).get("node_type") == "array")


def plate_of(attributes: Mapping[str, Json]) -> PlateGroup | None:
    """The plate that a group's attributes describe; None if they describe none. Raises NgffFault."""
    plate = attributes.get("plate")
    if plate is None:
        return None
    if not isinstance(plate, dict):
        raise NgffFault(f"'plate' must be an object (got {_shown(plate)})")
    rows, columns = (_names(plate, key) for key in ("rows", "columns"))
    wells = []
    for well in _objects(plate, "wells"):
        path = _path(well.get("path"), "a well's path")
        row, _, column = path.partition("/")
        if not column or "/" in column:
            raise NgffFault(f"a well's path is ROW/COLUMN, such as 'B/03' (got {path!r})")
        wells.append(WellPath(path, row, column))
    if len({well.path for well in wells}) < len(wells):
        raise NgffFault("the plate names a well twice")
    name = plate.get("name")
    return PlateGroup(name if isinstance(name, str) else "", rows, columns, tuple(wells))


def well_of(attributes: Mapping[str, Json]) -> tuple[WellImage, ...] | None:
    """The images of the well that a group's attributes describe; None if they describe none. Raises NgffFault."""
    well = attributes.get("well")
    if well is None:
        return None
    if not isinstance(well, dict):
        raise NgffFault(f"'well' must be an object (got {_shown(well)})")
    images = []
    for image in _objects(well, "images"):
        acquisition = image.get("acquisition")
        images.append(
            WellImage(
                _path(image.get("path"), "an image's path"),
                acquisition if isinstance(acquisition, int) and not isinstance(acquisition, bool) else None,
            )
        )
    if len({image.path for image in images}) < len(images):
        raise NgffFault("the well names an image twice")
    return tuple(images)


def holds_series(attributes: Mapping[str, Json]) -> bool:
    """Whether a group's attributes say that its children "0", "1", … are images (the layout of bioformats2raw)."""
    return "bioformats2raw.layout" in attributes


def image_of(attributes: Mapping[str, Json]) -> ImageGroup | None:
    """The image that a group's attributes describe; None if they describe none. The first of several multiscales is used. Raises NgffFault."""
    if "multiscales" not in attributes:
        return None
    scales = _objects(attributes, "multiscales")
    if not scales:
        raise NgffFault("'multiscales' is empty")
    axes, units = _axes(scales[0])
    outer = _scale(scales[0], len(axes))
    levels = []
    for dataset in _objects(scales[0], "datasets"):
        own = _scale(dataset, len(axes))
        scale = tuple(a * b for a, b in zip(own, outer, strict=True)) if own and outer else own
        levels.append(Level(_path(dataset.get("path"), "a dataset's path"), scale))
    if not levels:
        raise NgffFault("'datasets' is empty: the image has no resolution level")
    return ImageGroup(axes, units, tuple(levels), _channels(attributes))


def array_of(name: str, body: bytes) -> ZarrArray:
    """The array that the bytes of its `.zarray` or `zarr.json` describe. Raises NgffFault."""
    node = _object(body)
    array = _array_v3(node) if name == NODE_V3 else _array_v2(node)
    if len(array.shape) > _MOST_AXES:
        raise NgffFault(f"the array has {len(array.shape)} axes; {_MOST_AXES} at most are read")
    if math.prod(array.grid) > _MOST_CHUNKS:
        raise NgffFault(f"the array has {math.prod(array.grid):,} chunks; {_MOST_CHUNKS:,} at most are read")
    return array


def _array_v2(node: dict[str, Json]) -> ZarrArray:
    if node.get("zarr_format") != 2:
        raise NgffFault(f"zarr_format must be 2 (got {_shown(node.get('zarr_format'))})")
    shape, chunks = _sizes(node, "shape", least=0), _sizes(node, "chunks", least=1)
    _same_length(shape, chunks)
    dtype = node.get("dtype")
    if not isinstance(dtype, str):
        raise NgffFault(f"dtype must be a simple type such as '<u2' (got {_shown(dtype)})")
    codecs = []
    if node.get("order", "C") == "F":
        codecs.append(Codec("transpose", {"order": list(reversed(range(len(shape))))}))
    codecs.append(Codec("bytes", {}))
    filters = node.get("filters")
    steps = [*(filters if isinstance(filters, list) else []), node.get("compressor")]
    codecs += [_codec_v2(step) for step in steps if step is not None]
    separator = node.get("dimension_separator", ".")
    if separator not in (".", "/"):
        raise NgffFault(f"dimension_separator must be '.' or '/' (got {_shown(separator)})")
    return ZarrArray(shape, chunks, dtype, node.get("fill_value"), tuple(codecs), "", str(separator))


def _codec_v2(step: Json) -> Codec:
    if not isinstance(step, dict) or not isinstance(step.get("id"), str):
        raise NgffFault(f"a compressor or filter must name its 'id' (got {_shown(step)})")
    return Codec(str(step["id"]), step)


def _array_v3(node: dict[str, Json]) -> ZarrArray:
    if node.get("zarr_format") != 3 or node.get("node_type") != "array":
        raise NgffFault("zarr_format must be 3 and node_type 'array'")
    shape = _sizes(node, "shape", least=0)
    grid = _named(node.get("chunk_grid"), "chunk_grid")
    if grid.name != "regular":
        raise NgffFault(f"the chunk grid {grid.name!r} is not read; 'regular' is")
    chunks = _sizes(grid.configuration, "chunk_shape", least=1)
    _same_length(shape, chunks)
    dtype = node.get("data_type")
    if not isinstance(dtype, str):
        raise NgffFault(f"data_type must be a simple type such as 'uint16' (got {_shown(dtype)})")
    encoding = _named(node.get("chunk_key_encoding"), "chunk_key_encoding")
    if encoding.name not in ("default", "v2"):
        raise NgffFault(f"the chunk key encoding {encoding.name!r} is not read; 'default' and 'v2' are")
    separator = encoding.configuration.get("separator", "/" if encoding.name == "default" else ".")
    if separator not in (".", "/"):
        raise NgffFault(f"the separator of chunk keys must be '.' or '/' (got {_shown(separator)})")
    prefix = "c" if encoding.name == "default" else ""
    if transformers := node.get("storage_transformers"):
        raise NgffFault(f"storage transformers are not read (got {_shown(transformers)})")
    codecs = codecs_of(node.get("codecs"))
    return ZarrArray(shape, chunks, dtype, node.get("fill_value"), codecs, prefix, str(separator))


def codecs_of(steps: Json) -> tuple[Codec, ...]:
    """The codecs that Zarr 3 metadata lists. Raises NgffFault."""
    if not isinstance(steps, list) or not steps:
        raise NgffFault(f"'codecs' must be a list of codecs (got {_shown(steps)})")
    return tuple(_named(step, "codecs") for step in steps)


def _named(value: Json, what: str) -> Codec:
    if isinstance(value, str):
        return Codec(value, {})
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise NgffFault(f"{what!r} must have a 'name' (got {_shown(value)})")
    configuration = value.get("configuration", {})
    if not isinstance(configuration, dict):
        raise NgffFault(f"the configuration of {what!r} must be an object (got {_shown(configuration)})")
    return Codec(str(value["name"]), configuration)


def _object(body: bytes) -> dict[str, Json]:
    if len(body) > _LARGEST:
        raise NgffFault(f"the metadata has {len(body):,} bytes; {_LARGEST:,} at most are read")
    try:
        node = json.loads(body)
    except json.JSONDecodeError as error:
        raise NgffFault(
            f"the metadata is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise NgffFault(f"the metadata is not JSON: {str(error)[:120]}") from None
    if not isinstance(node, dict):
        raise NgffFault(f"the metadata must be a JSON object (got {_shown(node)})")
    return node


def _objects(node: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    found = node.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise NgffFault(f"{key!r} must be a list of objects (got {_shown(found)})")
    return [each for each in found if isinstance(each, dict)]


def _names(node: Mapping[str, Json], key: str) -> tuple[str, ...]:
    return tuple(str(each.get("name", "")) for each in _objects(node, key)) if key in node else ()


def _path(value: Json, what: str) -> str:
    """A path below the group. Some writers give numbers, some add a '/' at the end."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or any(
        part in ("", ".", "..") or "\0" in part for part in text.rstrip("/").split("/")
    ):
        raise NgffFault(f"{what} must lead to a place below the group that names it (got {_shown(value)})")
    return text.rstrip("/")


def _axes(scales: dict[str, Json]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    said = scales.get("axes")
    if said is None:
        return _OLD_AXES, ("",) * len(_OLD_AXES)
    if not isinstance(said, list):
        raise NgffFault(f"'axes' must be a list (got {_shown(said)})")
    names = [str(axis.get("name")) if isinstance(axis, dict) else str(axis) for axis in said]
    units = [str(axis.get("unit") or "") if isinstance(axis, dict) else "" for axis in said]
    if not {"y", "x"} <= set(names) or len(set(names)) < len(names) or not set(names) <= set(_OLD_AXES):
        raise NgffFault(f"axes must be y and x, and of t, c and z those there are, each once (got {names})")
    return tuple(names), tuple(units)


def _scale(node: dict[str, Json], axes: int) -> tuple[float, ...]:
    """The pixel sizes in the coordinate transformations of a dataset or image; () if they state none."""
    steps = node.get("coordinateTransformations")
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and step.get("type") == "scale":
            scale = step.get("scale")
            if not isinstance(scale, list) or len(scale) != axes:
                raise NgffFault(f"a scale must have {axes} numbers, one an axis (got {_shown(scale)})")
            numbers = [
                float(each) for each in scale if isinstance(each, int | float) and not isinstance(each, bool)
            ]
            if len(numbers) != axes:
                raise NgffFault(f"a scale must be made of numbers (got {_shown(scale)})")
            return tuple(numbers)
    return ()


def _channels(attributes: Mapping[str, Json]) -> tuple[str, ...]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return ()
    labels = [channel.get("label") if isinstance(channel, dict) else None for channel in channels]
    return tuple(label.strip() if isinstance(label, str) else "" for label in labels)


def _sizes(node: Mapping[str, Json], key: str, least: int) -> tuple[int, ...]:
    found = node.get(key)
    sizes = found if isinstance(found, list) else []
    numbers = tuple(each for each in sizes if isinstance(each, int) and not isinstance(each, bool))
    if not isinstance(found, list) or len(numbers) != len(sizes) or any(each < least for each in numbers):
        raise NgffFault(f"{key!r} must be whole numbers of {least} and more (got {_shown(found)})")
    return numbers


def _same_length(shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    if len(shape) != len(chunks):
        raise NgffFault(f"the array has {len(shape)} axes and its chunks {len(chunks)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
