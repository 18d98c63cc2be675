"""The decoded pixels of a field: one plane a channel, planes of a stack joined, calibration from the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.domain.config import RunConfig
from cellcount_core.domain.errors import FieldFault, Reason
from cellcount_core.domain.fields import PlannedField, Selection, Source
from cellcount_core.images.decode import ImageFile, Plane
from cellcount_core.images.project import project
from cellcount_core.pipeline.files import LoadedFile


@dataclass(frozen=True, slots=True)
class Pixels:
    """Planes (H, W) by channel name, in raw units, all of one size.

    `um_per_px` is None where it is unknown; `bit_max` the largest value the counted channel can take.
    """

    planes: Mapping[str, Plane]
    um_per_px: float | None
    bit_max: int
    warnings: tuple[str, ...]


def load_pixels(
    planned: PlannedField,
    files: Mapping[str, LoadedFile],
    counted: Sequence[Selection],
    measured: Sequence[Selection],
    run: RunConfig,
) -> Pixels:
    """Decode the counted and measured channels of a field.

    A measured channel that is not there becomes a warning; a counted one raises FieldFault, as does whatever else is wrong
    with a file.
    """
    planes: dict[str, Plane] = {}
    warnings: list[str] = []
    calibrations: list[float] = []
    bit_max = 0
    for selection in dict.fromkeys((*counted, *measured)):
        sources = [source for source in planned.sources if source.channel in (selection.channel, "")]
        if not sources and selection not in counted:
            warnings.append(f"channel_missing:{selection.name}")
            continue
        if not sources:
            raise FieldFault(
                Reason.CHANNEL_MISSING, f"channel {selection.channel!r} has no file in this field"
            )
        images = [(source, files[source.key].image()) for source in sources]
        planes[selection.name] = _plane(images, selection, run)
        if selection in counted:
            bit_max = max(bit_max, *(image.bit_max for _, image in images))
            calibrations += [image.um_per_px for _, image in images if image.um_per_px is not None]
    _check_sizes(planes, planned)
    um_per_px, said = _calibration(calibrations, run.um_per_px)
    return Pixels(planes, um_per_px, bit_max, (*warnings, *said))


def _plane(images: Sequence[tuple[Source, ImageFile]], selection: Selection, run: RunConfig) -> Plane:
    ordered = sorted(images, key=lambda pair: pair[0].plane)
    if isinstance(run.z, int) and len(ordered) > 1:
        chosen = [pair for pair in ordered if pair[0].plane == run.z]
        if not chosen:
            known = ", ".join(str(source.plane) for source, _ in ordered)
            raise FieldFault(
                Reason.ABSENT, f"plane {run.z} of channel {selection.name!r} is not there (planes: {known})"
            )
        return _read(*chosen[0], selection, 0)
    if len(ordered) > 1:
        kept = ordered[:1] if run.z == "first" else ordered
        return project((_read(source, image, selection, 0) for source, image in kept), run.z)
    source, image = ordered[0]
    if image.planes == 1:
        return _read(source, image, selection, 0)
    if isinstance(run.z, int):
        if not 1 <= run.z <= image.planes:
            raise FieldFault(
                Reason.WRONG_SHAPE, f"plane {run.z} asked for, the file has 1 to {image.planes}", source.key
            )
        return _read(source, image, selection, run.z - 1)
    last = 1 if run.z == "first" else image.planes
    return project((_read(source, image, selection, plane) for plane in range(last)), run.z)


def _read(source: Source, image: ImageFile, selection: Selection, plane: int) -> Plane:
    # Where the name of the file says the channel, the file need not call it the same.
    named_by_file = source.channel != "" and selection.channel not in image.channels
    inside = "" if named_by_file else selection.channel
    return image.read(inside, plane, max(0, source.index))


def _check_sizes(planes: Mapping[str, Plane], planned: PlannedField) -> None:
    shapes = {name: plane.shape for name, plane in planes.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name}: {shape[1]} x {shape[0]}" for name, shape in shapes.items())
        raise FieldFault(Reason.WRONG_SHAPE, f"channels differ in size ({sizes})", planned.sources[0].key)


def _calibration(found: Sequence[float], override: float | None) -> tuple[float | None, list[str]]:
    distinct = [value for value in found if abs(value - found[0]) > 0.01 * found[0]]
    if override is not None:
        differs = any(abs(value - override) > 0.01 * override for value in found)
        return override, ["calibration_overridden"] if differs else []
    if distinct:
        return None, ["calibration_contradictory"]
    return (found[0], []) if found else (None, [])
