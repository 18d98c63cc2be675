"""What every decoder gives: an image file whose channels and planes can be read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

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
