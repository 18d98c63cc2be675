"""Images with boxes made ready for training, and augmented crops of them.

An image is normalised whole, each of its planes by its own levels, exactly as a field is when it is counted, and kept at a little more
than the model's scale. A crop is cut from it, resized once, turned by quarters and mirrored (a box turned by any other angle would no
longer fit its object), and changed as light and cameras change images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.settings import Section
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import compress, estimate, without_debris
from cellcount_core.images.pixels import resize
from cellcount_core.models.package import InputSpec
from cellcount_core.tasks.boxes.targets import LabelledBoxes

Pixels = NDArray[np.float32]

_KEPT = 1.5
"""An image is kept at this multiple of the model's scale, unless it is smaller: what a crop shrinks is averaged, as in a run."""

_SEEN, _UNSEEN = 0.4, 0.1
"""An object of which a crop shows at least the first share is taught, by the part of its box that is shown. One of which it shows less
than the second share is background. Between them, nothing is taught where it lies."""

_WIDE = (0.4, 2.2)

_OVER = 0.15
"""The share of a crop by which some crops reach over the edge of their image."""


@dataclass(frozen=True, slots=True)
class BoxSample:
    """An image ready to be cut: `pixels` (H, W, C) float32, normalised (0 the background, 1 full scale) but not compressed.

    `labelled` are its boxes in px of `pixels`, which have `scale` times as many pixels a side as the image at the model's scale.
    """

    pixels: Pixels
    labelled: LabelledBoxes
    scale: float


class BoxAugmentConfig(Section):
    """How crops are varied.

    Objects are enlarged or reduced by a log-normal factor of `scale_sigma`, or, in `wide_share` of the crops, by one from 0.4 to 2.2: an
    image of unknown scale is looked at in several sizes. Their sides are stretched by a factor of `stretch_sigma`. `gain_sigma` varies
    contrast, `colour_sigma` that of single channels, `shift_sigma` the level of the background, `uneven` the strength of uneven light.
    `blur_share` of the crops are blurred, and noise of up to `noise` is added.
    """

    scale_sigma: float = Field(0.15, ge=0, le=1)
    wide_share: float = Field(0.15, ge=0, le=1)
    stretch_sigma: float = Field(0.05, ge=0, le=0.5)
    gain_sigma: float = Field(0.15, ge=0)
    colour_sigma: float = Field(0.08, ge=0)
    shift_sigma: float = Field(0.03, ge=0)
    uneven: float = Field(0.1, ge=0)
    blur_share: float = Field(0.15, ge=0, le=1)
    noise: float = Field(0.04, ge=0)


def prepare_boxes(
    planes: Sequence[Plane], labelled: LabelledBoxes, spec: InputSpec, diameter_px: float
) -> BoxSample:
    """An image, given as raw planes (H, W), one a role, made ready to be cut.

    Its boxes are in px of the planes. `diameter_px` is the size of objects, the root of a box's area, in the images of this data.
    """
    factor = 1.0 if spec.diameter_px is None else spec.diameter_px / diameter_px
    kept = min(1.0, factor * _KEPT)
    shown = []
    for plane in planes:
        norm = estimate(
            plane, percentile=spec.percentile, floor_sigmas=spec.floor_sigmas, polarity=spec.polarity
        )
        scaled = resize(without_debris(plane, norm), kept).astype(np.float32)
        shown.append((scaled - np.float32(norm.background)) / np.float32(norm.range))
    ignored = None if labelled.ignored is None else labelled.ignored * kept
    moved = LabelledBoxes(labelled.boxes * kept, labelled.classes, labelled.unlabelled, ignored)
    return BoxSample(np.stack(shown, axis=-1), moved, kept / factor)


def plain_boxes(rng: np.random.Generator, sample: BoxSample, side: int) -> tuple[Pixels, LabelledBoxes]:
    """A crop (side, side, C) from anywhere in an image at the model's scale, unchanged. Beyond the image is background."""
    window = side * sample.scale
    corner = [float(rng.uniform(0, max(0, length - window))) for length in sample.pixels.shape[:2]]
    pixels, labelled = _cut(sample, (corner[0], corner[1]), (window, window), side, cv2.BORDER_CONSTANT)
    return compress(pixels), labelled


def draw_boxes(
    rng: np.random.Generator, sample: BoxSample, side: int, config: BoxAugmentConfig
) -> tuple[Pixels, LabelledBoxes]:
    """An augmented crop (side, side, C) float32 as the network sees it, and its boxes in px of the crop."""
    zoom = float(np.exp(np.clip(rng.normal(0, 1), -2.5, 2.5) * config.scale_sigma))
    if rng.random() < config.wide_share:
        zoom = float(np.exp(rng.uniform(*np.log(_WIDE))))
    stretch = float(np.exp(np.clip(rng.normal(0, 1), -2, 2) * config.stretch_sigma))
    window = (side * sample.scale / zoom * stretch, side * sample.scale / zoom / stretch)
    height, width = sample.pixels.shape[:2]
    corner = (_place(rng, height, window[0]), _place(rng, width, window[1]))
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REFLECT_101
    pixels, labelled = _cut(sample, corner, window, side, border)
    pixels, labelled = _turned(pixels, labelled, int(rng.integers(8)))
    return compress(_vary(rng, pixels, config)), labelled


def _place(rng: np.random.Generator, length: int, wanted: float) -> float:
    """Where a window of `wanted` px begins: inside the image if it fits, otherwise so that the image lies inside it."""
    low, high = sorted((0.0, length - wanted))
    # Some windows reach over the edge of the image, where fields end in a run.
    over = _OVER * wanted if rng.random() < 0.3 else 0.0
    return float(rng.uniform(low - over, high + over))


def _cut(
    sample: BoxSample, corner: tuple[float, float], window: tuple[float, float], side: int, border: int
) -> tuple[Pixels, LabelledBoxes]:
    """The window of an image, `window` (h, w) px from `corner` (y, x) on, resized to (side, side, C).

    `border` is OpenCV's code for what lies beyond the image. Nothing is taught where it is mirrored: half an object and its mirror
    image look like another object.
    """
    height, width = sample.pixels.shape[:2]
    top, left = round(corner[0]), round(corner[1])
    tall, wide = max(1, round(window[0])), max(1, round(window[1]))
    y0, y1, x0, x1 = max(0, top), min(height, top + tall), max(0, left), min(width, left + wide)
    missing = (y0 - top, top + tall - y1, x0 - left, left + wide - x1)
    part = cv2.copyMakeBorder(sample.pixels[y0:y1, x0:x1], *missing, border)
    method = cv2.INTER_AREA if tall * wide > side * side else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(part, (side, side), interpolation=method), np.float32)
    mirrored = np.zeros((0, 4))
    if border != cv2.BORDER_CONSTANT:
        end, far = top + tall, left + wide
        strips = [[top, left, y0, far], [y1, left, end, far], [top, left, end, x0], [top, x1, end, far]]
        mirrored = np.array(strips, np.float64)
    factor = np.array([side / tall, side / wide] * 2)
    return pixels.reshape(side, side, -1), _moved(sample.labelled, (top, left), factor, side, mirrored)


def _moved(
    labelled: LabelledBoxes,
    corner: tuple[int, int],
    factor: NDArray[np.float64],
    side: int,
    untaught: NDArray[np.float64],
) -> LabelledBoxes:
    """The boxes as they lie in a crop, without those that it does not show, and the parts of it in which nothing is taught."""
    untaught = np.concatenate([untaught, _some(labelled.ignored)])
    boxes, unclear = ((each - np.array([*corner, *corner])) * factor for each in (labelled.boxes, untaught))
    shown, unclear = np.clip(boxes, 0, side), np.clip(unclear, 0, side)
    share = _areas(shown) / np.maximum(_areas(boxes), 1e-9)
    half = (share < _SEEN) & (share >= _UNSEEN)
    unclear = np.concatenate([shown[half], unclear[_areas(unclear) > 0]])
    return LabelledBoxes(
        shown[share >= _SEEN], labelled.classes[share >= _SEEN], labelled.unlabelled, unclear
    )


def _some(boxes: NDArray[np.float64] | None) -> NDArray[np.float64]:
    return np.zeros((0, 4)) if boxes is None else boxes


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float64)


def _turned(pixels: Pixels, labelled: LabelledBoxes, turns: int) -> tuple[Pixels, LabelledBoxes]:
    """A square crop and its boxes in one of eight positions: turned by quarters `turns` times, from 4 on also mirrored."""
    side = pixels.shape[0]

    def move(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        y0, x0, y1, x1 = boxes.T
        for _ in range(turns % 4):
            y0, x0, y1, x1 = side - x1, y0, side - x0, y1
        if turns >= 4:
            x0, x1 = side - x1, side - x0
        return np.stack([y0, x0, y1, x1], axis=-1)

    turned = np.rot90(pixels, turns % 4)
    turned = turned[:, ::-1] if turns >= 4 else turned
    moved = LabelledBoxes(
        move(labelled.boxes), labelled.classes, labelled.unlabelled, move(_some(labelled.ignored))
    )
    return np.ascontiguousarray(turned), moved


def _vary(rng: np.random.Generator, pixels: Pixels, config: BoxAugmentConfig) -> Pixels:
    channels = pixels.shape[2]
    gain = np.exp(rng.normal(0, config.gain_sigma) + rng.normal(0, config.colour_sigma, (channels,)))
    shift = rng.normal(0, config.shift_sigma) + rng.normal(0, config.shift_sigma, (channels,)) / 2
    pixels = pixels * gain.astype(np.float32) + shift.astype(np.float32)
    if config.uneven and rng.random() < 0.5:
        small = rng.normal(0, config.uneven, (3, 3)).astype(np.float32)
        light = cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., None]
        pixels = pixels * (1 + light) + np.float32(rng.uniform(-1, 1)) * light
    if rng.random() < config.blur_share:
        blurred = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 1.2)))
        pixels = np.asarray(blurred, np.float32).reshape(pixels.shape)
    if config.noise and rng.random() < 0.5:
        sigma = np.float32(config.noise * rng.random())
        pixels = pixels + sigma * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.asarray(pixels, np.float32)
