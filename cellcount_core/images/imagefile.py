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
"""Gives the bytes of a file that lies beside the one that is open, by its name; None where there is none."""


def alone(_: str) -> bytes | None:
    """For a file that is read without those beside it."""
    return None


COLOURS = ("red", "green", "blue")
GREYS = ("", "grey", "gray", "luminance")
"""Names under which the luminance of a colour image, or the only channel of a grey one, is read."""


class ImageFile(Protocol):
    """An open image file. Attributes come from its headers; `read` decodes."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names in file order.

        From OME-XML, ImageJ labels or MetaSeries; "red", "green", "blue" of a colour image; ("",) for one unnamed channel;
        "0", "1", … for several. Pages that nothing describes are channels too: taking them for z planes would join
        different stains without a word. Of a file of an OME set, the channels that lie in it.
        """
        ...

    @property
    def whole(self) -> tuple[str, ...]:
        """Names of all channels of the image; more than `channels` where it is spread over a set of files."""
        ...

    def own(self, channel: str, index: int = 0) -> tuple[int, ...]:
        """The planes of a channel that lie in this file: all, unless it is one of an OME set; none where the first lies in another file of it.

        Raises FieldFault as `read`, and CHANNEL_MISSING where nothing says where the channel lies.
        """
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Codes of what its headers say that was not believed."""
        ...

    @property
    def planes(self) -> int:
        """Number of z planes; 1 where there is none."""
        ...

    @property
    def images(self) -> int:
        """Images that are fields of their own: of a stack (NPZ or NPY), or declared time points; 1 otherwise."""
        ...

    @property
    def um_per_px(self) -> float | None:
        """Pixel size in um; None where the file does not say it, or says what cannot be (then `warnings` tells)."""
        ...

    @property
    def bit_max(self) -> int:
        """Largest value a pixel can hold (4095 where the file says 12 bits); 0 for float pixels, which have none."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in px."""
        ...

    def read(self, channel: str, plane: int, index: int = 0) -> Plane:
        """One plane (H, W): uint8, uint16 or float32, perhaps a read-only view of the file's bytes.

        `channel` is one of `channels`; "" is the only channel there is, or the luminance of a colour image (also "grey",
        "gray", "luminance"), or one of `whole`, which is read where it lies; letters may be small or capital where one channel alone is meant. `plane` and `index` count from 0. Integers of 32 bits and more become uint16 where every
        value fits, else float32 (nearest); float64 becomes float32. MINISWHITE is inverted, bool is 0 and 1.

        Raises FieldFault: CHANNEL_UNKNOWN, WRONG_SHAPE (no such plane or index), ABSENT (another file of the set), TRUNCATED, UNREADABLE, UNSUPPORTED,
        WRONG_DTYPE, NON_FINITE.
        """
        ...


def channel_number(channels: Sequence[str], wanted: str, key: str) -> int:
    """Position of channel `wanted`; -1 for the luminance of a colour image. Raises FieldFault CHANNEL_UNKNOWN."""
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
    """What to know of channels without a name."""
    if tuple(channels) != tuple(str(number) for number in range(len(channels))):
        return ""
    return ". They have no names and are numbered from 0; if they are z planes or time points, say so: --set run.pages=z (or time)"


def _there(wanted: str, channels: Sequence[str]) -> str:
    if tuple(channels) == ("",):
        return ", which holds one channel without a name; to count that, leave --channel and --measure out"
    return f", which holds {_listed(channels)}{likely(wanted, channels)}{_numbered(channels)}"


def usable_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """`names` where there are `count` of them, all different; else "" for one channel, "0", "1", … for several."""
    if len(names) == count and all(names) and len(set(names)) == count:
        return tuple(names)
    return ("",) if count == 1 else tuple(str(number) for number in range(count))


def check_position(plane: int, planes: int, index: int, images: int, key: str) -> None:
    """Raises FieldFault WRONG_SHAPE unless 0 <= plane < planes and 0 <= index < images."""
    if not 0 <= plane < planes:
        raise FieldFault(
            Reason.WRONG_SHAPE, f"there is no plane {plane + 1}: the file holds {planes}, counted from 1", key
        )
    if not 0 <= index < images:
        raise FieldFault(
            Reason.WRONG_SHAPE, f"there is no image {index + 1}: the file holds {images}, counted from 1", key
        )


def check_pixels(height: int, width: int, max_pixels: int, key: str) -> None:
    """The pixel limit, checked from headers before anything is decoded.

    Raises FieldFault WRONG_SHAPE for an image without pixels, TOO_MANY_PIXELS above `max_pixels`.
    """
    if height < 1 or width < 1:
        raise FieldFault(Reason.WRONG_SHAPE, f"the image has no pixels ({width} x {height} px)", key)
    if height * width > max_pixels:
        detail = f"{width} x {height} px are declared; run.max_pixels allows {max_pixels:,} in one image"
        raise FieldFault(Reason.TOO_MANY_PIXELS, detail, key)


Pages = Literal["", "z", "time", "channel"]

MOST_CHANNELS = 16
"""Channels that pages or samples are taken for unasked: no instrument has more filters, and stacks are longer."""

_LEAST_SIDE = 8
"""Px: pages of a stack that are narrower are no images."""

_WIDER = 8
"""An axis is that of the channels, behind those of the image, where both of those are so many times longer."""

_LINE = 32
"""A single image, narrower than that, is none if it is so many times longer."""

_LETTER = {"z": "Z", "time": "T", "channel": "C"}
_UNNAMED = "IQ"


@dataclass(frozen=True, slots=True)
class Declared:
    """What the user says the axes are: `axes` one letter an axis in the order of the file, `pages` what its pages are; "" for nothing."""

    axes: str = ""
    pages: Pages = ""


UNDECLARED = Declared()


def as_declared(axes: str | None, pages: Literal["z", "time", "channel"] | None) -> Declared:
    """What the settings `run.axes` and `run.pages` declare; None where one is not given."""
    return Declared(axes or "", pages or "")


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes of an array in C order, one letter and one size each. What stands before Y, X and S chooses a block; the rest lies in it."""

    letters: str
    sizes: tuple[int, ...]

    def size(self, letters: str) -> int:
        """Length of the axis, or product of the axes, of these letters; 1 where there is none."""
        return prod(size for letter, size in zip(self.letters, self.sizes, strict=True) if letter in letters)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.size("Y"), self.size("X")

    @property
    def images(self) -> int:
        """Images, each a field of its own: time points or images of a stack."""
        return self.size("NT")

    @property
    def block(self) -> tuple[int, ...]:
        """Shape of what one image, channel and plane is read from: all axes from the first of Y, X and S on."""
        return self.sizes[self._lead :]

    @property
    def inside(self) -> str:
        """Letters of the axes of a block."""
        return self.letters[self._lead :]

    @property
    def _lead(self) -> int:
        return min(self.letters.index(letter) for letter in self.letters if letter in "YXS")

    def number(self, channel: int, plane: int, index: int) -> int:
        """Number of the block that holds this channel, plane and image (from 0)."""
        at = {"C": channel, "S": channel, "Z": plane, "N": index, "T": index}
        number = 0
        for letter, size in list(zip(self.letters, self.sizes, strict=True))[: self._lead]:
            number = number * size + (at[letter] if size > 1 else 0)
        return number

    def plane(self, block: Plane, channel: int, plane: int, index: int) -> Plane:
        """One plane (H, W) of a block of shape `block`; -1 as channel gives all samples, (H, W, S)."""
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
    """The axes that `run.axes` names. Raises FieldFault WRONG_SHAPE where there are more or fewer."""
    if len(letters) != len(shape):
        found = f"the file has {len(shape)} axes {shape} and run.axes names {len(letters)} ({letters})"
        raise FieldFault(Reason.WRONG_SHAPE, found, key)
    axes = Axes(letters, shape)
    if axes.size("S") not in (1, 3, 4):
        detail = f"run.axes {letters} makes {axes.size('S')} samples a colour of shape {shape}; 3 or 4 are one, channels are C"
        raise FieldFault(Reason.WRONG_SHAPE, detail, key)
    return axes


def array_axes(shape: tuple[int, ...], declared: Declared, key: str) -> Axes:
    """The axes of an array of an NPY or NPZ.

    Unasked, (H, W) is an image, (N, H, W) a stack of N, (N, H, W, 1) too, (N, H, W, 3) one of colour images; (H, W, C) and
    (N, H, W, C) are told by their last axis being short where the two before it are long. Raises FieldFault WRONG_SHAPE for what
    could be two things, naming the setting that says which.
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
    """The axes of a TIFF's series of pages, those of a page (`page`, such as YX or YXS) last; `named` is the number of channel names.

    Pages that nothing describes are channels, unless `run.pages` says otherwise: taking them for planes would join different
    stains without a word. Raises FieldFault WRONG_SHAPE for axes that a count cannot choose from, and for shapes that no image has,
    naming the setting that says what they are.
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
    """Raises FieldFault WRONG_SHAPE for `pages` planes (H, W) of a file that are no images: slivers of an array taken apart wrongly."""
    height, width = shape
    if _is_sliver((pages, height, width)):
        detail = f"by its headers the file is {pages} pages of {width} x {height} px, which are hardly images"
        raise FieldFault(
            Reason.WRONG_SHAPE,
            f"{detail}; say what its axes are, such as {_example((pages, *shape)[pages == 1 :])}",
            key,
        )


def renamed_axes(kinds: str, named: int, pages: Pages) -> str:
    """The letters of the axes before a page, longer than 1, with those that nothing describes and those that `pages` contradicts renamed."""
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
    """Whether the last of three axes is that of channels: short, and the two before it long."""
    height, width, last = shape
    return (
        1 <= last <= MOST_CHANNELS
        and min(height, width) >= _WIDER * last
        and min(height, width) >= _LEAST_SIDE
    )


def _is_sliver(shape: tuple[int, ...]) -> bool:
    """Whether (N, H, W) are hardly N images: too narrow, or as many as they are high and much narrower than high."""
    number, height, width = shape
    if number == 1:
        return _is_line(height, width)
    short, long = min(height, width), max(height, width)
    return short < _LEAST_SIDE or short * _WIDER <= long or (number in (height, width) and 2 * short <= long)


def _is_line(height: int, width: int) -> bool:
    return min(height, width) < _LEAST_SIDE and max(height, width) > _LINE * min(height, width)


def many_times(number: int) -> str:
    """Why a file of several time points is not counted unasked."""
    return f"the file holds {number} time points; write each to a file of its own, or count each as a field (run.pages: time)"


def _several(letter: str, size: int, letters: str, shape: tuple[int, ...]) -> str:
    what = {"P": "positions"}.get(letter, f"steps along axis {letter!r}")
    found = f"the file holds {size} {what} (axes {letters}, {shape})"
    return f"{found}; write each to a file of its own, or say what the axes are (run.axes)"


def _example(shape: tuple[int, ...]) -> str:
    texts = {2: "YX", 3: "YXC, CYX, ZYX or NYX", 4: "NYXC, CZYX, ZCYX or NCYX", 5: "TZCYX or TCZYX"}
    return f"run.axes: {texts.get(len(shape), 'one letter an axis')}"
