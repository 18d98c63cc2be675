"""OME-Zarr for tests: arrays written by the zarr library, their metadata by hand, and what of them is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from cellcount_core.images.reader import Reader, Whole

AXES = ("t", "c", "z", "y", "x")
TYPES = {"t": "time", "c": "channel"}
Json = dict[str, object]


def multiscales(
    axes: Sequence[str],
    paths: Sequence[str] = ("0",),
    um: float | None = 0.5,
    channels: Sequence[str] = (),
    unit: str = "micrometer",
) -> Json:
    """The attributes of an image: each level half as fine as the one before."""
    said = [
        {"name": name, "type": TYPES.get(name, "space"), **({"unit": unit} if name in "zyx" and unit else {})}
        for name in axes
    ]
    levels = []
    for number, path in enumerate(paths):
        scale = [(um or 1) * 2**number if name in "yx" else 1 for name in axes]
        steps = [{"type": "scale", "scale": scale}] if um else []
        levels.append({"path": path, "coordinateTransformations": steps})
    attributes: Json = {"multiscales": [{"version": "0.4", "axes": said, "datasets": levels}]}
    if channels:
        attributes["omero"] = {"channels": [{"label": name} for name in channels]}
    return attributes


def write_group(folder: Path, attributes: Json, version: str) -> None:
    """A group with attributes, of OME-Zarr `version`."""
    folder.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        if attributes:
            (folder / ".zattrs").write_text(json.dumps(attributes))
        return
    node: Json = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    if attributes:
        node["attributes"] = {"ome": {"version": version, **attributes}}
    (folder / "zarr.json").write_text(json.dumps(node))


def write_array(folder: Path, pixels: NDArray[np.generic], version: str, **settings: object) -> None:
    """An array by the zarr library: nested chunks, one chunk a plane unless `settings` say otherwise."""
    defaults: Json = {"chunks": (1,) * (pixels.ndim - 2) + pixels.shape[-2:]}
    if version == "0.4":
        defaults |= {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}}
    array = zarr.create_array(
        str(folder), shape=pixels.shape, dtype=pixels.dtype, **(defaults | settings), overwrite=True
    )
    array[...] = pixels


def write_image(
    folder: Path,
    pixels: NDArray[np.generic],
    axes: Sequence[str] = ("c", "z", "y", "x"),
    version: str = "0.4",
    *,
    channels: Sequence[str] = (),
    um: float | None = 0.5,
    levels: int = 1,
    **settings: object,
) -> None:
    """An image of several levels, each every second pixel of the one before."""
    paths = [str(number) for number in range(levels)]
    write_group(folder, multiscales(axes, paths, um, channels), version)
    for number, path in enumerate(paths):
        write_array(folder / path, pixels[..., :: 2**number, :: 2**number], version, **settings)


def write_plate(
    folder: Path,
    wells: Mapping[str, Mapping[str, NDArray[np.generic]]],
    version: str = "0.4",
    **image: object,
) -> None:
    """A plate: by the paths of wells ("B/03") and of their images ("0") the pixels."""
    rows, columns = (sorted({well.split("/")[at] for well in wells}) for at in (0, 1))
    plate: Json = {
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": [
            {"path": well, "rowIndex": rows.index(well[0]), "columnIndex": columns.index(well.split("/")[1])}
            for well in wells
        ],
        "version": version,
    }
    write_group(folder, {"plate": plate}, version)
    for well, images in wells.items():
        write_group(folder / well.split("/")[0], {}, version)
        write_group(folder / well, {"well": {"images": [{"path": path} for path in images]}}, version)
        for path, pixels in images.items():
            write_image(folder / well / path, pixels, version=version, **image)  # type: ignore[arg-type]


def parts_of(root: Path, array: str) -> dict[str, Reader]:
    """All objects of an array below `root` and the metadata of its image, by their keys."""
    folder = root / array
    files = [path for path in folder.rglob("*") if path.is_file()]
    files += [path for path in folder.parent.iterdir() if path.is_file()]
    return {path.relative_to(root).as_posix(): Whole(path.read_bytes()) for path in files}
