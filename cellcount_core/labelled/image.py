"""An image with what is true of it, and how its files are read: exactly as a run reads a field, so that what is evaluated is what is
counted. Label images are read by label_files.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellcount_core.config import RunConfig
from cellcount_core.domain.errors import ConfigFault, FieldFault, matching
from cellcount_core.domain.fields import FieldKey, PlannedField, Selection, Source
from cellcount_core.images.imagefile import COLOURS, Plane
from cellcount_core.images.pixels import bit_max_of, countable
from cellcount_core.labelled.label_files import Labels, file_body, median_diameter, read_labels
from cellcount_core.pipeline.files import LoadedFile
from cellcount_core.pipeline.pixels import Pixels, load_pixels
from cellcount_core.tasks.task import Truth

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jfif", ".bmp")
_AS_A_RUN = RunConfig()
_ONLY = Selection("", "")


Files = Path | Mapping[str, Path]
"""The file of an image, or the files of its channels by role."""


def first_file(files: Files) -> Path:
    """The file of an image, or that of its first channel."""
    return files if isinstance(files, Path) else next(iter(files.values()))


class Pictured(Protocol):
    """An image of which is said what is true, whatever the form of that truth: what training and evaluation need of it.

    `planes` are its raw channels (H, W) by name, in order. `group` names what must stay on one side of a split. `diameter_px` is the
    median diameter of the true objects (0.0 without objects). `um_per_px` and `bit_max` are what the file says, as for a field that is
    counted (see pipeline/pixels.py).
    """

    @property
    def id(self) -> str:
        """Its name in messages and tables."""
        ...

    @property
    def group(self) -> str:
        """See above."""
        ...

    @property
    def planes(self) -> Mapping[str, Plane]:
        """See above."""
        ...

    @property
    def diameter_px(self) -> float:
        """See above."""
        ...

    @property
    def um_per_px(self) -> float | None:
        """See above."""
        ...

    @property
    def bit_max(self) -> int:
        """See above."""
        ...

    @property
    def truth(self) -> Truth:
        """What is true of it."""
        ...


Image_co = TypeVar("Image_co", bound=Pictured, covariant=True)


class ImageEntry(Protocol[Image_co]):
    """An image that a data set lists and that has not been read yet."""

    @property
    def split(self) -> str:
        """The split it is in; "" if the data names none."""
        ...

    @property
    def modality(self) -> str:
        """What kind of image it is; "" if the data does not say."""
        ...

    def load(self, roles: Sequence[str] = ()) -> Image_co:
        """Read the image, its channels in the order of `roles` and under their names; () for an image of one channel.

        Raises ConfigFault naming the file if it cannot be read, or has other channels.
        """
        ...


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with its label image.

    `plane` (H, W), in raw units, is its only channel or the first of several. `further` holds the other channels by
    name, and `channel` is the name of the first ("" if the file gives none). `labels` (H, W) int32 has 0 as
    background and 1..n as objects. `group` names what must stay on one side of a split. `diameter_px` is the median
    equivalent diameter (0.0 without objects). `um_per_px` and `bit_max` are what the image file says, as for a field
    that is counted (see pipeline/pixels.py). `ignored` (H, W) are the pixels of which the labels say nothing (None: there are none).
    """

    id: str
    plane: Plane
    labels: Labels
    group: str
    modality: str
    diameter_px: float
    um_per_px: float | None = None
    bit_max: int = 0
    further: Mapping[str, Plane] = field(default_factory=dict)
    channel: str = ""
    ignored: NDArray[np.bool_] | None = None

    @property
    def planes(self) -> Mapping[str, Plane]:
        """All channels by name, the first one first."""
        return {self.channel: self.plane, **self.further}

    @property
    def truth(self) -> Truth:
        """What is true of the image: its labels."""
        return Truth(self.id, self.modality, self.diameter_px, labels=self.labels)


@dataclass(frozen=True, slots=True)
class LabelledEntry:
    """An image that a data set lists and that has not been read yet. `split`, `modality` and `group` are "" if the
    data gives none; `file` names the image file in error messages ("": `id` is used).

    `read` takes the roles of the channels that are wanted (see `read_pixels`) and returns their pixels and the labels (H, W) int32. It
    raises ConfigFault naming the file that is wrong.
    """

    id: str
    read: Callable[[Sequence[str]], tuple[Pixels, Labels]]
    split: str = ""
    modality: str = ""
    group: str = ""
    file: str = ""

    def load(self, roles: Sequence[str] = ()) -> LabelledImage:
        """Read the image. `roles` name its channels, in the order in which they are returned; () is one channel.

        Raises ConfigFault if a file cannot be read, if image and labels differ in size, or if the image has another
        number of channels.
        """
        pixels, labels = self.read(roles)
        if roles:
            pixels = of_roles(pixels, roles, self.file or self.id)
        elif len(pixels.planes) != 1:
            names = ", ".join(map(repr, list(pixels.planes)[:12]))
            raise ConfigFault(
                f"{self.file or self.id}: an image of {len(pixels.planes)} channels ({names}); one plane, or the colours of one, "
                "expected beside a label image"
            )
        first, *others = pixels.planes
        return LabelledImage(
            self.id,
            plane_of(pixels),
            labels,
            self.group or self.id,
            self.modality,
            median_diameter(labels),
            pixels.um_per_px,
            pixels.bit_max,
            {name: pixels.planes[name] for name in others},
            first,
        )


def of_roles(pixels: Pixels, roles: Sequence[str], where: str) -> Pixels:
    """The same pixels with one channel for each role, in the order of the roles and under their names.

    Channels are matched by name if they are called as the roles are, whatever the case, and otherwise by order. Raises ConfigFault
    that begins with `where` if there are more or fewer channels than roles.
    """
    if len(roles) != len(pixels.planes):
        names = ", ".join(repr(name) for name in list(pixels.planes)[:12] if name)
        raise ConfigFault(
            f"{where}: an image of {len(pixels.planes)} channel{'s' if len(pixels.planes) > 1 else ''}{f' ({names})' if names else ''}; "
            f"{len(roles)} expected ({', '.join(roles)}){_as_colours(pixels, roles)}"
        )
    named = {channel.casefold(): plane for channel, plane in pixels.planes.items()}
    wanted = [role.casefold() for role in roles]
    ordered = [named[role] for role in wanted] if set(wanted) == set(named) else pixels.planes.values()
    return replace(pixels, planes=dict(zip(roles, ordered, strict=True)))


def _as_colours(pixels: Pixels, roles: Sequence[str]) -> str:
    if tuple(pixels.planes) != COLOURS or len(roles) <= len(COLOURS):
        return ""
    return (
        "; the file says that it holds colours, of which a fourth is transparency: write its planes as grey ones (tifffile.imwrite(…, "
        "photometric='minisblack')), or a file for each channel"
    )


def file_entry(
    name: str,
    image: Files,
    label: Path,
    *,
    reader: Callable[[Path], Labels] | None = None,
    split: str = "",
    modality: str = "",
    group: str = "",
) -> LabelledEntry:
    """The entry of an image and its label file. `reader` reads the label file (by default `read_labels`)."""

    def read(roles: Sequence[str]) -> tuple[Pixels, Labels]:
        return same_size(read_files(image, roles), (reader or read_labels)(label), label)

    return LabelledEntry(name, read, split, modality, group, str(first_file(image)))


def same_size(pixels: Pixels, labels: Labels, label: Path) -> tuple[Pixels, Labels]:
    """Return both unchanged. Raises ConfigFault naming the label file if they differ in shape."""
    shape = plane_of(pixels).shape
    if shape != labels.shape:
        raise ConfigFault(
            f"{label}: labels are {labels.shape} (height, width), the image {shape}: one size expected"
        )
    return pixels, labels


def read_plane(path: Path) -> Plane:
    """The plane (H, W) of an image file, in raw units. Raises the same errors as `read_pixels`."""
    return plane_of(read_pixels(path))


def read_pixels(path: Path, roles: Sequence[str] = ()) -> Pixels:
    """Read an image file as a run with default settings does; z planes are projected.

    If the file has a channel of the name of every role, those are read, under the names of the roles: a colour image has "red", "green"
    and "blue". Otherwise all its channels are read, under their own names; the colours of an image become luminance, unless several
    roles are asked for. Raises ConfigFault naming the file if it cannot be decoded.
    """
    key = str(path)
    body = file_body(path)
    source = Source("", 0, key, size=len(body))
    file = LoadedFile(key, body, len(body), _AS_A_RUN.max_pixels)
    planned = PlannedField(FieldKey("", path.stem, 1, 1), (source,))
    try:
        return load_pixels(planned, {key: file}, _selected(file.image().channels, roles), (), _AS_A_RUN)
    except FieldFault as fault:
        raise ConfigFault(f"{path}: {fault.detail}") from fault


def channels_of(files: Files) -> tuple[str, ...]:
    """The roles that an image has by itself: red, green and blue for a colour image, one without a name otherwise.

    Raises ConfigFault naming a file that cannot be read.
    """
    if not isinstance(files, Path):
        return tuple(files)
    body = file_body(files)
    try:
        named = LoadedFile(str(files), body, len(body), _AS_A_RUN.max_pixels).image().channels
    except FieldFault as fault:
        raise ConfigFault(f"{files}: {fault.detail}") from fault
    return COLOURS if named == COLOURS else named if len(named) > 1 else ()


def _selected(channels: tuple[str, ...], roles: Sequence[str]) -> tuple[Selection, ...]:
    named = [matching(role, channels) for role in roles]
    if tuple(roles) == COLOURS:
        # A file without colours is refused as it is when it is counted.
        return tuple(Selection(role, role) for role in roles)
    if roles and None not in named:
        return tuple(Selection(role, str(name)) for role, name in zip(roles, named, strict=True))
    if len(channels) == 1 or (channels == COLOURS and len(roles) < 2):
        return (_ONLY,)
    return tuple(Selection(name, name) for name in channels)


class UnequalChannels(ConfigFault):
    """The channels of an image differ in size."""


def read_files(files: Files, roles: Sequence[str]) -> Pixels:
    """Read the channels of an image from its file, or each from a file of its own. Pixel size and bits are those of the first.

    Raises ConfigFault naming the file that cannot be read or has several channels where one is expected, UnequalChannels one that has another
    size than the first.
    """
    if isinstance(files, Path):
        return read_pixels(files, roles)
    read = {role: of_roles(read_pixels(path, (role,)), (role,), str(path)) for role, path in files.items()}
    planes = {role: plane_of(pixels) for role, pixels in read.items()}
    first, *others = planes
    for role in others:
        if planes[role].shape != planes[first].shape:
            raise UnequalChannels(
                f"{files[role]}: {planes[role].shape} px (height, width), {files[first].name} {planes[first].shape}: the channels of "
                "an image must have one size"
            )
    return replace(read[first], planes=planes)


def pixels_in_memory(planes: Mapping[str, NDArray[np.generic]], where: str) -> Pixels:
    """Arrays (H, W) by channel name as the pixels that a file of them would give. Raises ConfigFault naming `where` if they cannot be
    counted."""
    bit_max = bit_max_of(next(iter(planes.values())).dtype)
    try:
        return Pixels({name: countable(plane, where) for name, plane in planes.items()}, None, bit_max, ())
    except FieldFault as fault:
        raise ConfigFault(f"{where}: {fault.detail}") from fault


def plane_of(pixels: Pixels) -> Plane:
    """The plane (H, W) of the only channel of these pixels, or of the first one."""
    return next(iter(pixels.planes.values()))
