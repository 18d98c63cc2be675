"""Whole images to train on: read and scaled once, kept in memory or on disk, and augmented each time one is drawn.

An image is brought to the side that the network takes, or, if the network looks at tiles, to the scale at which a tile has that side. What
augmentation does is drawn after the images were split, from a generator that is seeded by run and step, so nothing of it can lie on both
sides of a split.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cellcount_core.domain.settings import Section
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.normalise import compress, without_debris
from cellcount_core.images.pixels import resize_to
from cellcount_core.labelled.whole import WholeImage
from cellcount_core.models.package import InputSpec
from cellcount_core.pipeline.maps import levels
from cellcount_core.training.augment import by_channel

Canvas = NDArray[np.float32]
"""An image (h, w, C) at the network's scale, linear: 0 at the background, 1 at full scale, not yet compressed."""

_MOST_CHANNELS_OF_OPENCV = 4


class WholeAugment(Section):
    """How whole images are varied while a network trains.

    `turns` are "any" angle, "quarter" turns or "none"; `mirror` reflects half of the images. They are enlarged or reduced by exp(N(0,
    `zoom_sigma`)) and moved by up to `shift` of their side; what comes in at the edges is mirrored. Then intensities: all channels together
    become exp(N(0, `gain_sigma`)) times as bright, each by itself exp(N(0, `colour_sigma`)) times and N(0, `offset_sigma`) brighter; with chance
    `blur` an image is blurred by up to 1.5 px, and noise of up to `noise` of full scale is added. With chance `erase` a square of up to half
    the side becomes background, so that the network does not rest on one place alone.
    """

    turns: Literal["any", "quarter", "none"] = "any"
    mirror: bool = True
    zoom_sigma: float = Field(0.1, ge=0)
    shift: float = Field(0.1, ge=0, le=0.5)
    gain_sigma: float = Field(0.15, ge=0)
    colour_sigma: float = Field(0.08, ge=0)
    offset_sigma: float = Field(0.02, ge=0)
    blur: float = Field(0.2, ge=0, le=1)
    noise: float = Field(0.05, ge=0)
    erase: float = Field(0.0, ge=0, le=1)


class CacheConfig(Section):
    """Where decoded images are kept: in "memory" up to `most_mb` (what does not fit is decoded again), on "disk" in `folder` ("": the run's work
    folder), or nowhere ("off")."""

    kind: Literal["memory", "disk", "off"] = "memory"
    most_mb: int = Field(4000, ge=0)
    folder: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """An image at the network's scale: its `canvas` (h, w, C) float16, and by how much it was wider than high before (1 for tiles)."""

    canvas: NDArray[np.float16]
    aspect: float


class Canvases:
    """The images of a run at the network's scale. Each is decoded once, as far as the cache holds.

    `side` is the network's side in px. `tile_px` is the side of a tile in px of the images; None if the network sees an image as one. May be
    used from several threads.
    """

    def __init__(
        self, spec: InputSpec, side: int, tile_px: int | None, cache: CacheConfig, work_dir: Path
    ) -> None:
        self._spec, self._side, self._tile_px = spec, side, tile_px
        self._cache = cache
        self._folder = Path(cache.folder).expanduser() if cache.folder else work_dir / "images"
        self._kept: dict[int, Scaled] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, image: WholeImage) -> tuple[Canvas, float]:
        """An image's canvas, (side, side, C), or (h, w, C) of at least that size if the network looks at tiles; and its `Scaled.aspect`.

        Raises ConfigFault naming the file if it cannot be decoded.
        """
        # The run holds on to its images, so none gets the number of another.
        kept = self._kept.get(id(image))
        if kept is None:
            kept = self._from_disk(image) if self._cache.kind == "disk" else self._made(image)
            with self._lock:
                if (
                    self._cache.kind == "memory"
                    and self._bytes + kept.canvas.nbytes <= self._cache.most_mb << 20
                ):
                    self._kept[id(image)] = kept
                    self._bytes += kept.canvas.nbytes
        return kept.canvas.astype(np.float32), kept.aspect

    def _made(self, image: WholeImage) -> Scaled:
        planes = list(image.planes.values())
        height, width = planes[0].shape
        canvas = linear_canvas(planes, self._spec, self._side, self._tile_px)
        return Scaled(canvas.astype(np.float16), width / height if self._tile_px is None else 1.0)

    def _from_disk(self, image: WholeImage) -> Scaled:
        said = repr(
            (image.content, image.roles, sorted(asdict(self._spec).items()), self._side, self._tile_px)
        )
        path = self._folder / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return Scaled(np.asarray(stored["canvas"]), float(stored["aspect"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            made = self._made(image)
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
            with temporary.open("wb") as stream:
                np.savez(stream, allow_pickle=False, canvas=made.canvas, aspect=np.float64(made.aspect))
            temporary.replace(path)
            return made


def linear_canvas(planes: Sequence[Plane], spec: InputSpec, side: int, tile_px: int | None = None) -> Canvas:
    """Raw planes (H, W) as a canvas. `compress` makes of it what a field that is counted is prepared to."""
    height, width = planes[0].shape
    shape = (side, side)
    if tile_px is not None:
        shape = (max(side, round(height * side / tile_px)), max(side, round(width * side / tile_px)))
    shown = []
    for plane, norm in zip(planes, levels(planes, spec), strict=True):
        resized = resize_to(without_debris(plane, norm), shape).astype(np.float64)
        shown.append((resized - norm.background) / norm.range)
    return np.stack(shown, axis=-1).astype(np.float32)


def plain_view(canvas: Canvas, side: int, top: int = 0, left: int = 0) -> Canvas:
    """The network's input (side, side, C): the part of a canvas from a corner on, unchanged but compressed."""
    return compress(np.ascontiguousarray(canvas[top : top + side, left : left + side]))


def augmented_view(
    rng: np.random.Generator, canvas: Canvas, side: int, aspect: float, augment: WholeAugment
) -> Canvas:
    """The network's input (side, side, C): a canvas, or a tile from anywhere in it, as augmentation makes it.

    `aspect` is by how much the image was wider than high before its canvas became a square (1 for tiles): an image is turned as it was, and
    only then squeezed.
    """
    moved = _move(rng, canvas, side, aspect, augment)
    return compress(_vary(rng, moved, augment))


def _move(
    rng: np.random.Generator, canvas: Canvas, side: int, aspect: float, augment: WholeAugment
) -> Canvas:
    height, width = canvas.shape[:2]
    centre = np.array([_middle(rng, width, side), _middle(rng, height, side)])
    centre += rng.uniform(-augment.shift, augment.shift, 2) * side
    degrees = {"any": rng.uniform(0, 360), "quarter": 90.0 * rng.integers(4), "none": 0.0}[augment.turns]
    mirror = -1.0 if augment.mirror and rng.random() < 0.5 else 1.0
    zoom = float(np.exp(rng.normal(0, augment.zoom_sigma)))
    cosine, sine = np.cos(np.deg2rad(degrees)) / zoom, np.sin(np.deg2rad(degrees)) / zoom
    turn = np.array([[cosine * mirror, -sine], [sine * mirror, cosine]])
    squeeze = np.diag([np.sqrt(aspect), 1 / np.sqrt(aspect)])
    turn = np.linalg.inv(squeeze) @ turn @ squeeze
    middle = (side - 1) / 2
    matrix = np.hstack([turn, (centre - turn @ np.array([middle, middle]))[:, None]])

    def warped(pixels: Canvas) -> Canvas:
        return np.asarray(
            cv2.warpAffine(
                pixels, matrix, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101
            ),
            np.float32,
        )  # fmt: skip

    if canvas.shape[-1] > _MOST_CHANNELS_OF_OPENCV:
        return by_channel(canvas, warped)
    return warped(canvas).reshape(side, side, -1)


def _middle(rng: np.random.Generator, length: int, side: int) -> float:
    """Where along an axis of a canvas the middle of a tile lies."""
    return (side - 1) / 2 + (float(rng.uniform(0, length - side)) if length > side else 0.0)


def _vary(rng: np.random.Generator, pixels: Canvas, augment: WholeAugment) -> Canvas:
    side, channels = pixels.shape[0], pixels.shape[-1]
    together, apart = rng.normal(0, augment.gain_sigma, 1), rng.normal(0, augment.colour_sigma, channels)
    gains = np.asarray(np.exp(together + apart), np.float32)
    offsets = np.asarray(rng.normal(0, augment.offset_sigma, channels), np.float32)
    pixels = pixels * gains + offsets
    if rng.random() < augment.blur:
        sigma = float(rng.uniform(0.3, 1.5))
        pixels = by_channel(pixels, lambda one: np.asarray(cv2.GaussianBlur(one, (0, 0), sigma), np.float32))
    if augment.noise:
        level = np.float32(augment.noise * rng.random() ** 2)
        pixels = pixels + level * rng.standard_normal(pixels.shape, dtype=np.float32)
    if rng.random() < augment.erase:
        length = int(rng.integers(side // 8, side // 2 + 1))
        top, left = (int(corner) for corner in rng.integers(0, side - length + 1, 2))
        pixels[top : top + length, left : left + length] = 0
    return pixels
