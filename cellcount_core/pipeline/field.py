"""One field from files to rows: decode -> prepare -> infer -> separate -> measure.

`examine` counts a field from its decoded planes, and whatever counts calls it: workers, evaluation, training and benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import Value
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason, Status
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.scales import FieldScale, ScaleSource
from cellcount_core.images.normalise import Normalisation, without_debris
from cellcount_core.images.quality import Quality, assess
from cellcount_core.images.scale import resize, resized_shape
from cellcount_core.models.package import Package
from cellcount_core.pipeline.device import AskedOnce
from cellcount_core.pipeline.doubts import colour_doubts, doubts
from cellcount_core.pipeline.files import Loaded
from cellcount_core.pipeline.kit import FieldKit, PlanesKit
from cellcount_core.pipeline.maps import FieldMaps, canvas_maps, levels
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from cellcount_core.pipeline.rows import CHANNEL, Examined, field_values
from cellcount_core.pipeline.scaling import field_scale, is_another_size
from cellcount_core.pipeline.separate import Counted, separate_field
from cellcount_core.tables.labels import label_key, label_tiff
from cellcount_core.tables.rows import FieldRow, ObjectRows
from cellcount_core.tasks.instances.columns import (
    FIELD,
    TWO_SIZES,
    CountedObjects,
    object_moments,
    object_values,
)

_ODD = 1.4
"""Times by which the median object of a field may differ from its plate's before the field is asked for its own size."""


@dataclass(frozen=True, slots=True)
class FieldResult:
    """A field's row, its objects (None unless it was counted) and the pixels decoded for it."""

    row: FieldRow
    objects: ObjectRows | None
    pixels: int


def count_field(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    """Count one field. What is wrong with it becomes its row; RunFaults are raised, and MemoryError where it does not fit."""
    if planned.reason is not None:
        return _not_counted(kit, planned, planned.reason, planned.detail)
    try:
        return _counted(kit, planned, files)
    except FieldFault as fault:
        return _not_counted(kit, planned, fault.reason, str(fault))


def count_alone(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    """As `count_field`, with nothing else in hand: what does not fit now never will, and becomes its row."""
    try:
        return count_field(kit, planned, files)
    except MemoryError as error:
        return _not_counted(kit, planned, Reason.OUT_OF_MEMORY, str(error) or "no memory left for this field")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A field at the scale it is counted at: the levels of its counted planes, and the network's maps, made when asked for."""

    norms: tuple[Normalisation, ...]
    quality: Quality
    scale: FieldScale
    maps: FieldMaps
    warnings: tuple[str, ...]


def decode(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> Pixels:
    """The pixels of a field, whose files are let go. Raises FieldFault for whatever is wrong with them."""
    with kit.clock("decode"):
        pixels = load_pixels(planned, files, kit.counted, kit.measured, kit.run)
        for file in files.values():
            file.release()
    return pixels


def examine(kit: PlanesKit, pixels: Pixels, plate: str = "") -> Examined:
    """Count one field from its planes: each is normalised as it is, then brought to the model's scale.

    `plate` is whose object sizes the run may know. Raises FieldFault where the field cannot be counted, MemoryError where it
    does not fit.
    """
    prepared = prepare(kit, pixels, plate)
    found = separate_field(prepared.maps, _shape(kit, pixels), pixels.planes, kit)
    if _odd_of_its_plate(prepared, found):
        own = prepare(replace(kit, scales={}), pixels, plate)
        if is_another_size(prepared.scale, own.scale):
            prepared, found = own, separate_field(own.maps, _shape(kit, pixels), pixels.planes, kit)
    domain = kit.package.domain
    unlike = domain.unlikeness(found.likeness) if domain is not None and found.likeness is not None else None
    channel = kit.counted[0].name
    plane = pixels.planes[channel]
    odd = doubts(
        channel, plane, prepared.norms[0], prepared.quality, prepared.scale, found, unlike, kit.package
    )
    colours = colour_doubts(pixels, prepared.norms[0], kit.package)
    told = (*pixels.warnings, *colours, *prepared.warnings, *found.warnings, *odd)
    warnings = tuple(dict.fromkeys(told))
    return Examined(
        pixels,
        prepared.quality,
        prepared.scale,
        found,
        unlike,
        warnings,
        _shape(kit, pixels),
        _values(kit, found, warnings, _shape(kit, pixels)),
    )


def prepare(kit: PlanesKit, pixels: Pixels, plate: str = "") -> Prepared:
    """The first half of `examine`: all that comes before objects are looked for. Raises FieldFault as `examine` does."""
    planes = [pixels.planes[selection.name] for selection in kit.counted]
    with kit.clock("prepare"):
        norms = levels(planes, kit.package.input)
        quality = assess(planes[0], pixels.bit_max, norms[0])
        planes = [without_debris(plane, norm) for plane, norm in zip(planes, norms, strict=True)]
    device = AskedOnce(kit.device)
    with kit.clock("size"):
        scale, said = field_scale(
            kit.run,
            kit.package,
            kit.scales,
            plate,
            planes[0],
            pixels.um_per_px,
            lambda canvas: canvas_maps(canvas, kit.package, device),
        )
    device.keep_no_more()
    _check_enlarged(_shape(kit, pixels), scale, kit.run)
    with kit.clock("prepare"):
        scaled = [resize(plane, scale.factor) for plane in planes]
    return Prepared(norms, quality, scale, FieldMaps(scaled, norms, kit.package, device, kit.run.tile), said)


def _odd_of_its_plate(prepared: Prepared, found: Counted) -> bool:
    """Whether a field that was counted at its plate's object size has a reason to be asked for its own: no objects though it
    is not empty, or objects of another size."""
    scale = prepared.scale
    if scale.source is not ScaleSource.POOL or scale.diameter_px is None:
        return False
    if found.diameter_px is None:
        return not prepared.quality.empty
    return not 1 / _ODD <= found.diameter_px / scale.diameter_px <= _ODD


def _check_enlarged(shape: tuple[int, int], scale: FieldScale, run: RunConfig) -> None:
    """A size told far too small must not ask for all memory: what a field is enlarged to is bounded as what it is read from."""
    height, width = resized_shape(shape, scale.factor)
    if scale.factor > 1 and height * width > run.max_pixels:
        told = f"objects of {scale.diameter_px:.3g} px" if scale.diameter_px is not None else "its scale"
        raise FieldFault(
            Reason.TOO_MANY_PIXELS,
            f"{told} would be counted in {width} x {height} px (enlarged {scale.factor:.3g} times); run.max_pixels allows "
            f"{run.max_pixels:,} in one image: give the diameter of the objects (--diameter PX), or --diameter model",
        )


def _shape(kit: PlanesKit, pixels: Pixels) -> tuple[int, int]:
    height, width = pixels.planes[kit.counted[0].name].shape
    return height, width


def _counted(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    seen = examine(kit, decode(kit, planned, files), planned.key.plate)
    if kit.run.labels == "tiff":
        with kit.clock("labels"):
            _write_labels(kit, planned, seen.found)
    return rows_of(kit, planned, seen)


def rows_of(kit: FieldKit, planned: PlannedField, seen: Examined) -> FieldResult:
    """What the tables say of a field that was counted."""
    objects = _object_rows(kit, planned, seen)
    height, width = seen.shape
    return FieldResult(_row(kit, planned, seen, objects), objects, height * width * len(kit.counted))


def _write_labels(kit: FieldKit, planned: PlannedField, found: Counted) -> None:
    assert found.labels is not None
    channel = kit.counted[0].channel
    source = next(source for source in planned.sources if source.channel in (channel, ""))
    kit.output.put(label_key(source), label_tiff(found.labels))


def _row(kit: FieldKit, planned: PlannedField, seen: Examined, objects: ObjectRows) -> FieldRow:
    return FieldRow(
        key=planned.key,
        z_mode=str(kit.run.z),
        status=Status.OK,
        source=_sources(kit, planned),
        warnings=seen.warnings,
        values=field_values(seen, kit.counted[0].name, kit.schema),
        moments=object_moments(objects.columns, kit.schema.objects),
    )


def _interval_of(package: Package, found: Counted, warnings: tuple[str, ...]) -> tuple[float, float] | None:
    """The interval of the count; none for a field unlike those it was calibrated on, whose errors are not known."""
    if package.interval is None or Doubt.OUT_OF_DOMAIN in warnings:
        return None
    return package.interval.around(found.count)


def _values(
    kit: PlanesKit, found: Counted, warnings: tuple[str, ...], shape: tuple[int, int]
) -> dict[str, Value]:
    """What the task says of a field."""
    seen = CountedObjects(found.table, shape, _interval_of(kit.package, found, warnings), found.sizes)
    return {made.column.name: made.value(seen) for made in (*FIELD, TWO_SIZES)}


def _object_rows(kit: FieldKit, planned: PlannedField, seen: Examined) -> ObjectRows:
    columns = object_values(seen.found.table, kit.schema.object_name, seen.pixels.um_per_px)
    return ObjectRows(planned.key, columns)


def _not_counted(kit: FieldKit, planned: PlannedField, reason: Reason, detail: str) -> FieldResult:
    row = FieldRow(
        key=planned.key,
        z_mode=str(kit.run.z),
        status=reason.status,
        reason=reason,
        detail=detail,
        source=_sources(kit, planned),
        values={CHANNEL.name: kit.counted[0].name},
    )
    return FieldResult(row, None, 0)


def _sources(kit: FieldKit, planned: PlannedField) -> tuple[str, ...]:
    """Files of the counted channels; all of the field's files where planning found none of them usable."""
    channels = {selection.channel for selection in kit.counted} | {""}
    counted = [source.key for source in planned.sources if source.channel in channels]
    return tuple(dict.fromkeys(counted or [source.key for source in planned.sources]))
