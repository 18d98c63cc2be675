"""Overlays: the image in grey, or in its colours, with an outline or a box around every counted object, and sheets of several
overlays; drawn with OpenCV.

Objects with a class have the colour of the class. Of others, neighbouring objects get different colours. Two objects are neighbours if the regions of pixels closest to
each of them touch. These regions form a map in the plane, so the graph of neighbours always has an object
with at most five neighbours. Colouring the objects in the reverse of the order in which such objects are
taken away (smallest-last; Matula and Beck 1983) therefore needs at most six colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from textwrap import wrap

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.imagefile import COLOURS
from cellcount_core.images.normalise import estimate
from cellcount_core.objects.labels import inner_edge

PALETTE = ((86, 180, 233), (230, 159, 0), (0, 200, 140), (240, 228, 66), (235, 110, 60), (220, 140, 190))
"""Six colours (R, G, B) that differ for readers with any colour vision (after Okabe and Ito 2008), brightened for dark images."""


def neighbour_colours(labels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Give each label a colour number, so that labels whose regions touch have different numbers.

    `labels` is (H, W) int32, 0 for the background. Returns int64 of shape (max label + 1,), with 0 for the
    background and for labels that are not used. Numbers 0 to 5 are enough if each region is one piece.
    """
    number = int(labels.max(initial=0))
    colours = np.full(number + 1, -1, np.int64)
    graph = _neighbours(_regions(labels), number)
    for label in reversed(_smallest_last(graph)):
        taken = {int(colours[other]) for other in graph[label] if colours[other] >= 0}
        colours[label] = next(colour for colour in range(len(graph) + 1) if colour not in taken)
    return np.maximum(colours, 0)


def _regions(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Assign every pixel to its nearest object."""
    background = (labels == 0).astype(np.uint8)
    if background.all() or not background.any():
        return labels
    _, nearest = cv2.distanceTransformWithLabels(background, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    owner_of = np.zeros(int(nearest.max()) + 1, np.int32)
    inside = background == 0
    owner_of[nearest[inside]] = labels[inside]
    return np.asarray(owner_of[nearest], np.int32)


def _neighbours(regions: NDArray[np.int32], number: int) -> dict[int, set[int]]:
    pairs = []
    for one, two in ((regions[:, :-1], regions[:, 1:]), (regions[:-1], regions[1:])):
        differ = one != two
        low, high = np.minimum(one[differ], two[differ]), np.maximum(one[differ], two[differ])
        pairs.append(np.unique(low.astype(np.int64) * (number + 1) + high))
    graph: dict[int, set[int]] = {int(label): set() for label in np.unique(regions) if label > 0}
    for code in np.unique(np.concatenate(pairs)):
        one_label, two_label = divmod(int(code), number + 1)
        if one_label:
            graph[one_label].add(two_label)
            graph[two_label].add(one_label)
    return graph


def _smallest_last(graph: dict[int, set[int]]) -> list[int]:
    """The labels in the order of repeatedly taking away one with the fewest neighbours left (among equals: the one found first)."""
    left = {label: len(others) for label, others in graph.items()}
    by_degree: dict[int, dict[int, None]] = {}
    for label, degree in left.items():
        by_degree.setdefault(degree, {})[label] = None
    order: list[int] = []
    while left:
        degree = min(each for each, members in by_degree.items() if members)
        label = next(iter(by_degree[degree]))
        del by_degree[degree][label]
        del left[label]
        order.append(label)
        for other in graph[label]:
            if other in left:
                del by_degree[left[other]][other]
                left[other] -= 1
                by_degree.setdefault(left[other], {})[other] = None
    return order


_SMALLEST, _LARGEST = 900, 1600
_GAMMA = 0.7
_DARKER_SIGMAS = 3.0
_BRIGHT_FIELD = 170.0
"""The grey of a bright background."""
_LEAST_ABOVE, _MOST_ABOVE = 0.5, 1.0
"""What is brighter than a bright background is told apart up to the brightest of the image, but over this share of the objects' depth at
least (so that noise stays noise) and at most."""
_LOOKED_AT_PX = 1024
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
class SheetTile:
    """One picture of a contact sheet. `image` is (H, W, 3) uint8; if it is None, the tile shows `note` instead ("truncated file")."""

    title: str
    image: NDArray[np.uint8] | None
    note: str = ""


def grey_image(plane: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Convert a plane (H, W) of any integer or float type to grey (H, W) uint8 for looking at.

    For bright objects the grey scale runs from a little below the background to the bright end of the objects, and covers at
    least twelve times the noise, so that an empty field looks dark instead of showing its noise at full contrast. Where the
    background is bright it becomes a middle grey, as on the microscope: what is darker and what is brighter, such as the halo of a
    cell in bright field, can both be seen. The dark end is then that of the objects, the bright end that of the whole image.
    """
    levels = estimate(plane, percentile=_PERCENTILE, polarity="auto")
    raw = plane.astype(np.float32)
    if levels.inverted:
        depth = abs(levels.range)
        bright = float(np.percentile(raw[:: _every(plane), :: _every(plane)], _PERCENTILE))
        height = min(max(bright - levels.background, depth * _LEAST_ABOVE), depth * _MOST_ABOVE)
        ends = (levels.background - depth, levels.background, levels.background + height)
        return np.asarray(np.rint(np.interp(raw, ends, (0.0, _BRIGHT_FIELD, 255.0))), np.uint8)
    low = levels.background - _DARKER_SIGMAS * levels.noise
    span = levels.background + levels.range - low
    share = np.clip((raw - np.float32(low)) / np.float32(span), 0.0, 1.0)
    return np.asarray(np.rint(255.0 * share**_GAMMA), np.uint8)


def _every(plane: NDArray[np.generic]) -> int:
    """Of a large plane every so manieth row and column tells its levels."""
    return max(1, int(max(plane.shape)) // _LOOKED_AT_PX)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is drawn over an image of (H, W) px: `labels` (H, W), 0 for the background and 1..n for objects, or `boxes` (n, 4) float, y0
    x0 y1 x1 half-open. `classes` (n,) are the places of the objects' classes in `names`; None if objects have no class.
    """

    labels: NDArray[np.int32] | None = None
    boxes: NDArray[np.float64] | None = None
    classes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    def legend(self) -> tuple[LegendEntry, ...]:
        """The classes with their colours and numbers of objects; () if objects have no class."""
        if self.classes is None:
            return ()
        numbers = np.bincount(self.classes, minlength=len(self.names))
        return tuple(
            LegendEntry(name, int(number), class_colour(place))
            for place, (name, number) in enumerate(zip(self.names, numbers, strict=True))
        )


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A class: its name, how many objects it has, and its colour (R, G, B). A channel has no number of objects: None."""

    name: str
    number: int | None
    colour: tuple[int, int, int]

    @property
    def text(self) -> str:
        """What stands beside the colour."""
        return self.name if self.number is None else f"{self.number:,} {self.name}"


def class_colour(place: int) -> tuple[int, int, int]:
    """The colour (R, G, B) of the class at this place; the seventh class has that of the first again."""
    return PALETTE[place % len(PALETTE)]


NOTHING = Layer()


ROLE_COLOURS = ((0, 255, 0), (255, 0, 255), (0, 120, 255), (255, 170, 0))
"""Colours (R, G, B) of the channels of a composite, in the order of the roles: green and magenta, which readers with any colour vision
tell apart, and white where both are bright."""

NAMED_COLOURS = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 110, 255), "yellow": (255, 255, 0), "magenta": (255, 0, 255), "cyan": (0, 255, 255),
}  # fmt: skip
"""Colours (R, G, B) of roles that are called after colours: drawn in another one, they would be mistaken for each other."""


def picture_of(
    planes: Mapping[str, NDArray[np.generic]],
    bit_max: int = 0,
    full: Mapping[str, float] | None = None,
    roles: Sequence[str] = (),
) -> NDArray[np.generic]:
    """What is drawn of counted planes (H, W) by name: a single one as it is; red, green and blue as their colours (H, W, 3) uint8; others,
    of several roles, as a composite (H, W, 3) uint8 in the colours of the `roles` of the planes, in order (see `role_colours`).

    `bit_max` is the largest value that a pixel can have; 0 if there is none. In a composite a plane has its full colour so far
    above its background as `full` says (raw units); without it at the bright end of its objects.
    """
    if len(planes) == 1:
        return next(iter(planes.values()))
    if set(planes) != set(COLOURS):
        return _composite(planes, full or {}, role_colours(roles or tuple(planes)))
    most = bit_max or max(1.0, *(float(plane.max(initial=0)) for plane in planes.values()))
    shares = [np.clip(planes[name].astype(np.float32) / np.float32(most), 0, 1) for name in COLOURS]
    return np.asarray(np.rint(255 * np.stack(shares, axis=-1)), np.uint8)


def _composite(
    planes: Mapping[str, NDArray[np.generic]], full: Mapping[str, float], colours: Sequence[tuple[int, ...]]
) -> NDArray[np.uint8]:
    picture = np.zeros((*next(iter(planes.values())).shape, 3), np.uint8)
    for colour, (name, plane) in zip(colours, planes.items(), strict=True):
        light = _light(plane, full.get(name)).astype(np.uint16)
        for axis, most in enumerate(colour):
            if most:
                share = (light * np.uint16(most) // 255).astype(np.uint8)
                np.maximum(picture[..., axis], share, out=picture[..., axis])
    return picture


def _light(plane: NDArray[np.generic], full: float | None) -> NDArray[np.uint8]:
    """How bright one plane (H, W) shows in a composite: 0 up to the background and its noise, so that two planes without objects leave black."""
    levels = estimate(plane, percentile=_PERCENTILE, polarity="auto")
    if levels.inverted:
        return grey_image(plane)
    low = levels.background + levels.noise
    span = max((full or levels.range) - levels.noise, levels.noise)
    share = np.clip((plane.astype(np.float32) - np.float32(low)) / np.float32(span), 0.0, 1.0)
    return np.asarray(np.rint(255.0 * share**_GAMMA), np.uint8)


def role_colours(roles: Sequence[str]) -> list[tuple[int, int, int]]:
    """The colours (R, G, B) of roles in a composite: their own if all are called after colours, else by their places."""
    names = [role.casefold() for role in roles]
    if set(names) <= set(NAMED_COLOURS):
        return [NAMED_COLOURS[name] for name in names]
    return [ROLE_COLOURS[place % len(ROLE_COLOURS)] for place in range(len(names))]


def roles_legend(channels: Mapping[str, str]) -> tuple[LegendEntry, ...]:
    """What the colours of a composite stand for, from the channel of each role; () if the picture is no composite."""
    if len(set(channels.values())) < 2 or set(channels.values()) == set(COLOURS):
        return ()
    return tuple(
        LegendEntry(f"stain: {role} ({name})" if name and name != role else f"stain: {role}", None, colour)
        for colour, (role, name) in zip(role_colours(tuple(channels)), channels.items(), strict=True)
    )


def overlay_image(image: NDArray[np.generic], layer: Layer = NOTHING) -> NDArray[np.uint8]:
    """Draw an image with what was found in it: (h, w, 3) uint8 RGB, enlarged or reduced for the screen.

    `image` is a plane (H, W) in raw units, which is drawn in grey, or a picture (H, W, 3) uint8. Outlines of labels lie inside their
    objects, and neighbours without classes have different colours, so touching objects can be told apart. Small fields are
    enlarged by a whole factor; the longer side of large ones is reduced to 1600 px.

    Raises ValueError if image and labels differ in shape.
    """
    shape, labels = image.shape[:2], layer.labels
    if labels is not None and shape != labels.shape:
        raise ValueError(f"image and labels must have one shape (got {shape} and {labels.shape})")
    size = overlay_size(shape)
    if image.ndim == 2:
        grey = cv2.resize(grey_image(image), size, interpolation=_smooth(shape, size))
        shown = np.repeat(grey[:, :, None], 3, axis=2)
    else:
        shown = cv2.resize(np.asarray(image, np.uint8), size, interpolation=_smooth(shape, size))
    drawn: NDArray[np.uint8] = np.ascontiguousarray(shown, np.uint8)
    line = _LINE_PX if size[0] > shape[1] else 1
    if labels is not None:
        _draw_outlines(drawn, labels, layer, line)
    if layer.boxes is not None:
        scale = np.array([size[1] / shape[0], size[0] / shape[1]] * 2)
        _draw_boxes(drawn, layer.boxes * scale, layer)
    return drawn


def _draw_outlines(image: NDArray[np.uint8], labels: NDArray[np.int32], layer: Layer, line: int) -> None:
    size = (image.shape[1], image.shape[0])
    shown = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.int32)
    if layer.classes is None:
        colours = np.array(PALETTE, np.uint8)[neighbour_colours(labels) % len(PALETTE)]
    else:
        colours = np.array([PALETTE[0], *map(class_colour, layer.classes.tolist())], np.uint8)
    edge = inner_edge(shown, line)
    image[edge] = colours[shown[edge]]


def _draw_boxes(image: NDArray[np.uint8], boxes: NDArray[np.float64], layer: Layer) -> None:
    """Draw boxes (n, 4) in px of the image; small ones, which lie on top of large ones, last."""
    places = np.zeros(len(boxes), np.int64) if layer.classes is None else layer.classes
    corners = np.rint(boxes).astype(int)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    line = _LINE_PX if min(image.shape[:2]) >= _SMALLEST // 2 else 1
    for number in np.argsort(-area, kind="stable").tolist():
        y0, x0, y1, x1 = corners[number].tolist()
        ends = ((x0, y0), (max(x0, x1 - 1), max(y0, y1 - 1)))
        # A dark rim keeps a line visible on a bright image.
        cv2.rectangle(image, *ends, _PAPER, line + 2)
        cv2.rectangle(image, *ends, class_colour(int(places[number])), line)


def overlay_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Width and height in px at which a field of this shape (H, W) is shown."""
    longest = max(shape)
    if longest > _LARGEST:
        return max(1, round(shape[1] * _LARGEST / longest)), max(1, round(shape[0] * _LARGEST / longest))
    factor = max(1, ceil(_SMALLEST / longest))
    return shape[1] * factor, shape[0] * factor


def overlay_png(
    image: NDArray[np.uint8],
    *,
    caption: str,
    um_per_px: float | None = None,
    legend: Sequence[LegendEntry] = (),
) -> bytes:
    """Encode an overlay (h, w, 3) uint8 RGB as PNG, with a band below it: `caption` on the left, a scale bar
    on the right. A second band holds the `legend`, if there is one.

    `um_per_px` is the size in µm of a pixel of `image`; without it there is no scale bar.
    """
    height, width = image.shape[:2]
    sheet = _paper(height + _BAND_PX + (_LINE_HEIGHT_PX if legend else 0), width)
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
    _write_legend(sheet, legend, 12, height + _BAND_PX + _LINE_HEIGHT_PX - _TEXT_PX - 8)
    return _png(sheet)


def _write_legend(sheet: NDArray[np.uint8], legend: Sequence[LegendEntry], left: int, top: int) -> None:
    """Write entries side by side, as many as there is room for."""
    for entry in legend:
        if left + _TEXT_PX + 8 + _width(entry.text) > sheet.shape[1]:
            break
        sheet[top : top + _TEXT_PX, left : left + _TEXT_PX] = entry.colour
        _write(sheet, entry.text, left + _TEXT_PX + 8, top + _TEXT_PX - 2)
        left += _TEXT_PX + 8 + _width(entry.text) + 24


def contact_sheet(
    tiles: Sequence[SheetTile], *, title: str = "", columns: int = 3, legend: Sequence[LegendEntry] = ()
) -> bytes:
    """Arrange the tiles in reading order in one PNG, each with its title above. A tile without an image shows its note. The `legend`, if
    there is one, stands below the title of the sheet.
    """
    across = max(1, min(columns, len(tiles)))
    above = _GAP_PX + (_HEADING_PX if title else 0) + (2 * _LINE_HEIGHT_PX if legend else 0)
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
    _write_legend(sheet, legend, _GAP_PX, above - 2 * _LINE_HEIGHT_PX)
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, tile, above, _GAP_PX + column * (_TILE_PX + _GAP_PX))
        above += height
    return _png(sheet)


def round_length(um: float) -> float:
    """The largest of …, 0.2, 0.5, 1, 2, 5, 10, 20, 50, … that is not above `um` (which must be > 0)."""
    power = 10.0 ** np.floor(np.log10(um))
    return float(max(step * power for step in _ROUND if step * power <= um * (1 + 1e-9)))


def _smooth(shape: tuple[int, ...], size: tuple[int, int]) -> int:
    return cv2.INTER_AREA if size[0] < shape[1] else cv2.INTER_CUBIC


def _paper(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _fitting(tile: SheetTile) -> tuple[int, int]:
    """Width and height in px at which a tile is shown on a sheet."""
    height, width = (_TILE_PX, _TILE_PX) if tile.image is None else tile.image.shape[:2]
    factor = _TILE_PX / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _draw_tile(sheet: NDArray[np.uint8], tile: SheetTile, y: int, x: int) -> None:
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
    """As much of the text as fits into `width` px, ending with "…" if it was cut."""
    if _width(text) <= width:
        return text
    fits = max((letters for letters in range(len(text)) if _width(text[:letters] + "…") <= width), default=0)
    return text[:fits] + "…"


def _width(text: str) -> int:
    """The width of a line of text in px."""
    return int(cv2.getTextSize((0, 0), text, (0, 0), _font(_REGULAR), _TEXT_PX, _REGULAR)[2])


def _write(
    sheet: NDArray[np.uint8], text: str, x: int, y: int, size: int = _TEXT_PX, weight: int = _REGULAR
) -> None:
    """Write `text` with the left end of its baseline at (x, y) px."""
    cv2.putText(sheet, text, (x, y), _INK, _font(weight), size, weight)


@cache
def _font(weight: int) -> cv2.FontFace:
    """OpenCV's own font, which has Latin, Greek, Cyrillic and Chinese letters; others are drawn as "?". There
    is one for each weight, because a font keeps the letters that it has drawn.
    """
    return cv2.FontFace("sans")


def _png(image: NDArray[np.uint8]) -> bytes:
    """Encode RGB as PNG; equal arrays give equal bytes."""
    done, body = cv2.imencode(".png", image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, _COMPRESSION))
    if not done:
        raise ValueError(f"an image of {image.shape} cannot be written as PNG")
    return body.tobytes()
