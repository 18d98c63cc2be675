"""What every opened image file offers (`ImageFile`), and what the axes of its pixels mean (`Axes`).

The axes are declared by the user (`run.axes`, `run.pages`), described by the file, or inferred from the shape. One letter stands for
each, as in tifffile: Y and X are the image, C is channels, S the samples of a colour (red, green, blue), Z is z planes, T time points,
and N images that have nothing to do with each other. I and Q are pages that nothing describes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import FieldFault, Reason, likely, matching

Plane = NDArray[np.generic]
"""One grey plane: (H, W) of uint8, uint16 or float32."""

Beside = Callable[[str], bytes | None]
"""A function that takes the name of a file and gives the bytes of the file of that name in the same folder, or None
if there is none."""


def alone(_: str) -> bytes | None:
    """A `Beside` for a file that is read by itself: there is never another file."""
    return None


COLOURS = ("red", "green", "blue")
GREYS = ("", "grey", "gray", "luminance")
"""Channel names that mean the luminance of a colour image, or the only channel of a grey one."""


class ImageFile(Protocol):
    """An opened image file. Its attributes come from the headers; only `read` decodes pixels."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels in this file, in file order.

        The names come from OME-XML, ImageJ labels, MetaSeries or STK tags. A colour image has "red", "green" and
        "blue"; one channel without a name is ("",), several are "0", "1", …. Pages that nothing describes are taken
        for channels: as z planes, different stains would be merged without a warning. Of a file that belongs to an
        OME set, these are the channels stored in this file.
        """
        ...

    @property
    def whole(self) -> tuple[str, ...]:
        """Names of all channels of the image. There are more than `channels` if the image is spread over several
        files."""
        ...

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """The z planes (from 0) of a channel that are stored in this file.

        That is all of them, except in an OME set: there it is () if the first plane of the channel lies in another
        file. Raises what `read` raises, and FieldFault(CHANNEL_MISSING) if the headers do not say where the channel
        lies.
        """
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes for what the headers say that was not used: what cannot be right, such as an impossible pixel size, and that viewers should
        turn the image."""
        ...

    @property
    def planes(self) -> int:
        """Number of z planes, at least 1."""
        ...

    @property
    def images(self) -> int:
        """Number of images that are fields of their own: the images of an NPZ or NPY stack, or declared time points.
        Otherwise 1."""
        ...

    @property
    def um_per_px(self) -> float | None:
        """Pixel size in um. None if the file does not give one, or gives an impossible one (then `warnings` says so)."""
        ...

    @property
    def bit_max(self) -> int:
        """Largest value that a pixel can have, for example 4095 if the file says 12 bits. 0 for float pixels, which
        have no largest value."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        ...

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """One plane (H, W) of uint8, uint16 or float32. It may be a read-only view of the file's bytes.

        `channel` is one of `channels`. "" (or "grey", "gray", "luminance") is the only channel of a grey image or the
        luminance of a colour image. A channel of `whole` that lies in another file of the set is read from there.
        Upper and lower case do not matter if the name is still unique. `plane` and `index` (the image) count from 0.

        Integers of 32 or 64 bits become uint16 if every value fits, otherwise float32 (nearest value); float64
        becomes float32. MINISWHITE pixels are inverted; bool becomes 0 and 1.

        Raises FieldFault: CHANNEL_UNKNOWN, WRONG_SHAPE (no such plane or image), ABSENT (another file of the set is
        not there), TRUNCATED, UNREADABLE, UNSUPPORTED, WRONG_DTYPE, NON_FINITE.
        """
        ...


def channel_number(channels: Sequence[str], wanted: str, key: str) -> int:
    """Position of the channel `wanted` in `channels`, or -1 for the luminance of a colour image.

    Raises FieldFault(CHANNEL_UNKNOWN) if there is no such channel; the message lists those that there are.
    """
    if (name := matching(wanted, channels)) is not None:
        return list(channels).index(name)
    if wanted.casefold() in GREYS:
        if tuple(channels) == COLOURS:
            return -1
        if len(channels) == 1:
            return 0
    if wanted == "":
        raise FieldFault(
            Reason.CHANNEL_UNKNOWN,
            f"the file holds {len(channels)} channels ({_listed(channels)}); say which one to count (--channel NAME){_numbered(channels)}",
            key,
        )
    raise FieldFault(
        Reason.CHANNEL_UNKNOWN, f"no channel {wanted!r} in the file{_there(wanted, channels)}", key
    )


def _listed(channels: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in channels[:12]) + (", …" if len(channels) > 12 else "")


def _numbered(channels: Sequence[str]) -> str:
    """A sentence for messages if the channels have no names, else ""."""
    if tuple(channels) != tuple(str(number) for number in range(len(channels))):
        return ""
    return ". They have no names and are numbered from 0; if they are z planes or time points, say so: --set run.pages=z (or time)"


def _there(wanted: str, channels: Sequence[str]) -> str:
    if tuple(channels) == ("",):
        return ", which holds one channel without a name; to count that, leave --channel and --measure out"
    return f", which holds {_listed(channels)}{likely(wanted, channels)}{_numbered(channels)}"


def usable_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`names` if there are `count` of them, all different and none empty. Otherwise ("",) for one channel and "0",
    "1", … for several."""
    if len(names) == count and all(names) and len(set(names)) == count:
        return tuple(names)
    return ("",) if count == 1 else tuple(str(number) for number in range(count))


def check_position(plane: int, planes: int, index: int, images: int, key: str) -> None:
    """Raises FieldFault(WRONG_SHAPE) unless 0 <= plane < planes and 0 <= index < images."""
    if not 0 <= plane < planes:
        raise FieldFault(
            Reason.WRONG_SHAPE, f"there is no plane {plane + 1}: the file holds {planes}, counted from 1", key
        )
    if not 0 <= index < images:
        raise FieldFault(
            Reason.WRONG_SHAPE, f"there is no image {index + 1}: the file holds {images}, counted from 1", key
        )


def check_pixels(height: int, width: int, max_pixels: int, key: str) -> None:
    """Check the height and width (px) that headers declare, before anything is decoded.

    Raises FieldFault(WRONG_SHAPE) if the image has no pixels, FieldFault(TOO_MANY_PIXELS) if it has more than
    `max_pixels`.
    """
    if height < 1 or width < 1:
        raise FieldFault(Reason.WRONG_SHAPE, f"the image has no pixels ({width} x {height} px)", key)
    if height * width > max_pixels:
        detail = f"{width} x {height} px are declared; run.max_pixels allows {max_pixels:,} in one image"
        raise FieldFault(Reason.TOO_MANY_PIXELS, detail, key)


Pages = Literal["", "z", "time", "channel", "each"]
"""What the pages of a file are. "each" says that each page is an image of its own, whatever the file says of itself: a plan that knows what each
page shows declares it, never a user."""

MOST_CHANNELS = 16
"""Undeclared pages or samples are taken for channels up to this number: no instrument has more filters, and stacks
are longer."""

_LEAST_SIDE = 8
"""Px. If the pages of a stack are narrower, the array was taken apart wrongly: they are no images."""

_WIDER = 8
"""The last axis is taken for channels if both axes before it are at least this many times as long."""

_LINE = 32
"""A single image narrower than `_LEAST_SIDE` is refused if it is more than this many times as long as wide."""

_LETTER = {"z": "Z", "time": "T", "channel": "C"}
_UNNAMED = "IQ"


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user declares: `axes`, one letter for each axis in file order, and `pages`, what the pages of a file
    are. "" means nothing."""

    axes: str = ""
    pages: Pages = ""


UNDECLARED = Declared()


def as_declared(axes: str | None, pages: Literal["z", "time", "channel"] | None) -> Declared:
    """The settings `run.axes` and `run.pages` as one value; None means that a setting is not given."""
    return Declared(axes or "", pages or "")


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of an array in C order: one letter and one size for each.

    The axes from the first Y, X or S on form a block, which is read as one piece; the axes before it choose the
    block.
    """

    letters: str
    sizes: tuple[int, ...]

    def size(self, letters: str) -> int:
        """Length of the axis with this letter; with several letters, the product of their lengths. 1 if there is no
        such axis."""
        return prod(size for letter, size in zip(self.letters, self.sizes, strict=True) if letter in letters)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.size("Y"), self.size("X")

    @property
    def images(self) -> int:
        """Number of images that are fields of their own: time points, or images of a stack."""
        return self.size("NT")

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of one block: all axes from the first Y, X or S on."""
        return self.sizes[self._lead :]

    @property
    def inside(self) -> str:
        """Letters of the axes within a block."""
        return self.letters[self._lead :]

    @property
    def _lead(self) -> int:
        return min(self.letters.index(letter) for letter in self.letters if letter in "YXS")

    def number(self, channel: int, plane: int, index: int) -> int:
        """Number (from 0) of the block that holds this channel, z plane and image."""
        at = {"C": channel, "S": channel, "Z": plane, "N": index, "T": index}
        number = 0
        for letter, size in list(zip(self.letters, self.sizes, strict=True))[: self._lead]:
            number = number * size + (at[letter] if size > 1 else 0)
        return number

    def plane(self, block: Plane, channel: int, plane: int, index: int) -> Plane:
        """Cut one plane (H, W) out of a block. With channel -1, all samples of a colour are given: (H, W, S)."""
        at = {"C": channel, "S": channel, "Z": plane, "N": index, "T": index}
        chosen: list[int | slice] = []
        left = ""
        for letter, size in zip(self.inside, self.block, strict=True):
            kept = letter in "YX" or (channel < 0 and letter == "S")
            chosen.append(slice(None) if kept else at[letter] if size > 1 else 0)
            left += letter if kept else ""
        wanted = "YXS" if "S" in left else "YX"
        return np.asarray(block.reshape(self.block)[tuple(chosen)]).transpose(
            [left.index(each) for each in wanted]
        )


def declared_axes(letters: str, shape: tuple[int, ...], key: str) -> Axes:
    """The axes that the setting `run.axes` names, for an array of this shape.

    Raises FieldFault(WRONG_SHAPE) if it names more or fewer axes than the array has, or a colour that does not have
    1, 3 or 4 samples.
    """
    if len(letters) != len(shape):
        found = f"the file has {len(shape)} axes {shape} and run.axes names {len(letters)} ({letters})"
        raise FieldFault(Reason.WRONG_SHAPE, found, key)
    axes = Axes(letters, shape)
    if axes.size("S") not in (1, 3, 4):
        detail = f"run.axes {letters} makes {axes.size('S')} samples a colour of shape {shape}; 3 or 4 are one, channels are C"
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    return axes


def array_axes(shape: tuple[int, ...], declared: Declared, key: str) -> Axes:
    """The axes of an array from an NPY or NPZ file.

    If nothing is declared, the shape decides: (H, W) is an image, (N, H, W) and (N, H, W, 1) are stacks of N images,
    (N, H, W, 3) is a stack of colour images. In (H, W, C) and (N, H, W, C) the last axis is short and the two before
    it are long. Raises FieldFault(WRONG_SHAPE) if a shape can mean two things; the message names the setting that
    decides.
    """
    if declared.axes:
        return declared_axes(declared.axes, shape, key)
    first = _LETTER.get(declared.pages, "N")
    if len(shape) == 2 and not _is_line(*shape):
        return Axes("YX", shape)
    if len(shape) == 3 and _is_last(shape):
        return Axes("YXS" if shape[2] == 3 else "YXC", shape)
    if len(shape) == 3 and not _is_sliver(shape):
        return Axes(f"{first}YX", shape)
    if len(shape) == 4 and shape[3] in (1, 3):
        return Axes(f"{first}YXS" if shape[3] == 3 else f"{first}YXC", shape)
    if len(shape) == 4 and _is_last(shape[1:]):
        return Axes(f"{first}YXC", shape)
    expected = "(H, W), (N, H, W), (H, W, C) and (N, H, W, C) with few channels C are known by their shape"
    raise FieldFault(
        Reason.WRONG_SHAPE,
        f"the array has shape {shape}; {expected}. Say what its axes are, such as {_example(shape)}",
        key,
    )


def page_axes(
    letters: str, shape: tuple[int, ...], page: str, named: int, declared: Declared, key: str
) -> Axes:
    """The axes of a series of TIFF pages. `page` holds the axes of one page, such as YX or YXS, which come last;
    `named` is the number of channel names in the headers.

    Pages that nothing describes are taken for channels unless `run.pages` says otherwise: as z planes, different
    stains would be merged without a warning. Raises FieldFault(WRONG_SHAPE) for axes that a count cannot choose from
    and for shapes that no image has; the message names the setting that says what they are.
    """
    if declared.axes:
        return declared_axes(declared.axes, shape, key)
    own = len(page)
    lead = [(letter, size) for letter, size in zip(letters[:-own], shape[:-own], strict=True) if size > 1]
    kinds = "".join(letter for letter, _ in lead)
    if (
        len(lead) == 1
        and page == "YX"
        and kinds in ("I", "Q", "C")
        and not named
        and _is_last((lead[0][1], *shape[-2:]))
    ):
        return Axes("YXC", (lead[0][1], *shape[-2:]))
    renamed = renamed_axes(kinds, named, declared.pages)
    axes = Axes(renamed + letters[-own:], (*(size for _, size in lead), *shape[-own:]))
    unknown = next(
        (at for at, letter in enumerate(renamed) if letter not in "CZTN" or letter in renamed[:at]), None
    )
    if unknown is not None:
        raise FieldFault(Reason.WRONG_SHAPE, _several(kinds[unknown], lead[unknown][1], letters, shape), key)
    if "C" in renamed and "S" in page:
        detail = f"{axes.size(renamed)} channels whose pages have several samples (axes {letters}, {shape}); write grey channels"
        raise FieldFault(Reason.WRONG_SHAPE, f"{detail}, or say what the axes are (run.axes)", key)
    check_sides(axes.shape, prod(size for _, size in lead), key)
    if any(letter in _UNNAMED for letter in kinds) and not declared.pages and axes.size("C") > MOST_CHANNELS:
        detail = f"the file holds {axes.size('C')} pages that nothing describes, too many to be channels"
        raise FieldFault(
            Reason.WRONG_SHAPE, f"{detail}; say what they are: run.pages: z, time or channel", key
        )
    if "T" in renamed and declared.pages != "time":
        raise FieldFault(Reason.WRONG_SHAPE, many_times(axes.size("T")), key)
    return axes


def check_sides(shape: tuple[int, int], pages: int, key: str) -> None:
    """Raises FieldFault(WRONG_SHAPE) if `pages` planes of `shape` (H, W) cannot be images: thin strips of an array
    that was taken apart wrongly."""
    height, width = shape
    if _is_sliver((pages, height, width)):
        detail = f"by its headers the file is {pages} pages of {width} x {height} px, which are hardly images"
        raise FieldFault(
            Reason.WRONG_SHAPE,
            f"{detail}; say what its axes are, such as {_example((pages, *shape)[pages == 1 :])}",
            key,
        )


def renamed_axes(kinds: str, named: int, pages: Pages) -> str:
    """The letters of the axes before a page that are longer than 1. A letter that nothing describes, or that `pages`
    contradicts, is replaced by what `pages` declares (channels if it declares nothing)."""
    said = _LETTER.get(pages, "C")
    if any(letter in _UNNAMED for letter in kinds):
        return "".join(said if letter in _UNNAMED else letter for letter in kinds)
    if not pages or said in kinds:
        return kinds
    if said == "C":
        return said if len(kinds) == 1 and kinds in "ZT" else kinds
    other = "T" if said == "Z" else "Z"
    if other in kinds:
        return kinds.replace(other, said)
    return said if kinds == "C" and not named else kinds


def _is_last(shape: tuple[int, ...]) -> bool:
    """Whether the last of three axes is the channels: it is short and the two before it are long."""
    height, width, last = shape
    return (
        1 <= last <= MOST_CHANNELS
        and min(height, width) >= _WIDER * last
        and min(height, width) >= _LEAST_SIDE
    )


def _is_sliver(shape: tuple[int, ...]) -> bool:
    """Whether (N, H, W) is unlikely to be N images: too narrow, or N equals a side and the images are much longer
    than wide."""
    number, height, width = shape
    if number == 1:
        return _is_line(height, width)
    short, long = min(height, width), max(height, width)
    return short < _LEAST_SIDE or short * _WIDER <= long or (number in (height, width) and 2 * short <= long)


def _is_line(height: int, width: int) -> bool:
    return min(height, width) < _LEAST_SIDE and max(height, width) > _LINE * min(height, width)


def many_times(number: int) -> str:
    """The message for a file with several time points, which are counted only if `run.pages` says so."""
    return f"the file holds {number} time points; write each to a file of its own, or count each as a field (run.pages: time)"


def _several(letter: str, size: int, letters: str, shape: tuple[int, ...]) -> str:
    what = {"P": "positions"}.get(letter, f"steps along axis {letter!r}")
    found = f"the file holds {size} {what} (axes {letters}, {shape})"
    return f"{found}; write each to a file of its own, or say what the axes are (run.axes)"


def _example(shape: tuple[int, ...]) -> str:
    texts = {2: "YX", 3: "YXC, CYX, ZYX or NYX", 4: "NYXC, CZYX, ZCYX or NCYX", 5: "TZCYX or TCZYX"}
    return f"run.axes: {texts.get(len(shape), 'one letter an axis')}"
