"""One field from its files to its rows: decode, prepare, find, rows.

`count_field` does all of it for a run. `examine` starts from decoded planes; workers, evaluation, training and benchmarks all
look at a field through it, so they all count the same. `recount` looks at some fields of a run again and writes nothing. What
fields are counted with (package, task, device) is a kit: `open_kit` makes that of a run, `planes_kit` one for images in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.columns import OBJECT_NUMBER, Schema
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, ModelFault, Reason, Status
from cellcount_core.domain.fields import PlannedField, Selection
from cellcount_core.domain.scales import (
    ALL_PLATES,
    FieldScale,
    PlateNumbers,
    PlateSize,
    ScaleSource,
    ShownSize,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import Normalisation, without_debris
from cellcount_core.images.pixels import resize, resized_shape
from cellcount_core.images.quality import assess
from cellcount_core.layouts.registry import kind_of
from cellcount_core.models.engines import Engine, check_golden, load_engine, resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.output.labels import label_key, label_tiff
from cellcount_core.output.rows import FieldRow, ObjectRows
from cellcount_core.pipeline.context import RunContext, StageClock, package_of
from cellcount_core.pipeline.device import AskedOnce, Device
from cellcount_core.pipeline.doubts import colour_doubts, doubts
from cellcount_core.pipeline.files import Loaded, read_fields
from cellcount_core.pipeline.maps import FieldMaps, FieldVectors, canvas_maps, levels, network_planes
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from cellcount_core.pipeline.rows import CHANNEL, Examined, FieldView, field_values, run_schema
from cellcount_core.stores.base import Store
from cellcount_core.stores.open import open_store
from cellcount_core.tasks.object_size.factor import PlateSizes, field_scale, is_another_size
from cellcount_core.tasks.task import Found, Head, Preparation, Shape, SizeEstimate, Task, task_of


@dataclass(frozen=True, slots=True)
class PlanesKit:
    """What is needed to count a field from its planes.

    `task` is what the package is for, and `head` looks at fields. `counted` are the channels of the package's roles, in their
    order. `plate_sizes` are the object sizes found when the run was planned, by plate, height and width. `usual_shapes` are the
    (H, W) of most images of a plate, for the plates of which most have one. `plate_numbers` are the numbers that the task found then, by
    plate, and `shown_sizes` the object sizes that contradict the diameter given. `beside` has the network of the package beside this one, if there
    is one.
    """

    run: RunConfig
    package: Package
    task: Task
    head: Head
    schema: Schema
    plate_sizes: PlateSizes
    usual_shapes: Mapping[str, Shape]
    counted: tuple[Selection, ...]
    device: Device
    clock: StageClock
    plate_numbers: Mapping[str, PlateNumbers]
    shown_sizes: Mapping[str, ShownSize]
    beside: Device | None = None

    def close(self) -> None:
        """End the devices' threads."""
        self.device.close()
        if self.beside is not None:
            self.beside.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldKit(PlanesKit):
    """What is needed to count the fields of a run: beside the above, the measured channels and the store for label images."""

    measured: tuple[Selection, ...]
    output: Store


def open_kit(context: RunContext, device: Device | None = None, beside: Device | None = None) -> FieldKit:
    """The kit of a run, on `device` and, for a package beside its own, `beside`, or else on new ones, whose threads are started here.

    Raises ModelFault if the package on this machine is not the one that the run was planned with, or fails its golden tensors.
    """
    package = _package(context)
    return FieldKit(
        run=context.run,
        package=package,
        task=task_of(package),
        head=task_of(package).head(package),
        schema=context.schema,
        plate_sizes={(s.plate, s.height_px, s.width_px): s for s in context.plate_sizes},
        usual_shapes=usual_shapes(context.run, context.plate_sizes),
        counted=context.counted,
        measured=context.measured,
        output=open_store(context.output_url, context.output_options),
        device=device or open_device(package, context.engine, context.threads),
        beside=beside or _open_beside(package, context),
        clock=StageClock(),
        plate_numbers={found.plate: found for found in context.plate_numbers},
        shown_sizes={shown.plate: shown for shown in context.shown_sizes},
    )


def _open_beside(package: Package, context: RunContext) -> Device | None:
    if package.beside is None:
        return None
    return open_device(package.beside, engine_beside(package.beside, context.engine), context.threads)


def engine_beside(package: Package, engine: str) -> str:
    """The engine of a package beside another that `engine` runs: the same, or else the package's fastest on a CPU."""
    return engine if engine in package.engines else resolve_engine(package, "auto", gpus=0)


def open_device(package: Package, engine: str, threads: int) -> Device:
    """Load the package's engine of that name onto a device and start its thread; `Device.close` ends it.

    Raises ModelFault if the engine does not reproduce the package's golden tensors.
    """
    loaded = load_engine(package, engine, threads)
    check_golden(package, loaded)
    return Device(loaded)


def planes_kit(package: Package, engine: Engine, run: RunConfig) -> PlanesKit:
    """A kit for images in memory. Nothing is planned for them, so no object sizes are known beforehand.

    Channels are named after the package's roles. The device's thread is started here; `close` ends it.
    """
    roles = package.input.channels
    return kit_on(Device(engine), package, run, tuple(Selection(role, "") for role in roles))


def kit_on(device: Device, package: Package, run: RunConfig, counted: tuple[Selection, ...]) -> PlanesKit:
    """As `planes_kit`, on a device that is open already; `counted` are the channels of the package's roles, in their order."""
    names = tuple(selection.name for selection in counted)
    return PlanesKit(
        run=run,
        package=package,
        task=task_of(package),
        head=task_of(package).head(package),
        schema=run_schema(package, names, tuple(dict.fromkeys(names))),
        plate_sizes={},
        usual_shapes={},
        counted=counted,
        device=device,
        clock=StageClock(),
        plate_numbers={},
        shown_sizes={},
    )


def usual_shapes(run: RunConfig, plate_sizes: Iterable[PlateSize]) -> dict[str, Shape]:
    """The (H, W) that more than half of a plate's sampled images have, by plate. Images without wells have none in common."""
    if kind_of(run.layout).traits.reads_any_name:
        return {}
    images: dict[str, dict[Shape, int]] = {}
    for size in plate_sizes:
        images.setdefault(size.plate, {})[size.height_px, size.width_px] = size.images
    return {
        plate: shape
        for plate, numbers in images.items()
        for shape, number in numbers.items()
        if 2 * number > sum(numbers.values())
    }


def _package(context: RunContext) -> Package:
    package = package_of(context.run)
    if package.digest != context.package_digest:
        raise ModelFault(
            f"{context.run.model.package}: the package on this machine is {package.digest[:12]}, "
            f"the run was planned with {context.package_digest[:12]}; use that package, or count into another output"
        )
    return package


_ODD = 1.4
"""A field whose median object differs from its plate's by more than this factor is asked for its own object size."""


@dataclass(frozen=True, slots=True)
class FieldResult:
    """What became of a field: its row, its objects, and the number of pixels counted in it (all counted channels).

    `objects` is None if the field was not counted, or its task finds no objects.
    """

    row: FieldRow
    objects: ObjectRows | None
    pixels: int


def count_field(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    """Count one field. Anything wrong with the field or its files becomes its row.

    Raises RunFault if the run as a whole cannot go on, and MemoryError if the field does not fit into memory.
    """
    if planned.reason is not None:
        return _not_counted(kit, planned, planned.reason, planned.detail)
    try:
        return _counted(kit, planned, files)
    except FieldFault as fault:
        return _not_counted(kit, planned, fault.reason, str(fault))


def count_alone(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> FieldResult:
    """As `count_field`, with no other field in hand: one that does not fit now never will, and its row says so."""
    try:
        return count_field(kit, planned, files)
    except MemoryError as error:
        return _not_counted(kit, planned, Reason.OUT_OF_MEMORY, str(error) or "no memory left for this field")


def decode(kit: FieldKit, planned: PlannedField, files: Mapping[str, Loaded]) -> Pixels:
    """Read the planes of a field from its files, and let go of the files.

    Raises FieldFault if a file is missing, damaged, or not what was planned.
    """
    with kit.clock("decode"):
        pixels = load_pixels(planned, files, kit.counted, kit.measured, kit.run)
        for file in files.values():
            file.release()
    return pixels


def examine(kit: PlanesKit, pixels: Pixels, plate: str = "") -> Examined:
    """Look at one field, given its planes: prepare them as the package's task asks, and let the task find things.

    Levels are estimated from the raw pixels. `plate` names the plate whose object size may be used, if the run knows it; if the
    objects found are of a clearly different size, the field is looked at again at its own. Raises FieldFault if the field cannot be
    counted, MemoryError if it does not fit into memory.
    """
    view = prepare(kit, pixels, plate)
    found = kit.head.find(view)
    if _odd_of_its_plate(view, found):
        own = prepare(replace(kit, plate_sizes={}), pixels, plate)
        if is_another_size(view.scale, own.scale):
            view, found = own, kit.head.find(own)
    odd = doubts(view, found, kit.package)
    colours = colour_doubts(pixels, view.norms[0], kit.package)
    cut = _unlike_its_plate(kit, plate, view.shape)
    given = _unlike_given(kit, plate, view.scale)
    told = (*pixels.warnings, *cut, *colours, *given, *view.warnings, *found.warnings, *odd)
    return Examined(pixels, view.qualities, view.scale, view.shape, found, tuple(dict.fromkeys(told)))


def _unlike_its_plate(kit: PlanesKit, plate: str, shape: Shape) -> tuple[Doubt, ...]:
    """The doubt that an image has another size than most images of its plate; () if it has not, or nothing is known of them."""
    return (Doubt.IMAGE_SIZE,) if kit.usual_shapes.get(plate, shape) != shape else ()


def _unlike_given(kit: PlanesKit, plate: str, scale: FieldScale) -> tuple[str, ...]:
    """The doubt that the sample of the field's plate shows objects of another size than the one given, with that size; () if it does not."""
    shown = kit.shown_sizes.get(plate)
    if shown is None or scale.source is not ScaleSource.GIVEN:
        return ()
    return (f"{Doubt.DIAMETER_UNLIKE}:{shown.diameter_px:.3g} px",)


def prepare(kit: PlanesKit, pixels: Pixels, plate: str = "") -> FieldView:
    """The first half of `examine`: everything that happens before the task looks at the field.

    Raises FieldFault if the field cannot be counted, for instance because it would be enlarged beyond run.max_pixels.
    """
    raw = [pixels.planes[selection.name] for selection in kit.counted]
    with kit.clock("prepare"):
        norms = levels(raw, kit.package.input)
        qualities = tuple(assess(plane, pixels.bit_max, norm) for plane, norm in zip(raw, norms, strict=True))
        seen = network_planes(raw, kit.package.input)
        seen_norms = levels(seen, kit.package.input) if kit.package.input.seen else norms
        planes = [without_debris(plane, norm) for plane, norm in zip(seen, seen_norms, strict=True)]
    view = FieldView(
        planes=pixels.planes,
        counted=tuple(selection.name for selection in kit.counted),
        measured=kit.schema.channels,
        um_per_px=pixels.um_per_px,
        run=kit.run,
        clock=kit.clock,
        norms=norms,
        qualities=qualities,
        seen=tuple(seen),
        numbers=_numbers_of(kit.plate_numbers, plate),
    )
    if kit.task.preparation is not Preparation.OBJECT_SIZE:
        side = kit.task.side(kit.package)
        vectors = FieldVectors(seen, seen_norms, kit.package.input, side, kit.device)
        return replace(view, field_vectors=vectors)
    return _at_object_size(kit, _with_vectors(kit, view, raw), planes, seen_norms, plate)


def _with_vectors(kit: PlanesKit, view: FieldView, raw: Sequence[Plane]) -> FieldView:
    """The view with what the network of the package beside the kit's own says of windows, if there is such a package."""
    beside = kit.package.beside
    if beside is None or kit.beside is None:
        return view
    roles = kit.package.input.channels
    seen = network_planes([raw[roles.index(role)] for role in beside.input.channels], beside.input)
    side = task_of(beside).side(beside)
    return replace(
        view, field_vectors=FieldVectors(seen, levels(seen, beside.input), beside.input, side, kit.beside)
    )


def _numbers_of(found: Mapping[str, PlateNumbers], plate: str) -> Mapping[str, float]:
    """The numbers of a plate; those of all plates together if it was not sampled; {} if nothing was found."""
    own = found.get(plate) or found.get(ALL_PLATES)
    return {} if own is None else dict(own.numbers)


def _at_object_size(
    kit: PlanesKit, view: FieldView, planes: list[Plane], norms: tuple[Normalisation, ...], plate: str
) -> FieldView:
    device = AskedOnce(kit.device)

    def size() -> SizeEstimate:
        return kit.head.size(tuple(planes), lambda canvas: canvas_maps(canvas, kit.package, device))

    with kit.clock("size"):
        scale, said = field_scale(
            kit.run, kit.package, kit.plate_sizes, plate, view.shape, view.um_per_px, size
        )
    device.keep_no_more()
    _check_enlarged(view.shape, scale, kit.run)
    with kit.clock("prepare"):
        scaled = [resize(plane, scale.factor) for plane in planes]
    maps = FieldMaps(scaled, norms, kit.package, device, kit.run.tile)
    return replace(view, scale=scale, warnings=said, field_maps=maps)


def _odd_of_its_plate(view: FieldView, found: Found) -> bool:
    """Whether a field that was counted at its plate's object size should be asked for its own.

    So if nothing was found in it though it is not empty, or its objects have a clearly different size.
    """
    scale = view.scale
    if scale.source is not ScaleSource.POOL or scale.diameter_px is None or found.objects is None:
        return False
    if found.objects.diameter_px is None:
        return not view.empty
    return not 1 / _ODD <= found.objects.diameter_px / scale.diameter_px <= _ODD


def _check_enlarged(shape: tuple[int, int], scale: FieldScale, run: RunConfig) -> None:
    """Bound the size that a field is enlarged to, as the size of the file is bounded: a wrong estimate must not use up all memory.

    Raises FieldFault TOO_MANY_PIXELS.
    """
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
    """The rows of a field that was looked at."""
    height, width = seen.shape
    pixels = height * width * len(kit.counted)
    counted = tuple(selection.name for selection in kit.counted)
    row = FieldRow(
        key=planned.key,
        z_mode=str(kit.run.z),
        status=Status.OK,
        source=_sources(kit, planned),
        warnings=seen.warnings,
        values={**field_values(seen, counted, kit.schema), **dict(planned.labels)},
    )
    parts = seen.found.parts
    # A run that an earlier version planned has the columns of that version, which may be none.
    if parts is None or not kit.schema.objects:
        return FieldResult(row, None, pixels)
    columns, moments = parts.rows()
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
        values={CHANNEL.name: kit.counted[0].name, **dict(planned.labels)},
    )
    return FieldResult(row, None, 0)


def _sources(kit: FieldKit, planned: PlannedField) -> tuple[str, ...]:
    """Keys of the files of the counted channels; of all files of the field if planning could use none of them."""
    channels = {selection.channel for selection in kit.counted} | {""}
    counted = [source.key for source in planned.sources if source.channel in channels]
    return tuple(dict.fromkeys(counted or [source.key for source in planned.sources]))


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A field as the run counted it.

    `planes` (H, W) are the counted channels in raw units by name, of which the first comes first; `bit_max` is the largest value that
    they can have, 0 if there is none. `found` is what was found in them. `um_per_px` is the pixel size, None if it is unknown.
    """

    planned: PlannedField
    planes: Mapping[str, Plane]
    bit_max: int
    found: Found
    um_per_px: float | None

    @property
    def plane(self) -> Plane:
        """The first counted channel (H, W)."""
        return next(iter(self.planes.values()))

    @property
    def labels(self) -> NDArray[np.int32] | None:
        """The label image (H, W), 0 for the background; None if the task draws none."""
        return None if self.found.labels is None else self.found.labels.astype(np.int32)


def recount(context: RunContext, fields: Sequence[PlannedField]) -> Iterator[Seen | FieldFault]:
    """Count some fields again, one after the other, exactly as the run did; nothing is written.

    Yields the fault of a field that cannot be counted. Raises ModelFault as `open_kit`.
    """
    with_labels = replace(context, run=context.run.model_copy(update={"labels": "tiff"}))
    kit = open_kit(with_labels)
    store = open_store(context.input_url, context.input_options)
    try:
        for planned, files in read_fields(store, fields, ahead=2, run=context.run):
            try:
                if planned.reason is not None:
                    raise FieldFault(planned.reason, planned.detail)
                seen = examine(kit, decode(kit, planned, files), planned.key.plate)
            except FieldFault as fault:
                yield fault
                continue
            except MemoryError as error:
                yield FieldFault(Reason.OUT_OF_MEMORY, str(error) or "no memory left for this field")
                continue
            planes = {selection.name: seen.pixels.planes[selection.name] for selection in kit.counted}
            yield Seen(planned, planes, seen.pixels.bit_max, seen.found, seen.pixels.um_per_px)
    finally:
        kit.close()
