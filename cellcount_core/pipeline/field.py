"""One field from files to rows: decode -> prepare -> find -> rows.

`examine` looks at a field from its decoded planes, and whatever counts calls it: workers, evaluation, training and benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import OBJECT_NUMBER
from cellcount_core.domain.errors import FieldFault, Reason, Status
from cellcount_core.domain.fields import PlannedField
from cellcount_core.domain.scales import FieldScale, ScaleSource
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import without_debris
from cellcount_core.images.quality import assess
from cellcount_core.images.scale import resize, resized_shape
from cellcount_core.pipeline.device import AskedOnce
from cellcount_core.pipeline.doubts import colour_doubts, doubts
from cellcount_core.pipeline.files import Loaded
from cellcount_core.pipeline.kit import FieldKit, PlanesKit
from cellcount_core.pipeline.maps import FieldMaps, canvas_maps, levels, vector_of
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from cellcount_core.pipeline.rows import CHANNEL, Examined, FieldView, field_values
from cellcount_core.pipeline.scaling import field_scale, is_another_size
from cellcount_core.tables.labels import label_key, label_tiff
from cellcount_core.tables.rows import FieldRow, ObjectRows
from cellcount_core.tasks.task import Found, Preparation, SizeEstimate

_ODD = 1.4
"""Times by which the median object of a field may differ from its plate's before the field is asked for its own size."""


@dataclass(frozen=True, slots=True)
class FieldResult:
    """A field's row, its objects (None unless it was counted, and for a task without objects) and the pixels decoded for it."""

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


def decode(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> Pixels:
    """The pixels of a field, whose files are let go. Raises FieldFault for whatever is wrong with them."""
    with kit.clock("decode"):
        pixels = load_pixels(planned, files, kit.counted, kit.measured, kit.run)
        for file in files.values():
            file.release()
    return pixels


def examine(kit: PlanesKit, pixels: Pixels, plate: str = "") -> Examined:
    """Look at one field from its planes: each is normalised as it is, then prepared as the package's task asks.

    `plate` is whose object sizes the run may know. Raises FieldFault if the field cannot be counted, MemoryError if it
    does not fit.
    """
    view = prepare(kit, pixels, plate)
    found = kit.head.find(view)
    if _odd_of_its_plate(view, found):
        own = prepare(replace(kit, scales={}), pixels, plate)
        if is_another_size(view.scale, own.scale):
            view, found = own, kit.head.find(own)
    odd = doubts(view, found, kit.package)
    colours = colour_doubts(pixels, view.norms[0], kit.package)
    told = (*pixels.warnings, *colours, *view.warnings, *found.warnings, *odd)
    return Examined(pixels, view.qualities, view.scale, view.shape, found, tuple(dict.fromkeys(told)))


def prepare(kit: PlanesKit, pixels: Pixels, plate: str = "") -> FieldView:
    """The first half of `examine`: all that comes before the task looks at the field. Raises FieldFault as `examine` does."""
    raw = [pixels.planes[selection.name] for selection in kit.counted]
    with kit.clock("prepare"):
        norms = levels(raw, kit.package.input)
        qualities = tuple(assess(plane, pixels.bit_max, norm) for plane, norm in zip(raw, norms, strict=True))
        planes = [without_debris(plane, norm) for plane, norm in zip(raw, norms, strict=True)]
    view = FieldView(
        planes=pixels.planes,
        counted=tuple(selection.name for selection in kit.counted),
        measured=kit.schema.channels,
        um_per_px=pixels.um_per_px,
        run=kit.run,
        clock=kit.clock,
        norms=norms,
        qualities=qualities,
    )
    if kit.task.preparation is not Preparation.OBJECT_SIZE:
        side = kit.task.side(kit.package)
        return replace(view, vector_maker=lambda: vector_of(planes, norms, side, kit.device))
    return _at_object_size(kit, view, planes, plate)


def _at_object_size(kit: PlanesKit, view: FieldView, planes: list[Plane], plate: str) -> FieldView:
    device = AskedOnce(kit.device)

    def size() -> SizeEstimate:
        return kit.head.size(tuple(planes), lambda canvas: canvas_maps(canvas, kit.package, device))

    with kit.clock("size"):
        scale, said = field_scale(kit.run, kit.package, kit.scales, plate, view.shape, view.um_per_px, size)
    device.keep_no_more()
    _check_enlarged(view.shape, scale, kit.run)
    with kit.clock("prepare"):
        scaled = [resize(plane, scale.factor) for plane in planes]
    maps = FieldMaps(scaled, view.norms, kit.package, device, kit.run.tile)
    return replace(view, scale=scale, warnings=said, field_maps=maps)


def _odd_of_its_plate(view: FieldView, found: Found) -> bool:
    """Whether a field that was counted at its plate's object size has a reason to be asked for its own: no objects though it
    is not empty, or objects of another size."""
    scale = view.scale
    if scale.source is not ScaleSource.POOL or scale.diameter_px is None or found.objects is None:
        return False
    if found.objects.diameter_px is None:
        return not view.empty
    return not 1 / _ODD <= found.objects.diameter_px / scale.diameter_px <= _ODD


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


def _counted(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    pixels = decode(kit, planned, files)
    seen = examine(kit, pixels, planned.key.plate)
    if kit.run.labels == "tiff" and seen.found.labels is not None:
        with kit.clock("labels"):
            _write_labels(kit, planned, seen.found)
    return rows_of(kit, planned, seen)


def _write_labels(kit: FieldKit, planned: PlannedField, found: Found) -> None:
    assert found.labels is not None
    channel = kit.counted[0].channel
    source = next(source for source in planned.sources if source.channel in (channel, ""))
    kit.output.put(label_key(source), label_tiff(found.labels))


def rows_of(kit: FieldKit, planned: PlannedField, seen: Examined) -> FieldResult:
    """What the tables say of a field that was looked at."""
    height, width = seen.shape
    pixels = height * width * len(kit.counted)
    counted = tuple(selection.name for selection in kit.counted)
    row = FieldRow(
        key=planned.key,
        z_mode=str(kit.run.z),
        status=Status.OK,
        source=_sources(kit, planned),
        warnings=seen.warnings,
        values=field_values(seen, counted, kit.schema),
    )
    if seen.found.objects is None:
        return FieldResult(row, None, pixels)
    columns, moments = seen.found.objects.rows()
    # A run that an earlier version planned has the columns of that version.
    known = {OBJECT_NUMBER.name, *(column.name for column in kit.schema.objects)}
    objects = ObjectRows(planned.key, {name: values for name, values in columns.items() if name in known})
    measured = {column.name for column in kit.schema.measured}
    moments = {name: its for name, its in moments.items() if name in measured}
    return FieldResult(replace(row, moments=moments), objects, pixels)


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
