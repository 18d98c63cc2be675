"""Overlays: the image in grey with the outline of every counted object, and sheets of several of them; drawn with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from textwrap import wrap

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.normalise import estimate
from cellcount_core.objects.labels import inner_edge
from cellcount_core.report.colouring import PALETTE, neighbour_colours

_SMALLEST, _LARGEST = 900, 1600
_GAMMA = 0.7
_DARKER_SIGMAS = 3.0
_PERCENTILE = 99.7
_LINE_PX = 2
_BAND_PX = 44
_BAR_SHARE = 0.2
_PAPER, _INK, _BLANK, _HATCH = (22, 24, 29), (242, 242, 242), (36, 39, 46), (90, 95, 107)
_ROUND = (1, 2, 5)
_TILE_PX, _GAP_PX, _LINE_HEIGHT_PX, _HEADING_PX = 660, 24, 26, 60
_TEXT_PX, _TITLE_PX = 18, 26
_REGULAR, _BOLD = 400, 700
_COMPRESSION = 2
_NOTE_LETTERS = 40
"""Letters in a line of a note, which a tile is wide enough for."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a contact sheet. `image` is (H, W, 3) uint8; None shows `note` instead ("truncated file")."""

    title: str
    image: NDArray[np.uint8] | None
    note: str = ""


def grey_image(plane: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The plane (H, W) of any integer or float type as grey (H, W) uint8 for looking at.

    From a little below the background to the bright end of the objects, and never less than twelve times the noise: an
    empty field is shown dark, not as noise at full scale. An image with dark objects is shown from their dark end upwards.
    """
    levels = estimate(plane, percentile=_PERCENTILE, polarity="auto")
    if levels.inverted:
        low = levels.background + levels.range
        levels = replace(levels, background=low, range=-levels.range)
    low = levels.background - _DARKER_SIGMAS * levels.noise
    span = levels.background + levels.range - low
    share = np.clip((plane.astype(np.float32) - np.float32(low)) / np.float32(span), 0.0, 1.0)
    return np.asarray(np.rint(255.0 * share**_GAMMA), np.uint8)


def overlay_image(plane: NDArray[np.generic], labels: NDArray[np.int32] | None) -> NDArray[np.uint8]:
    """Grey image with the outline of each object: (h, w, 3) uint8 RGB, enlarged or reduced for the screen.

    `labels` is (H, W) as `plane`, 0 for the background; None draws the image alone. An outline lies inside its object and neighbours differ in colour, so
    that touching objects can be told apart. Small fields are enlarged by a whole factor; the longer side of large ones
    is reduced to 1600 px.

    Raises ValueError where the shapes differ.
    """
    if labels is not None and plane.shape != labels.shape:
        raise ValueError(f"plane and labels must have one shape (got {plane.shape} and {labels.shape})")
    size = overlay_size(plane.shape)
    grey = cv2.resize(grey_image(plane), size, interpolation=_smooth(plane.shape, size))
    image = np.repeat(grey[:, :, None], 3, axis=2)
    if labels is None:
        return np.asarray(image, np.uint8)
    shown = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.int32)
    colours = np.array(PALETTE, np.uint8)[neighbour_colours(labels) % len(PALETTE)]
    edge = inner_edge(shown, _LINE_PX if size[0] > plane.shape[1] else 1)
    image[edge] = colours[shown[edge]]
    return np.asarray(image, np.uint8)


def overlay_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height (px) at which a field (H, W) is shown."""
    longest = max(shape)
    if longest > _LARGEST:
        return max(1, round(shape[1] * _LARGEST / longest)), max(1, round(shape[0] * _LARGEST / longest))
    factor = max(1, ceil(_SMALLEST / longest))
    return shape[1] * factor, shape[0] * factor


def overlay_png(image: NDArray[np.uint8], *, caption: str, um_per_px: float | None = None) -> bytes:
    """An overlay (h, w, 3) RGB as PNG with a band below it: `caption` on the left, a scale bar on the right.

    `um_per_px` is the size of a pixel of `image`; without it there is no scale bar.
    """
    height, width = image.shape[:2]
    sheet = _paper(height + _BAND_PX, width)
    sheet[:height] = image
    right = width - 12
    if um_per_px is not None:
        length = round_length(_BAR_SHARE * width * um_per_px)
        shown = round(length / um_per_px)
        sheet[height + _BAND_PX - 12 : height + _BAND_PX - 8, right - shown : right] = _INK
        text = f"{length:g} µm"
        _write(sheet, text, right - (shown + _width(text)) // 2, height + 24)
        right -= max(shown, _width(text)) + 12
    _write(sheet, _shortened(caption, right - 24), 12, height + 28)
    return _png(sheet)


def contact_sheet(tiles: Sequence[Tile], *, title: str = "", columns: int = 3) -> bytes:
    """The tiles in reading order as one PNG, each below its title; a tile without an image shows its note."""
    across = max(1, min(columns, len(tiles)))
    above = _GAP_PX + (_HEADING_PX if title else 0)
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    heights = [
        _LINE_HEIGHT_PX * max(len(tile.title.splitlines()) for tile in row)
        + max(_fitting(tile)[1] for tile in row)
        + _GAP_PX
        for row in rows
    ]
    sheet = _paper(above + sum(heights), across * (_TILE_PX + _GAP_PX) + _GAP_PX)
    if title:
        _write(sheet, title, _GAP_PX, _GAP_PX + _TITLE_PX, _TITLE_PX, _BOLD)
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, tile, above, _GAP_PX + column * (_TILE_PX + _GAP_PX))
        above += height
    return _png(sheet)


def round_length(um: float) -> float:
    """The largest of 1, 2, 5, 10, 20, 50, … (and 0.5, 0.2, …) that is not above `um` (> 0)."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in _ROUND if step * power <= um * (1 + 1e-9)))


def _smooth(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    return cv2.INTER_AREA if size[0] < shape[1] else cv2.INTER_CUBIC


def _paper(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _fitting(tile: Tile) -> tuple[int, int]:
    """Width and height (px) at which a tile is shown on a sheet."""
    height, width = (_TILE_PX, _TILE_PX) if tile.image is None else tile.image.shape[:2]
    factor = _TILE_PX / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _draw_tile(sheet: NDArray[np.uint8], tile: Tile, y: int, x: int) -> None:
    for line in tile.title.splitlines():
        _write(sheet, _shortened(line, _TILE_PX), x, y + _TEXT_PX)
        y += _LINE_HEIGHT_PX
    width, height = _fitting(tile)
    if tile.image is not None:
        shown = cv2.resize(
            tile.image, (width, height), interpolation=_smooth(tile.image.shape, (width, height))
        )
        sheet[y : y + height, x : x + width] = shown
        return
    blank = sheet[y : y + height, x : x + width]
    blank[:] = _BLANK
    across, down = np.arange(width), np.arange(height)[:, None]
    blank[(across + down) % _LINE_HEIGHT_PX == 0] = _HATCH
    lines = wrap(tile.note, _NOTE_LETTERS)
    top = (height - len(lines) * _LINE_HEIGHT_PX) // 2
    for number, line in enumerate(lines):
        baseline, left = top + number * _LINE_HEIGHT_PX, (width - _width(line)) // 2
        blank[baseline : baseline + _LINE_HEIGHT_PX, left - 8 : left + _width(line) + 8] = _PAPER
        _write(sheet, line, x + left, y + baseline + _TEXT_PX)


def _shortened(text: str, width: int) -> str:
    """As much of the text as fits into so many px, with "…" where it is not all."""
    if _width(text) <= width:
        return text
    fits = max((letters for letters in range(len(text)) if _width(text[:letters] + "…") <= width), default=0)
    return text[:fits] + "…"


def _width(text: str) -> int:
    """Of a line of text, in px."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), _font(_REGULAR), _TEXT_PX, _REGULAR)[2])


def _write(
    sheet: NDArray[np.uint8], text: str, x: int, y: int, size: int = _TEXT_PX, weight: int = _REGULAR
) -> None:
    """`text` from the point (x, y) px on, which is the left end of its baseline."""
    cv2.putText(sheet, text, (x, y), _INK, _font(weight), size, weight)


@cache
def _font(weight: int) -> cv2.FontFace:
    """OpenCV's own, which holds Latin, Greek, Cyrillic and Chinese letters; others are drawn as "?". One for each weight: it
    keeps letters it has drawn."""
    return cv2.FontFace("sans")


def _png(image: NDArray[np.uint8]) -> bytes:
    """RGB as PNG; equal arrays give equal bytes."""
    done, body = cv2.imencode(".png", image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION))
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be written as PNG")
    return body.tobytes()
