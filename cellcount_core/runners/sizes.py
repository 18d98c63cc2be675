"""Find out about plates while a run is planned: a sample of its fields is read and examined in this process.

First their object sizes, then what the run's task needs to know before it can judge a field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig, length
from cellcount_core.domain.errors import ConfigFault, FieldFault
from cellcount_core.domain.fields import PlannedField, Selection
from cellcount_core.domain.scales import ALL_PLATES, PlateNumbers, PlateSize
from cellcount_core.models.engines import resolve_engine
from cellcount_core.models.package import Package
from cellcount_core.pipeline.device import Device
from cellcount_core.pipeline.field import PlanesKit, kit_on, open_device, prepare
from cellcount_core.pipeline.files import Loaded, read_fields
from cellcount_core.pipeline.maps import canvas_maps, network_planes
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from cellcount_core.plan.fields import ChannelChoice
from cellcount_core.plan.planner import (
    NO_NUMBERS,
    FoundNumbers,
    FoundSizes,
    NumberFinder,
    Samples,
    SizeFinder,
    no_sizes,
)
from cellcount_core.plan.sizes import ImageSize, contradicting, pool_sizes, says_hardly_anything, spread
from cellcount_core.runners.places import selections
from cellcount_core.stores.base import Store
from cellcount_core.tasks.object_size.factor import own_factor
from cellcount_core.tasks.object_size.looks import tells_sizes
from cellcount_core.tasks.task import Head, PlateRule, plate_rule_of, task_of

_AHEAD = 8


def size_finder(
    run: RunConfig,
    package: Package,
    source: Store,
    threads: int,
    say: Callable[[str], None],
    device: Device | None = None,
) -> SizeFinder:
    """Return the function that finds the object sizes of a run; where the size is given, it finds the plates that contradict it. It is
    `no_sizes` if the model does not tell sizes, or images are counted as they are.

    The sample is examined on `device`, or on one that is opened for it. Images that state their pixel size
    go by that, if the package does. A field that cannot be read tells no size and is reported to `say`; it
    gets its row when it is counted. The returned function raises StorageFault, CredentialsFault,
    ModelFault if the engine fails its golden tensors, and ConfigFault as `pool_sizes` does or if a field
    of the sample does not fit into memory.
    """
    if run.diameter == "model" or not tells_sizes(package):
        return no_sizes
    looker = _Looker(run, package, source, threads, say, device)

    def find_sizes(sample: Sequence[PlannedField], choice: ChannelChoice) -> FoundSizes:
        told = f"estimating the size of objects from {_fields(sample)}"
        return FoundSizes(pool_sizes(looker.sizes(sample, choice, told)))

    def compare(sample: Sequence[PlannedField], choice: ChannelChoice) -> FoundSizes:
        assert not isinstance(run.diameter, str)
        few = _few_of_each(sample)
        seen = looker.sizes(few, choice, f"comparing the diameter given with {_fields(few)}")
        looked_at = {planned.key for planned in few}
        hardly = says_hardly_anything(seen, {planned.key.plate for planned in few})
        more = [one for one in sample if one.key.plate in hardly and one.key not in looked_at]
        more = spread(more, _COMPARED - len(few))
        seen += looker.sizes(
            more, choice, f"{_fields(few)} show hardly an object: comparing it with {len(more)} more"
        )
        return FoundSizes((), contradicting(seen, run.diameter))

    return find_sizes if run.diameter == "auto" else compare


_COMPARED = 16
_COMPARED_A_PLATE = 4
"""How many fields a diameter given is compared with at most: in all, and of one plate unless they show hardly an object. A few suffice,
because only a size that is far off all of them is told."""


def _few_of_each(sample: Sequence[PlannedField]) -> list[PlannedField]:
    """At most so many of the sampled fields, evenly spread over plates and within each."""
    plates = [list(members) for _, members in groupby(sample, key=lambda planned: planned.key.plate)]
    chosen = spread(plates, _COMPARED)
    share = min(_COMPARED_A_PLATE, max(1, _COMPARED // max(1, len(chosen))))
    return [planned for plate in chosen for planned in spread(plate, share)]


def _fields(sample: Sequence[PlannedField]) -> str:
    return f"{len(sample)} field{'' if len(sample) == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class _Looker:
    """Looks at sampled fields of a run before anything is counted."""

    run: RunConfig
    package: Package
    source: Store
    threads: int
    say: Callable[[str], None]
    device: Device | None

    def sizes(self, sample: Sequence[PlannedField], choice: ChannelChoice, told: str) -> list[ImageSize]:
        """The object size of each field that can be read and needs one. `told` is what is said before.

        Raises ConfigFault if the run goes by these sizes and a field does not fit into memory.
        """
        if not sample:
            return []
        package = self.package
        self.say(told)
        asked = self.device or open_device(package, resolve_engine(package, "auto", gpus=0), self.threads)
        counted = selections(dict(zip(package.input.channels, choice.counted, strict=True)))
        head = task_of(package).head(package)
        images: list[ImageSize] = []
        faults: list[FieldFault | MemoryError] = []
        try:
            # A diameter is given where images are too large for the estimate, too: one is held at a time.
            ahead = _AHEAD if self.run.diameter == "auto" else 1
            for planned, files in read_fields(self.source, sample, ahead=ahead, run=self.run):
                try:
                    pixels = load_pixels(planned, files, counted, (), self.run)
                    stated = package.input.um_per_px is not None and pixels.um_per_px is not None
                    if self.run.diameter != "auto" or not stated:
                        images.append(_size_of(planned, pixels, counted, package, head, asked))
                except FieldFault as fault:
                    faults.append(fault)
                except MemoryError as error:
                    # A plan must not depend on how much memory was free. Where the size is given, that is the way out.
                    if self.run.diameter == "auto":
                        raise _no_memory(planned, error) from error
                    faults.append(error)
        finally:
            if asked is not self.device:
                asked.close()
        if faults:
            self.say(f"{len(faults)} of them cannot be counted with these settings, for example {faults[0]}")
        return images


def _pixels(
    planned: PlannedField, files: Mapping[str, Loaded], counted: tuple[Selection, ...], run: RunConfig
) -> Pixels:
    """The planes of one field. Raises FieldFault if it cannot be read.

    A plan must not depend on how much memory was free, so a field that does not fit into memory stops it: ConfigFault.
    """
    try:
        return load_pixels(planned, files, counted, (), run)
    except MemoryError as error:
        raise _no_memory(planned, error) from error


def _no_memory(planned: PlannedField, error: MemoryError) -> ConfigFault:
    names = ", ".join(source.key for source in planned.sources)
    return ConfigFault(
        f"{names}: no memory here to find the size of its objects ({error}); set run.diameter, or start from a machine with more memory"
    )


def _size_of(
    planned: PlannedField,
    pixels: Pixels,
    counted: tuple[Selection, ...],
    package: Package,
    head: Head,
    device: Device,
) -> ImageSize:
    """The object size of one field. Raises FieldFault if it cannot be counted, MemoryError if it does not fit into memory."""
    planes = tuple(pixels.planes[selection.name] for selection in counted)
    seen = tuple(network_planes(planes, package.input))
    found = head.size(seen, lambda canvas: canvas_maps(canvas, package, device))
    height, width = planes[0].shape
    return ImageSize(
        planned.key.plate,
        height,
        width,
        found.diameter_px,
        found.objects,
        found.low_px,
        found.high_px,
        own_factor(package.input.diameter_px or 1.0, found),
    )


def number_finder(
    run: RunConfig,
    package: Package,
    source: Store,
    threads: int,
    say: Callable[[str], None],
    device: Device | None = None,
) -> NumberFinder:
    """Return what finds the numbers that the package's task needs of each plate, or `NO_NUMBERS` if it needs none.

    Sampled fields are prepared as the run prepares them. The numbers of all plates together are found too, for plates that were not
    sampled. Faults of fields are those of `size_finder`, and `find` raises the same errors; ConfigFault also if the groups of
    fields contradict each other.
    """
    rule = plate_rule_of(package, run)
    if rule is None:
        return NO_NUMBERS
    asked_rule = rule

    def find_numbers(samples: Samples, choice: ChannelChoice, scales: tuple[PlateSize, ...]) -> FoundNumbers:
        fields = sum(map(len, samples.values()))
        if not fields:
            _refuse_unseen(asked_rule)
            return (), ()
        say(f"finding out about the plate from {fields} field{'' if fields == 1 else 's'}")
        asked = device or open_device(package, resolve_engine(package, "auto", gpus=0), threads)
        counted = selections(dict(zip(package.input.channels, choice.counted, strict=True)))
        sizes = {(one.plate, one.height_px, one.width_px): one for one in scales}
        kit = replace(kit_on(asked, package, run, counted), plate_sizes=sizes)
        seen: dict[str, dict[str, list[NDArray[np.float64]]]] = {}
        try:
            for name, chosen in samples.items():
                for planned, files in read_fields(source, chosen, ahead=_AHEAD, run=run):
                    table = _seen_in(kit, planned, files, asked_rule)
                    if table is not None:
                        seen.setdefault(planned.key.plate, {}).setdefault(name, []).append(table)
        finally:
            if asked is not device:
                asked.close()
        if not seen:
            _refuse_unseen(asked_rule)
        return _numbers_of_plates(seen, asked_rule)

    return NumberFinder(rule.groups, find_numbers)


def _refuse_unseen(rule: PlateRule) -> None:
    """Raises ConfigFault if no field of the wells that settings name can be counted: fields would be judged each by its own cells."""
    wells = sorted(well for group in rule.groups.values() for well in group)
    if wells:
        raise ConfigFault(
            f"no field of the control wells {', '.join(wells)} can be counted, so there are no thresholds; name others, or leave "
            "run.viability.controls out"
        )


def _seen_in(
    kit: PlanesKit,
    planned: PlannedField,
    files: Mapping[str, Loaded],
    rule: PlateRule,
) -> NDArray[np.float64] | None:
    """What one field shows; None if it cannot be counted, which its row says when it is counted.

    Raises ConfigFault as `_pixels`.
    """
    try:
        pixels = load_pixels(planned, files, kit.counted, (), kit.run)
        return rule.seen(prepare(kit, pixels, planned.key.plate))
    except FieldFault:
        return None
    except MemoryError as error:
        raise ConfigFault(
            f"{', '.join(files)}: no memory here to find out about its plate ({error}); start from a machine with more memory"
        ) from error


def _numbers_of_plates(
    seen: Mapping[str, Mapping[str, list[NDArray[np.float64]]]], rule: PlateRule
) -> FoundNumbers:
    """The numbers of each plate that was sampled, then those of all together if there are several."""
    together: dict[str, list[NDArray[np.float64]]] = {}
    for groups in seen.values():
        for name, tables in groups.items():
            together.setdefault(name, []).extend(tables)
    plates = {**({ALL_PLATES: together} if len(seen) > 1 else {}), **seen}
    found: list[PlateNumbers] = []
    warnings: list[str] = []
    for plate, groups in sorted(plates.items()):
        tables = [table for each in groups.values() for table in each]
        numbers, said = rule.found(plate, {name: np.concatenate(each) for name, each in groups.items()})
        found.append(PlateNumbers(plate, numbers, len(tables), sum(map(len, tables))))
        warnings += said if plate != ALL_PLATES or not said else ()
    return tuple(found), tuple(warnings)


def with_checks(run: RunConfig, source: Store, package: Package, finder: NumberFinder) -> NumberFinder:
    """The finder, behind a look at a few fields: whether they have the pixel size that settings need.

    Only fields of runs with such settings are read. Of the returned finder `find` raises ConfigFault also if no field could be counted for
    want of a pixel size, or if gates leave out every object at the pixel sizes that there are.
    """
    if not _needs_pixel_size(run):
        return finder

    def find_checked(samples: Samples, choice: ChannelChoice, scales: tuple[PlateSize, ...]) -> FoundNumbers:
        counted = selections(dict(zip(package.input.channels, choice.counted, strict=True)))
        fields = [planned for chosen in samples.values() for planned in chosen]
        told = _unit_warnings(run, _pixel_sizes(run, source, counted, spread(fields, _FIELDS_FOR_UNITS)))
        numbers, warnings = finder.find(samples if finder.groups else {}, choice, scales)
        return numbers, (*told, *warnings)

    return NumberFinder(finder.groups or {"": frozenset()}, find_checked)


_FIELDS_FOR_UNITS = 16


def _gates_in_um(run: RunConfig) -> list[str]:
    gates = {"--min-diameter": run.viability.min_diameter, "--max-diameter": run.viability.max_diameter}
    return [f"{option} {text}" for option, text in gates.items() if text and length(text).unit != "px"]


def _by_depth(run: RunConfig) -> bool:
    """Whether the volume of sample that an image shows is its area times a depth."""
    return run.viability.depth is not None and run.viability.squares is None


def _needs_pixel_size(run: RunConfig) -> bool:
    """Whether settings need the pixel size of the images, and do not give it."""
    return run.um_per_px is None and (bool(_gates_in_um(run)) or _by_depth(run))


def _pixel_sizes(
    run: RunConfig, source: Store, counted: tuple[Selection, ...], fields: Sequence[PlannedField]
) -> list[float | None]:
    """The pixel sizes of fields that can be read: up to the first that has one, or all of them if gates in px and in µm are to be compared."""
    viability, found = run.viability, list[float | None]()
    mixed = len(_gates_in_um(run)) == 1 and None not in (viability.min_diameter, viability.max_diameter)
    for planned, files in read_fields(source, fields, ahead=1, run=run):
        try:
            found.append(_pixels(planned, files, counted, run).um_per_px)
        except FieldFault:
            continue
        if found[-1] is not None and not mixed:
            break
    return found


def _unit_warnings(run: RunConfig, pixel_sizes: Sequence[float | None]) -> list[str]:
    """What to say where fields of these pixel sizes have no volume. Raises ConfigFault if gates in µm would fail all fields, or leave out all
    objects."""
    known = [size for size in pixel_sizes if size is not None]
    if known:
        said = [run.viability.contradiction(size) for size in known]
        if all(said):
            raise ConfigFault(f"run.viability: {said[0]}")
        return []
    if not pixel_sizes:
        return []
    none = f"none of {len(pixel_sizes)} sampled fields has a pixel size"
    if in_um := _gates_in_um(run):
        raise ConfigFault(
            f"{' and '.join(in_um)}: {none}, so no diameter in µm can be told. Give it (--um-per-px UM), or the diameter in px (20px)"
        )
    given = "--chamber" if run.viability.chamber else "--depth"
    return [
        f"{given}: {none}, so there will be no cells/mL. Give it (--um-per-px UM), or the volume that an image shows (--set "
        "run.viability.volume_nl=NANOLITRES)"
    ]
