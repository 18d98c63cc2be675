"""From a scene to what the camera records: texture, dirt, blur, haze, uneven light, offset and noise, in two
channels.

Levels are in electrons until the camera turns them into counts. The light falls off towards one corner and is the
same in every field of a plate, as in an instrument. The dirt differs from field to field and lies in both channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.demo.scene import Scene

_SPECKS = 3.0
_FIBRE = 0.15
_GRAIN_MARGIN = 256


class Stain(Enum):
    """The two channels: w1 shows nuclei, w2 the cytoplasm of the same cells."""

    NUCLEI = 1
    CYTOPLASM = 2


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera: `offset` in counts, `gain` in counts per electron, `read_noise` in electrons (standard deviation)."""

    offset: float = 300.0
    gain: float = 2.2
    read_noise: float = 2.5


@dataclass(frozen=True, slots=True)
class _Exposure:
    """One channel's electrons in a bright object and in the background, and its blur (sigma, px)."""

    peak: float
    background: float
    blur: float


_EXPOSURES = {
    Stain.NUCLEI: _Exposure(peak=620.0, background=130.0, blur=1.15),
    Stain.CYTOPLASM: _Exposure(peak=360.0, background=95.0, blur=1.5),
}


@dataclass(frozen=True, slots=True)
class Instrument:
    """What all fields of a plate share.

    `light` is the relative illumination (H, W) float32 of each channel, 1 at its brightest. `grain` are two float32
    textures (fine, coarse) with mean 0 and standard deviation 1, larger than a field: each field takes another cut of
    them.
    """

    camera: Camera
    light: dict[Stain, NDArray[np.float32]]
    grain: tuple[NDArray[np.float32], NDArray[np.float32]]


def build_instrument(rng: np.random.Generator, shape: tuple[int, int]) -> Instrument:
    """Draw illumination and textures for fields of `shape` (H, W) px."""
    light = {stain: _fall_off(rng, shape) for stain in Stain}
    size = (shape[0] + _GRAIN_MARGIN, shape[1] + _GRAIN_MARGIN)
    return Instrument(Camera(), light, (_grain(rng, size, 1.5), _grain(rng, size, 5.0)))


def expose(rng: np.random.Generator, instrument: Instrument, scene: Scene) -> dict[Stain, NDArray[np.uint16]]:
    """Take the images (H, W) uint16 of a scene, by channel."""
    fine, coarse = (_cut(rng, grain, scene.stain.shape) for grain in instrument.grain)
    dirt = _dirt(rng, scene.stain.shape)
    shares = {
        Stain.NUCLEI: scene.stain * (1 + 0.13 * fine + 0.07 * coarse),
        Stain.CYTOPLASM: _cytoplasm(rng, scene) * (1 + 0.16 * fine + 0.22 * coarse),
    }
    strength = {Stain.NUCLEI: 1.0, Stain.CYTOPLASM: 0.6}
    return {
        stain: _photograph(rng, instrument, stain, share + strength[stain] * dirt)
        for stain, share in shares.items()
    }


def _fall_off(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    height, width = shape
    y0, x0 = rng.uniform(0.35, 0.6, 2)
    yy = (np.arange(height, dtype=np.float32)[:, None] / height - y0) ** 2
    xx = (np.arange(width, dtype=np.float32)[None, :] / width - x0) ** 2
    light = 1.0 - rng.uniform(0.5, 0.65) * (yy + xx)
    return np.asarray(light / light.max(), np.float32)


def _grain(rng: np.random.Generator, size: tuple[int, int], sigma: float) -> NDArray[np.float32]:
    grain = cv2.GaussianBlur(rng.standard_normal(size, dtype=np.float32), (0, 0), sigma)
    return np.asarray((grain - grain.mean()) / grain.std(), np.float32)


def _cut(rng: np.random.Generator, grain: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    top, left = rng.integers(0, _GRAIN_MARGIN, 2)
    return grain[top : top + shape[0], left : left + shape[1]]


def _cytoplasm(rng: np.random.Generator, scene: Scene) -> NDArray[np.float32]:
    """A marker around each nucleus that fades outwards and ends where the neighbour's begins."""
    if not scene.nuclei:
        return np.zeros(scene.stain.shape, np.float32)
    outside = (scene.owners == 0).astype(np.uint8)
    distance, nearest = cv2.distanceTransformWithLabels(
        outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner_of = np.zeros(int(nearest.max()) + 1, np.int32)
    owner_of[nearest[outside == 0]] = scene.owners[outside == 0]
    owner = owner_of[nearest]
    level = rng.lognormal(0.0, 0.35, scene.count + 1).astype(np.float32)
    reach = rng.uniform(7.0, 13.0, scene.count + 1).astype(np.float32)
    marker = level[owner] * np.exp(-((distance / reach[owner]) ** 2))
    marker[outside == 0] *= np.float32(0.45)
    return np.asarray(marker, np.float32)


def _dirt(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Bright specks far smaller than a nucleus and, now and then, a thin fibre. None of it is to be counted."""
    dirt = np.zeros(shape, np.float32)
    height, width = shape
    for _ in range(int(rng.poisson(_SPECKS))):
        place = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(dirt, place, int(rng.integers(0, 2)), float(rng.uniform(0.5, 2.2)), -1)
    if rng.random() < _FIBRE:
        cv2.polylines(dirt, [_fibre(rng, shape)], False, float(rng.uniform(0.5, 1.0)), 1, cv2.LINE_8, 3)
    return dirt


def _fibre(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Corners (n, 2) of a curled line in eighths of a pixel, as x and y."""
    steps = int(rng.integers(25, 60))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(np.cumsum(rng.normal(0.0, 0.02, steps)))
    start = rng.uniform(0.1, 0.9, 2) * (shape[1], shape[0])
    points = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * 4.0, axis=0)
    return np.round(points * 8).astype(np.int32)


def _photograph(
    rng: np.random.Generator, instrument: Instrument, stain: Stain, share: NDArray[np.float32]
) -> NDArray[np.uint16]:
    exposure = _EXPOSURES[stain]
    levels = (exposure.peak, exposure.background)
    return photograph(rng, instrument.camera, instrument.light[stain], share, levels, exposure.blur)


def photograph(
    rng: np.random.Generator,
    camera: Camera,
    light: NDArray[np.float32],
    share: NDArray[np.float32],
    levels: tuple[float, float],
    blur: float,
) -> NDArray[np.uint16]:
    """What the camera records (H, W) of an amount of stain, 1 in a usual object.

    `levels` are the electrons of a usual object and of the background under full light, `light` is the relative illumination and `blur`
    the sigma (px) of the optics.
    """
    peak, background = levels
    sharp = np.asarray(cv2.GaussianBlur(share, (0, 0), blur), np.float32)
    lit = light * (background + peak * (0.94 * sharp + 0.10 * _haze(sharp)))
    electrons = np.maximum(lit, 1.0)
    # Poisson noise at 50 electrons and more is Gaussian with variance = mean; the read noise adds its own variance.
    sigma = np.sqrt(electrons + np.float32(camera.read_noise**2))
    seen = electrons + sigma * rng.standard_normal(share.shape, dtype=np.float32)
    counts = np.clip(np.rint(camera.offset + camera.gain * seen), 0, 65535)
    return np.asarray(counts, np.uint16)


def _haze(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Light from out of focus: a wide blur, computed at a quarter of the size."""
    height, width = share.shape
    small = cv2.resize(share, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(small, (0, 0), 4.0)
    return np.asarray(cv2.resize(wide, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
