"""The decoded planes of a field: one for each channel, the planes of a stack joined, with the pixel size that the files state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellcount_core.config import RunConfig
from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import FieldFault, Reason, matching
from cellcount_core.domain.fields import PlannedField, Selection, Source
from cellcount_core.images.decode import ImageFile, Plane
from cellcount_core.images.imagefile import COLOURS, GREYS
from cellcount_core.images.pixels import ZMode, colours_differ, project
from cellcount_core.images.quality import zero_tail_of_stack
from cellcount_core.pipeline.files import Loaded

_OF_CALIBRATION = "calibration_"
"""How codes begin of what is said of a pixel size, which does not matter where one is given."""

LUMINANCE = "luminance"
"""Value of the `channel` column for a colour image if no one colour was asked for."""


@dataclass(frozen=True, slots=True)
class Pixels:
    """Planes (H, W) by channel name, in raw units, all of one shape.

    `um_per_px` is None if it is unknown. `bit_max` is the largest value that the counted channel can take. `channel` is "luminance"
    if the luminance of a colour image is counted, else "". `joined` is the number of z planes that were joined into the counted one.
    `colours_differ` says that the image's colours show different things, so its luminance mixes them.
    """

    planes: Mapping[str, Plane]
    um_per_px: float | None
    bit_max: int
    warnings: tuple[str, ...]
    channel: str = ""
    joined: int = 1
    colours_differ: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    """One plane of a channel, the number of planes it was made of, and what to know about it."""

    plane: Plane
    joined: int
    warnings: tuple[str, ...]
    luminance: bool
    colours_differ: bool


@dataclass(frozen=True, slots=True)
class _Inside:
    """A channel within one file; `name` is what the file calls it."""

    source: Source
    image: ImageFile
    name: str

    @property
    def index(self) -> int:
        """Which of the file's images it is, from 0."""
        return max(0, self.source.index)

    @property
    def luminance(self) -> bool:
        """Whether it is made of the colours of a colour image."""
        return self.image.channels == COLOURS and self.name.casefold() in GREYS

    def read(self, plane: int) -> Plane:
        """One plane, numbered from 0."""
        return self.image.read(self.name, plane, self.index)

    def colours_differ(self, plane: int) -> bool:
        """Whether it is the luminance of colours that show different things."""
        if not self.luminance:
            return False
        return colours_differ(self.image.read(colour, plane, self.index) for colour in COLOURS)


def load_pixels(
    planned: PlannedField,
    files: Mapping[str, Loaded],
    counted: Sequence[Selection],
    measured: Sequence[Selection],
    run: RunConfig,
) -> Pixels:
    """Decode the counted and measured channels of a field.

    A measured channel that is missing becomes a warning. Raises FieldFault if a counted channel is missing, or if anything is wrong
    with a file, its shape or its planes.
    """
    planes: dict[str, Plane] = {}
    warnings: dict[str, None] = {}
    calibrations: list[float] = []
    first: _Read | None = None
    bit_max = 0
    images: dict[int, ImageFile] = {}
    given = planned.um_per_px if run.um_per_px is None else run.um_per_px
    wanted = tuple(dict.fromkeys((*counted, *measured)))
    for selection in wanted:
        sources = _sources_of(planned, selection)
        if not sources and selection not in counted:
            warnings[f"channel_missing:{selection.name}"] = None
            continue
        if not sources:
            raise FieldFault(
                Reason.CHANNEL_MISSING, f"channel {selection.channel!r} has no file in this field"
            )
        found = [_inside(source, files[source.key].image(), selection, wanted) for source in sources]
        if selection == counted[0] and len(found) == 1:
            _check_row(found[0], selection)
        read = _plane(found, selection, run)
        planes[selection.name] = read.plane
        warnings |= dict.fromkeys(read.warnings)
        if selection in counted:
            first = first or read
            own = [each.image for each in found]
            bit_max = max(bit_max, *(image.bit_max for image in own))
            calibrations += [image.um_per_px for image in own if image.um_per_px is not None]
            images |= {id(image): image for image in own}
        if len(planes) == len(set(counted)):
            # Now all that is counted was read and nothing else: an array can say what it lacks of that.
            codes = dict.fromkeys(code for image in images.values() for code in image.warnings)
            warnings |= {
                code: None for code in codes if given is None or not code.startswith(_OF_CALIBRATION)
            }
    assert first is not None
    _check_sizes(planes, planned, wanted)
    um_per_px, said = _calibration(calibrations, given)
    unnamed = first.luminance and not any(source.channel for source in planned.sources)
    return Pixels(
        planes,
        um_per_px,
        bit_max,
        tuple(warnings | dict.fromkeys(said)),
        LUMINANCE if unnamed else "",
        first.joined,
        first.colours_differ,
    )


def _sources_of(planned: PlannedField, selection: Selection) -> list[Source]:
    """The files of a channel: those whose names say it, or else those whose names say none."""
    named = [source for source in planned.sources if source.channel == selection.channel]
    return named or [source for source in planned.sources if source.channel == ""]


def _inside(source: Source, image: ImageFile, selection: Selection, wanted: Sequence[Selection]) -> _Inside:
    """The channel that is meant within an open file; `wanted` are the different channels read for the field.

    Raises FieldFault CHANNEL_UNKNOWN if it cannot be in the file.
    """
    if source.index < 0 and image.images > 1:
        detail = f"the file holds {image.images} images; write each to a file of its own"
        raise FieldFault(Reason.WRONG_SHAPE, detail, source.key)
    if source.channel != "":
        # Where the name of the file says the channel, the file need not call it the same.
        return _Inside(source, image, matching(selection.channel, image.channels) or "")
    if selection.channel == "" and len(image.whole) > len(image.channels):
        names = ", ".join(repr(name) for name in image.whole[:12])
        detail = f"the file is part of an OME set of {len(image.whole)} channels ({names}); say which one to count (--channel NAME)"
        raise FieldFault(Reason.CHANNEL_UNKNOWN, detail, source.key)
    if len(image.channels) == 1 and {*COLOURS} <= {one.channel for one in wanted}:
        detail = "the image is grey; the model looks at red, green and blue of a colour image"
        raise FieldFault(Reason.CHANNEL_UNKNOWN, detail, source.key)
    # The only channel of a file that names none is the one that is asked for, where no other is.
    assumed = image.channels == ("",) and len(wanted) == 1
    return _Inside(source, image, "" if assumed else selection.channel)


def _plane(found: Sequence[_Inside], selection: Selection, run: RunConfig) -> _Read:
    """The plane to count or measure: from files that are one plane each by their names, or from the planes within one file."""
    ordered = sorted(found, key=lambda each: each.source.plane)
    if isinstance(run.z, int) and len(ordered) > 1:
        chosen = [each for each in ordered if each.source.plane == run.z]
        if not chosen:
            known = ", ".join(str(each.source.plane) for each in ordered)
            raise FieldFault(
                Reason.ABSENT, f"plane {run.z} of channel {selection.name!r} is not there (planes: {known})"
            )
        ordered = chosen[:1]
    if run.z == "first":
        ordered = ordered[:1]
    if len(found) > 1:
        # Each file is one plane, whatever a set that it is part of holds elsewhere.
        pairs = [(each, _own(each, selection)[0]) for each in ordered]
        return _joined(pairs, selection, run.z if len(pairs) > 1 else "first")
    return _within(ordered[0], selection, run)


def _check_row(found: _Inside, selection: Selection) -> None:
    """An image that spans several files is counted once: in the row of the file with the first plane of the first counted channel.

    Raises FieldFault PART_OF_SET for the other files.
    """
    own = found.image.own(found.name, found.index)
    if found.source.plane == 0 and own[:1] != (0,):
        # Where the first plane can be read, it has a row of its own.
        found.read(0)
        detail = f"channel {selection.name!r}: its first plane lies in another file of its OME set, in whose row it is counted"
        raise FieldFault(Reason.PART_OF_SET, detail, found.source.key)


def _own(found: _Inside, selection: Selection) -> tuple[int, ...]:
    """The planes of a channel that lie in the file itself. Raises FieldFault CHANNEL_MISSING if there are none."""
    own = found.image.own(found.name, found.index)
    if not own:
        detail = f"channel {selection.name!r} lies in another file of its OME set"
        raise FieldFault(Reason.CHANNEL_MISSING, detail, found.source.key)
    return own


def _within(found: _Inside, selection: Selection, run: RunConfig) -> _Read:
    """The plane made of those within one file and its OME set."""
    image, key = found.image, found.source.key
    if found.source.plane and len(own := _own(found, selection)) == 1:
        return _joined([(found, own[0])], selection, "first")
    if isinstance(run.z, int) and image.planes > 1:
        if not 1 <= run.z <= image.planes:
            detail = f"run.z is {run.z} and the file has planes 1 to {image.planes} (planes within a file count from 1)"
            raise FieldFault(Reason.WRONG_SHAPE, detail, key)
        return _joined([(found, run.z - 1)], selection, "first")
    last = 1 if run.z == "first" else image.planes
    return _joined([(found, plane) for plane in range(last)], selection, run.z if last > 1 else "first")


def _joined(planes: Sequence[tuple[_Inside, int]], selection: Selection, mode: ZMode) -> _Read:
    first, number = planes[0]
    ends: list[Plane] = []

    def read() -> Iterator[Plane]:
        for found, at in planes:
            one = found.read(at)
            ends[:] = [*ends[:1], one]
            yield one

    plane = project(read(), mode)
    warnings = []
    if first.source.channel == "" and first.name == "" and selection.channel != "":
        warnings.append(f"{Doubt.CHANNEL_ASSUMED}:{selection.channel}")
    if len(planes) > 1 and zero_tail_of_stack(ends[0], ends[-1]):
        warnings.append(Doubt.ZERO_TAIL.value)
    return _Read(
        plane,
        len(planes),
        tuple(warnings),
        first.luminance,
        first.colours_differ(number),
    )


def _check_sizes(planes: Mapping[str, Plane], planned: PlannedField, wanted: Sequence[Selection]) -> None:
    """Raises FieldFault WRONG_SHAPE, naming the file of a channel that has another size than most of them, or than the first."""
    shapes = {name: plane.shape for name, plane in planes.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name}: {shape[1]} x {shape[0]}" for name, shape in shapes.items())
        [(usual, _)] = Counter(shapes.values()).most_common(1)
        odd = next(selection for selection in wanted if shapes.get(selection.name, usual) != usual)
        key = _sources_of(planned, odd)[0].key
        raise FieldFault(Reason.WRONG_SHAPE, f"channels differ in size ({sizes})", key)


def _calibration(found: Sequence[float], override: float | None) -> tuple[float | None, list[str]]:
    distinct = [value for value in found if abs(value - found[0]) > 0.01 * found[0]]
    if override is not None:
        differs = any(abs(value - override) > 0.01 * override for value in found)
        return override, ["calibration_overridden"] if differs else []
    if distinct:
        return None, ["calibration_contradictory"]
    return (found[0], []) if found else (None, [])
