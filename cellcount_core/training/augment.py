"""Augmentation for microscopy: geometry applied to image and labels alike, then what optics and cameras do to intensities.

Images are (H, W) or, with several channels, (H, W, C). All channels move together; what happens to intensities is drawn for each
channel by itself, as each is another exposure. Images come in normalised but not yet compressed (0 the background, 1 full scale);
`compress` comes last, as in a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.images.normalise import compress
from cellcount_core.labelled.label_files import Labels

Image = NDArray[np.float32]

_LEAST_COPIED = 12
"""Area, in px, of the smallest object that is copied."""

_MOST_COPIES = 8
_SMALL = (0.2, 0.5)
_LEAST_SMALL_PX = 4.0
_MOST_COVERED = 0.3


@dataclass(frozen=True, slots=True)
class Crop:
    """An augmented crop of S x S px: `pixels` (S, S, C) float32 (compressed), `labels` (S, S) int32, `valid` (S, S) float32 (1 inside
    the image), `taught` (S, S) float32 (0 where the labels say nothing).

    `sizes` are the diameters of the whole objects by label number, in px of the crop. Beyond the image's edge labels
    are mirrored; `blank` says that the pixels there are background instead of mirrored.
    """

    pixels: Image
    labels: Labels
    sizes: Image
    valid: Image
    taught: Image
    blank: bool


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a crop lies: its centre (x, y) in px of the source, the factor to the crop's scale, rotation in degrees,
    and `mirror` (-1 or 1).

    `bend` (n, n, 2) float32, or None, is the elastic part: displacements in px of the crop on a coarse grid.
    """

    x: float
    y: float
    scale: float
    degrees: float
    mirror: int
    stretch: float
    bend: NDArray[np.float32] | None = None


def place(rng: np.random.Generator, labels: Labels, scale: float, size: int) -> Placement:
    """Draw a placement: mostly around an object and inside the image, at any quarter turn, sometimes at any angle."""
    height, width = labels.shape
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    objects = int(labels.max(initial=0))
    if objects and rng.random() < 0.6:
        rows, columns = np.nonzero(labels == rng.integers(1, objects + 1))
        if rows.size:
            x, y = columns.mean() + rng.normal(0, 40 / scale), rows.mean() + rng.normal(0, 40 / scale)
    degrees = 90.0 * rng.integers(4)
    stretch = 1.0
    if rng.random() < 0.3:
        degrees += rng.uniform(-45, 45)
        stretch = float(np.exp(rng.normal(0, 0.06)))
    bend = rng.normal(0, rng.uniform(1, 5), (6, 6, 2)).astype(np.float32) if rng.random() < 0.2 else None
    if rng.random() < 0.75:
        x, y = _inside(x, width, size / scale), _inside(y, height, size / scale)
    # Between two pixels, so that a crop of even size at factor 1 takes pixels over unchanged.
    x, y = np.clip(np.rint(x) - 0.5, 0, width - 1), np.clip(np.rint(y) - 0.5, 0, height - 1)
    mirror = -1 if rng.random() < 0.5 else 1
    return Placement(float(x), float(y), scale, float(degrees), mirror, stretch, bend)


def _inside(centre: float, length: int, wanted: float) -> float:
    return length / 2 if wanted >= length else float(np.clip(centre, wanted / 2, length - wanted / 2))


def by_channel(image: Image, work: Callable[[Image], Image]) -> Image:
    """Apply `work` to an image (H, W), or to each channel of an image (H, W, C)."""
    if image.ndim == 2:
        return work(image)
    channels = [work(np.ascontiguousarray(image[..., at])) for at in range(image.shape[-1])]
    return np.stack(channels, axis=-1)


def cut(
    image: Image, labels: Labels, where: Placement, size: int, border: int
) -> tuple[Image, Labels, Image]:
    """Cut the crop (size, size[, C]) of an image, and its labels and validity (size, size), at a placement. `border` is OpenCV's code
    for what lies beyond the edge."""
    reach = int(np.ceil(size / 2 / where.scale * 1.5)) + 8
    top, left = max(0, int(where.y) - reach), max(0, int(where.x) - reach)
    image = image[top : int(where.y) + reach, left : int(where.x) + reach]
    labels = labels[top : int(where.y) + reach, left : int(where.x) + reach]
    if where.scale < 0.8:
        image = by_channel(image, lambda channel: _blur(channel, 0.45 / where.scale))
    angle = np.deg2rad(where.degrees)
    across, down = where.mirror / where.scale * where.stretch, 1 / where.scale / where.stretch
    matrix = np.array(
        [
            [np.cos(angle) * across, -np.sin(angle) * down, 0],
            [np.sin(angle) * across, np.cos(angle) * down, 0],
        ]
    )
    centre = (size - 1) / 2
    matrix[:, 2] = np.array([where.x - left, where.y - top]) - matrix[:, :2] @ np.array([centre, centre])
    across_map, down_map = _source_places(matrix, size, where.bend)

    def taken(source: Image, method: int, outside: int) -> Image:
        moved = cv2.remap(source, across_map, down_map, method, borderMode=outside)
        return np.asarray(moved, np.float32)

    crop = by_channel(image, lambda channel: taken(channel, cv2.INTER_LINEAR, border))
    # OpenCV turns no int32; float32 holds every label exactly up to 2^24.
    turned = taken(labels.astype(np.float32), cv2.INTER_NEAREST, cv2.BORDER_REFLECT_101)
    if where.scale > 1.3:
        # Enlarged labels have steps that the distance would follow; a median keeps to labels that are there.
        turned = np.asarray(cv2.medianBlur(turned, 3 if where.scale < 2 else 5), np.float32)
    valid = taken(np.ones(labels.shape, np.float32), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    return crop, np.rint(turned).astype(np.int32), valid


def _source_places(
    matrix: NDArray[np.float64], size: int, bend: NDArray[np.float32] | None
) -> tuple[Image, Image]:
    """The x and y (float32) of the source that each pixel of a crop (size, size) shows."""
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    if bend is not None:
        moved = cv2.resize(bend, (size, size), interpolation=cv2.INTER_CUBIC)
        x, y = x + moved[..., 0], y + moved[..., 1]
    m = matrix.astype(np.float32)
    return m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def vary_intensity(rng: np.random.Generator, crop: Image, labels: Labels) -> Image:
    """Vary one channel (S, S), each by chance: gain, gamma, brightness of single objects, blur, illumination, debris, noise and
    quantisation."""
    if rng.random() < 0.25:
        crop = np.sign(crop) * np.abs(crop) ** np.float32(rng.uniform(0.7, 1.4))
    gain = float(np.exp(rng.normal(0, 0.25)))
    chance = rng.random()
    if chance < 0.15:
        gain *= rng.uniform(0.2, 0.7)
    elif chance < 0.25:
        gain *= rng.uniform(1.2, 3.5)
    crop = crop * np.float32(gain)
    if rng.random() < 0.2:
        crop = _vary_objects(rng, crop, labels)
    if rng.random() < 0.2:
        crop = _blur(crop, rng.uniform(0.5, 2.0))
    if rng.random() < 0.1:
        # Light of cells that lie out of focus.
        crop = crop + np.float32(rng.uniform(0.1, 0.7)) * _blur(
            np.ascontiguousarray(crop[::-1, ::-1]), rng.uniform(6, 24)
        )
    if rng.random() < 0.25:
        crop = _illuminate(rng, crop)
    if rng.random() < 0.1:
        crop = _add_debris(rng, crop)
    crop = _add_noise(rng, crop)
    return _saturate(rng, crop) if rng.random() < 0.08 else crop


def _saturate(rng: np.random.Generator, crop: Image) -> Image:
    """Set the brightest pixels to one value, which becomes full scale, as normalisation does with a clipped image."""
    level = max(0.2, float(np.quantile(crop, 1 - rng.uniform(0.005, 0.12))))
    return np.asarray(np.minimum(crop, level) / np.float32(level), np.float32)


def _vary_objects(rng: np.random.Generator, crop: Image, labels: Labels) -> Image:
    factors = np.exp(rng.normal(0, 0.5, int(labels.max(initial=0)) + 1)).astype(np.float32)
    if factors.size > 1 and rng.random() < 0.5:
        # Mitotic nuclei are several times as bright as their neighbours.
        factors[rng.integers(1, factors.size, 2)] *= np.float32(rng.uniform(2, 5))
    factors[0] = 1.0
    return np.asarray(crop * _blur(factors[labels], 1.2), np.float32)


def _ramp(rng: np.random.Generator, shape: tuple[int, ...]) -> Image:
    small = rng.normal(0, 1, (3, 3)).astype(np.float32)
    field = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field / max(1e-6, float(np.abs(field).max())), np.float32)


def _illuminate(rng: np.random.Generator, crop: Image) -> Image:
    crop = crop * (1 + np.float32(rng.uniform(0, 0.6)) * _ramp(rng, crop.shape))
    return np.asarray(crop + np.float32(rng.uniform(0, 0.4)) * _ramp(rng, crop.shape), np.float32)


def _add_debris(rng: np.random.Generator, crop: Image) -> Image:
    size = crop.shape[0]
    layer = np.zeros_like(crop)
    for _ in range(rng.integers(1, 25)):
        centre = (int(rng.integers(size)), int(rng.integers(size)))
        cv2.circle(layer, centre, int(rng.integers(0, 2)), float(rng.uniform(0.2, 2.5)), -1)
    for _ in range(rng.integers(0, 3)):
        bends = rng.integers(0, size, (1, 2)) + np.cumsum(rng.normal(0, size / 8, (5, 2)), axis=0)
        cv2.polylines(
            layer, [bends.astype(np.int32)], False, float(rng.uniform(0.2, 1.5)), int(rng.integers(1, 3))
        )
    return np.asarray(crop + _blur(layer, rng.uniform(0.4, 0.9)), np.float32)


def _add_noise(rng: np.random.Generator, crop: Image) -> Image:
    crop = crop + np.float32(rng.normal(0, 0.015))
    if rng.random() < 0.6:
        noise = rng.standard_normal(crop.shape, dtype=np.float32)
        if rng.random() < 0.25:
            noise = _blur(noise, 0.8) * np.float32(2.2)
        sigma = np.float32(0.1 * rng.random() ** 2)
        shot = np.float32(0.2 * rng.random() ** 2 if rng.random() < 0.5 else 0.0)
        crop = crop + noise * np.sqrt(sigma**2 + shot**2 * np.maximum(crop, 0))
    if rng.random() < 0.2:
        levels = np.float32(np.exp(rng.uniform(np.log(16), np.log(255))))
        crop = np.rint(crop * levels) / levels
    return np.asarray(crop, np.float32)


def empty_crop(rng: np.random.Generator, size: int) -> Image:
    """A crop (size, size) float32 without objects: noise up to the normalisation's floor, gradients, diffuse light,
    debris.

    Gradients may reach full scale, because normalisation stretches them so in an image that holds nothing else.
    """
    crop = np.zeros((size, size), np.float32)
    if rng.random() < 0.6:
        crop += np.float32(rng.uniform(0, 1.4)) * _ramp(rng, crop.shape)
    noise = rng.standard_normal(crop.shape, dtype=np.float32)
    blur = rng.choice([0.0, 0.0, 0.7, 1.2, 2.0])
    if blur:
        noise = _blur(noise, float(blur))
        noise /= max(1e-6, float(noise.std()))
    crop += np.float32(rng.uniform(0.0, 0.12)) * noise
    if rng.random() < 0.4:
        crop = _add_debris(rng, crop)
    return crop


def crowd(
    rng: np.random.Generator, crop: Image, labels: Labels, sizes: Image, whole: NDArray[np.bool_]
) -> tuple[Image, Labels, Image]:
    """Put turned copies of a crop's own objects beside others, touching or overlapping by up to three tenths of
    either.

    Takes and returns pixels (S, S[, C]), labels (S, S) and diameters by label number. Only objects inside `whole` (S, S),
    the part of the crop that shows the image, are copied. By chance, light adds up or the brighter object covers the
    other.
    """
    held = np.bincount(labels.ravel(), minlength=2)
    held[0] = 0
    cut_off = np.unique(labels[~cv2.erode(whole.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)])
    shown = np.flatnonzero(held)
    copied = np.setdiff1d(np.flatnonzero(held >= _LEAST_COPIED), cut_off)
    if not copied.size:
        return crop, labels, sizes
    crop, labels = crop.copy(), labels.copy()
    given = list(sizes)
    adds = rng.random() < 0.5
    for _ in range(int(rng.integers(1, _MOST_COPIES + 1))):
        chosen, neighbour = rng.choice(copied), rng.choice(shown)
        patch, mask = _turned(rng, crop, labels == chosen)
        rows, columns = np.nonzero(labels == neighbour)
        if not rows.size or not mask.any():
            continue
        apart = (np.sqrt(rows.size / np.pi) + np.sqrt(mask.sum() / np.pi)) * rng.uniform(0.7, 1.15)
        angle = rng.uniform(0, 2 * np.pi)
        top = int(rows.mean() + apart * np.sin(angle)) - mask.shape[0] // 2
        left = int(columns.mean() + apart * np.cos(angle)) - mask.shape[1] // 2
        if min(top, left) < 0 or max(top + mask.shape[0], left + mask.shape[1]) > labels.shape[0]:
            continue
        there = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        covered = np.bincount(labels[there][mask], minlength=held.size)
        covered[0] = 0
        if covered.sum() > _MOST_COVERED * mask.sum() or (covered > _MOST_COVERED * held).any():
            continue
        crop[there] = crop[there] + patch if adds else np.maximum(crop[there], patch)
        mine = mask if rng.random() < 0.5 else mask & (labels[there] == 0)
        labels[there][mine] = len(given)
        given.append(sizes[chosen])
        held = np.bincount(labels.ravel(), minlength=len(given))
        held[0] = 0
    return crop, labels, np.asarray(given, np.float32)


def sprinkle(
    rng: np.random.Generator,
    crop: Image,
    labels: Labels,
    sizes: Image,
    whole: NDArray[np.bool_],
    scale: float,
) -> tuple[Image, Labels, Image]:
    """Put turned copies of a crop's own objects, a fifth to half as wide, where there is background: as micronuclei and fragments lie.

    Takes and returns what `crowd` does; `sizes` are in px of the image, which the crop shows at the factor `scale`. A copy is at
    least 4 px wide in the crop, lies within `whole` (S, S), and keeps a pixel apart from objects. Copies add their light.
    """
    held = np.bincount(labels.ravel(), minlength=2)
    held[0] = 0
    copied = np.flatnonzero(held >= _LEAST_COPIED)
    if not copied.size:
        return crop, labels, sizes
    crop, labels, given = crop.copy(), labels.copy(), list(sizes)
    for _ in range(int(rng.integers(1, _MOST_COPIES + 1))):
        chosen = rng.choice(copied)
        width = 2 * float(np.sqrt(held[chosen] / np.pi))
        factor = max(float(rng.uniform(*_SMALL)), _LEAST_SMALL_PX / width)
        if factor > _SMALL[1]:
            continue
        light, mask = _turned(rng, crop, labels == chosen)
        side = tuple(max(3, round(each * factor)) for each in mask.shape[::-1])
        light = np.asarray(
            cv2.resize(np.ascontiguousarray(light), side, interpolation=cv2.INTER_AREA), np.float32
        )
        mask = cv2.resize(np.ascontiguousarray(mask, np.uint8), side, interpolation=cv2.INTER_AREA) > 0
        top, left = (int(rng.integers(max(1, labels.shape[at] - mask.shape[at]))) for at in (0, 1))
        there = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        apart = np.s_[max(0, top - 1) : top + mask.shape[0] + 1, max(0, left - 1) : left + mask.shape[1] + 1]
        if (
            labels[there].shape != mask.shape
            or labels[apart].any()
            or not whole[apart].all()
            or not mask.any()
        ):
            continue
        crop[there] = crop[there] + light.reshape(crop[there].shape)
        labels[there][mask] = len(given)
        given.append(np.float32(2 * np.sqrt(mask.sum() / np.pi) / scale))
    return crop, labels, np.asarray(given, np.float32)


def _turned(
    rng: np.random.Generator, crop: Image, mask: NDArray[np.bool_]
) -> tuple[Image, NDArray[np.bool_]]:
    """One object's light, fading out at its edge, and its mask, both turned and mirrored by chance."""
    rows, columns = np.nonzero(mask)
    box = np.s_[max(0, rows.min() - 3) : rows.max() + 4, max(0, columns.min() - 3) : columns.max() + 4]
    wider = np.asarray(cv2.dilate(mask[box].astype(np.float32), np.ones((3, 3), np.uint8)), np.float32)
    soft = _blur(wider, 1.0)
    if crop.ndim == 3:
        soft = soft[..., None]
    light = np.maximum(crop[box], 0) * soft * np.float32(np.exp(rng.normal(0, 0.25)))
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    patch, shape = np.rot90(light, turns), np.rot90(mask[box], turns)
    return (patch[:, ::-1], shape[:, ::-1]) if mirrored else (patch, shape)


def draw_crop(
    rng: np.random.Generator,
    image: Image,
    labels: Labels,
    sizes: Image,
    scale: float,
    size: int,
    *,
    crowded: float = 0.0,
    small: float = 0.0,
) -> Crop:
    """Draw one augmented crop of an image (H, W, C), linear, and its labels (H, W) with their diameters, at the factor `scale`.

    Labels are -1 where nothing is taught. `crowded` is the chance that objects are copied beside others, and `small` the chance that
    small copies of some are put where there is room.
    """
    blank = rng.random() < 0.5
    border = cv2.BORDER_CONSTANT if blank else cv2.BORDER_REFLECT_101
    pixels, turned, valid = cut(image, labels, place(rng, labels, scale, size), size, border)
    taught = (turned >= 0).astype(np.float32)
    turned = np.maximum(turned, 0)
    if crowded and rng.random() < crowded:
        pixels, turned, sizes = crowd(rng, pixels, turned, sizes, valid > 0)
    if small and rng.random() < small:
        pixels, turned, sizes = sprinkle(rng, pixels, turned, sizes, (valid > 0) & (taught > 0), scale)
    found = compress(by_channel(pixels, lambda channel: vary_intensity(rng, channel, turned)))
    return Crop(found, turned, sizes * np.float32(scale), valid, taught, blank)


def draw_empty(rng: np.random.Generator, size: int, channels: int = 1) -> Crop:
    """Draw one crop without objects, of so many channels."""
    ones = np.ones((size, size), np.float32)
    labels, sizes = np.zeros((size, size), np.int32), np.zeros(1, np.float32)
    pixels = np.stack([empty_crop(rng, size) for _ in range(channels)], axis=-1)
    return Crop(compress(pixels), labels, sizes, ones, ones, blank=True)
