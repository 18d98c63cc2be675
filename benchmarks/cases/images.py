"""Made-up images whose number of nuclei is no matter of opinion: soft discs and ellipses on a grid, and what is put beside them.

Everything is seeded. Images are float64 (H, W) in grey values until `noisy` makes 16 bits of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import tifffile
from numpy.typing import NDArray

Image = NDArray[np.float64]
DARK = 300.0
_SOFT = 0.9
"""Width (px) of an outline's fall-off, as optics draw it."""


def blank(height: int = 700, width: int = 700) -> Image:
    """An empty field."""
    return np.full((height, width), DARK)


def draw(
    image: Image, y: float, x: float, radius: float, *, level: float = 2000, down: float = 0, turn: float = 0
) -> None:
    """A disc of `radius` px at (y, x), or an ellipse of half axes `down` and `radius` turned by `turn` rad; `level` grey values above
    the dark.

    Half of the level is reached at the outline. Where two lie on each other the brighter one is seen.
    """
    half = down or radius
    far = 4 + int(max(half, radius) * 1.2 + 6)
    y0, y1 = max(0, int(y) - far), min(image.shape[0], int(y) + far + 1)
    x0, x1 = max(0, int(x) - far), min(image.shape[1], int(x) + far + 1)
    ys, xs = np.mgrid[y0:y1, x0:x1]
    across, along = (
        np.cos(turn) * (ys - y) - np.sin(turn) * (xs - x),
        np.sin(turn) * (ys - y) + np.cos(turn) * (xs - x),
    )
    apart = np.hypot(across / half, along / radius)
    drawn = DARK + level / (1 + np.exp((apart - 1) * min(half, radius) / _SOFT))
    np.maximum(image[y0:y1, x0:x1], drawn, out=image[y0:y1, x0:x1])


def grid(
    number: int = 40, radius: float = 10, *, level: float = 2000, height: int = 700, width: int = 700,
    top: float = 180, step: float = 85,
) -> Image:  # fmt: skip
    """`number` discs in rows, none touching another."""
    image = blank(height, width)
    add_grid(image, number, radius, level=level, top=top, step=step)
    return image


def add_grid(
    image: Image, number: int, radius: float, *, level: float = 2000, top: float = 180, step: float = 85
) -> None:
    """Rows of discs, from `top` on."""
    across = int((image.shape[1] - step) // step) + 1
    for index in range(number):
        draw(image, top + step * (index // across), step * (0.6 + index % across), radius, level=level)


def noisy(image: Image, seed: int = 0, sigma: float = 12) -> NDArray[np.uint16]:
    """16 bits with Gaussian noise."""
    rng = np.random.default_rng(seed)
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 65_535).astype(np.uint16)


def mixed(small: int, radius: float, giants: int, big: float, *, height: int = 700) -> Image:
    """Nuclei of two populations, apart from each other: the giants in rows at the top."""
    step = max(85.0, 2.4 * big)
    across = max(1, int((height - step) // step) + 1)
    image = blank(height, height)
    for index in range(giants):
        draw(image, step * (0.6 + index // across), step * (0.6 + index % across), big)
    below = step * (0.6 + (giants - 1) // across) + big + 30 if giants else 60
    gap = max(30.0, 2.6 * radius)
    columns = int((height - gap) // gap)
    for index in range(small):
        draw(image, below + radius + gap * (index // columns), gap * (0.8 + index % columns), radius)
    return image


def ome_xml(
    channels: Sequence[str], *, planes: str, z: int = 1, side: int = 700, uuid: str = "", size: str = ""
) -> str:
    """OME-XML of one 16-bit image; `planes` are its TiffData elements, `size` further attributes of Pixels."""
    named = "".join(f'<Channel ID="Channel:0:{i}" Name="{escape(name)}"/>' for i, name in enumerate(channels))
    identity = f' UUID="{uuid}"' if uuid else ""
    return (
        f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{identity}>'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{side}" SizeY="{side}" '
        f'SizeC="{len(channels)}" SizeZ="{z}" SizeT="1"{size}>{named}{planes}</Pixels></Image></OME>'
    )


def write_pages(path: Path, pages: Iterable[NDArray[np.generic]], description: str | None = None) -> None:
    """A TIFF of single pages that says nothing of its axes but what `description` (on the first page) does."""
    # tifffile takes ASCII as text; OME-XML is UTF-8.
    said = None if description is None else description.encode()
    with tifffile.TiffWriter(path) as file:
        for number, page in enumerate(pages):
            file.write(page, description=None if number else said, metadata=None, contiguous=False)
