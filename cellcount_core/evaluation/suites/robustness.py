"""Robustness: the labelled images degraded in ways that microscopes and cameras do it, against the same images as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.evaluate import ImageScore, Report, labels_of, score_image
from cellcount_core.evaluation.suites.base import Asked, Cell, Column, Found, Table, cell, met, with_plane
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import Entry

LARGEST_FALL = 0.03
"""What F1@0.5 may fall by in images of the kinds that the bar names."""

NEAR = 1.25
"""Times the true median diameter, or as much of it, that a told size is still near to it."""

FAR_OFF = 10
"""Objects by which a count must be off, and by more than half of the truth besides, to be far off."""

Degrade = Callable[[Plane, np.random.Generator], Plane]
"""Spoils a plane (H, W); the same generator state gives the same pixels."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way to spoil an image, and what F1@0.5 may fall by for it (None: nothing is asked)."""

    name: str
    degrade: Degrade
    largest_fall: float | None = LARGEST_FALL


def low_contrast(plane: Plane, rng: np.random.Generator) -> Plane:
    """16 bits, all of the image within 3 % of the range, on an offset of 20,000."""
    return np.rint(20_000 + _unit(plane) * 0.03 * 65_535).astype(np.uint16)


def inverted(plane: Plane, rng: np.random.Generator) -> Plane:
    """Dark objects on a bright background: the largest value of the type (of floats: of the image) less the value."""
    if plane.dtype.kind == "f":
        return np.asarray(plane.max() - plane, plane.dtype)
    return (_full_scale(plane) - plane.astype(np.int64)).astype(plane.dtype)


def offset(plane: Plane, rng: np.random.Generator) -> Plane:
    """A background raised by twice the range of the image; 16 bits where it fits, else floats."""
    pixels = plane.astype(np.float64)
    raised = pixels + 2 * np.ptp(pixels)
    fits = not _is_float(plane) and raised.max() <= 65_535
    return np.rint(raised).astype(np.uint16) if fits else raised.astype(np.float32)


def saturated(plane: Plane, rng: np.random.Generator) -> Plane:
    """Exposed so long that the brightest 5 % of the pixels are at full scale; the background keeps its level."""
    return _exposed(plane, _quantile(plane, 0.95))


def saturated_objects(plane: Plane, rng: np.random.Generator) -> Plane:
    """As `saturated`, with no more than half of the pixels above Otsu's threshold at full scale.

    In an image whose objects cover less than 5 % of it the other one saturates background around them.
    """
    unit = np.rint(_unit(plane) * 255).astype(np.uint8)
    level, _ = cv2.threshold(unit, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    objects = plane[unit > level]
    half = _quantile(objects, 0.5) if objects.size else 0.0
    return _exposed(plane, max(half, _quantile(plane, 0.95)))


def poisson(photons: float) -> Degrade:
    """Shot noise: the 99.8th percentile is at `photons` photons above a background of a tenth of that; 16 bits."""

    def degrade(plane: Plane, rng: np.random.Generator) -> Plane:
        pixels = plane.astype(np.float64)
        low, top = _quantile(plane, 0.05), _quantile(plane, 0.998)
        expected = photons * (
            0.1 + np.maximum(pixels - low, 0) / max(top - low, 1e-6 if _is_float(plane) else 1.0)
        )
        counts = np.rint(rng.poisson(expected) * (20_000 / photons))
        return np.asarray(np.minimum(counts, 65_535), np.uint16)

    return degrade


def blurred(plane: Plane, rng: np.random.Generator) -> Plane:
    """Out of focus: Gaussian blur of sigma 1.5 px."""
    return np.asarray(cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1.5))


def uneven(plane: Plane, rng: np.random.Generator) -> Plane:
    """Light, background included, that falls off to 30 % from one corner to the other; 8 bits become 16."""
    height, width = plane.shape
    across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)
    if rng.random() < 0.5:
        across = across[::-1]
    light = 1 - 0.7 * (across[None] + down[:, None]) / 2
    pixels = plane.astype(np.float64) * light
    if _is_float(plane):
        return np.asarray(pixels, np.float32)
    return np.asarray(np.rint(pixels * (256 if plane.dtype == np.uint8 else 1)), np.uint16)


DEGRADATIONS = (
    Degradation("16 bits, signal in 3 % of the range, on an offset", low_contrast),
    Degradation("inverted", inverted),
    Degradation("background offset, twice the range of the image", offset),
    Degradation("5 % of the pixels saturated", saturated),
    Degradation("… but no more than half of the objects' pixels", saturated_objects, None),
    Degradation("Poisson noise, 100 photons at the 99.8th percentile", poisson(100)),
    Degradation("Poisson noise, 30 photons at the 99.8th percentile", poisson(30)),
    Degradation("Gaussian blur, sigma 1.5 px", blurred, None),
    Degradation("uneven light, down to 30 %", uneven, None),
)


def robustness(asked: Asked) -> Found:
    """Count every image as it is and in each degradation, and compare each with the labels."""
    clean = _measured(asked, 0, lambda plane, rng: plane)
    rows = [_row("as they are", clean, clean.report.f1(), None)]
    for number, degradation in enumerate(DEGRADATIONS, 1):
        measured = _measured(asked, number, degradation.degrade)
        rows.append(_row(degradation.name, measured, clean.report.f1(), degradation.largest_fall))
    columns = (
        Column("images", "images"), Column("f1_50", "F1@0.5"), Column("falls_by", "falls by"), Column("bar", "bar", "bars"),
        Column("count_mape", "count MAPE"), Column("count_bias", "count bias"), Column("size_near", f"size within {NEAR}x"),
        Column("far_off", "off by half"), Column("far_off_warned", "of them warned of"),
        Column("met", "met", "bars"),
    )  # fmt: skip
    return Found(
        asked.caption(f"{len(asked.entries)} images"), (Table("degradations", columns, tuple(rows)),)
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """Scores of the images; the share of those with objects whose size was told within 1.25x (None: no size is told); and of the images
    whose count is far off, whether the count came with a warning."""

    report: Report
    near: float | None
    warned: tuple[bool, ...]


def _measured(asked: Asked, number: int, degrade: Degrade) -> _Measured:
    def work(numbered: tuple[int, Entry]) -> tuple[ImageScore, bool | None, bool]:
        at, entry = numbered
        image = entry.load()
        seen = asked.counter.count(with_plane(image, degrade(image.plane, np.random.default_rng(at))))
        size = seen.scale.diameter_px
        near = size is not None and image.diameter_px > 0 and 1 / NEAR <= size / image.diameter_px <= NEAR
        score = score_image(image, labels_of(seen))
        return score, near if image.diameter_px > 0 else None, bool(seen.warnings)

    images = len(asked.entries)
    done = asked.in_turn(work, enumerate(asked.entries), images * (1 + len(DEGRADATIONS)), number * images)
    counted = list(done)
    told = [near for _, near, _ in counted if near is not None] if asked.counter.diameter == "auto" else []
    warned = tuple(is_warned for score, _, is_warned in counted if is_far_off(score))
    return _Measured(Report(tuple(score for score, _, _ in counted)), fmean(told) if told else None, warned)


def is_far_off(score: ImageScore) -> bool:
    """Whether the count is off by more than half of the true one, and by more than ten objects."""
    return abs(score.counted - score.true) > max(score.true / 2, FAR_OFF)


def _row(name: str, measured: _Measured, clean_f1: float, largest_fall: float | None) -> tuple[Cell, ...]:
    report = measured.report
    fall = clean_f1 - report.f1()
    return (
        cell(name),
        cell(report.f1(), ".3f"),
        cell(fall, "+.3f"),
        cell(None) if largest_fall is None else Cell(largest_fall, f"≤ {largest_fall}"),
        cell(report.count_mape(), ".1%"),
        cell(report.count_bias(), "+.1%"),
        cell(measured.near, ".0%"),
        cell(len(measured.warned)),
        cell(sum(measured.warned) if measured.warned else None),
        cell(None) if largest_fall is None else met(fall <= largest_fall),
    )


def _exposed(plane: Plane, top: float) -> Plane:
    """The median where it was and `top` at full scale: 255 for 8 bits, else 65,535; floats become 16 bits of their range."""
    if _is_float(plane):
        low, span = float(plane.min()), max(float(np.ptp(plane)), 1e-6)
        top = (top - low) / span * 65_535
        plane = np.rint((plane.astype(np.float64) - low) / span * 65_535).astype(np.uint16)
    full = _full_scale(plane)
    pixels = plane.astype(np.float64)
    middle = float(np.median(pixels))
    gain = (full - middle) / max(top - middle, 1.0)
    return np.rint(np.clip(middle + (pixels - middle) * gain, 0, full)).astype(plane.dtype)


def _full_scale(plane: NDArray[np.generic]) -> int:
    return 255 if plane.dtype == np.uint8 else 65_535


def _is_float(plane: NDArray[np.generic]) -> bool:
    return plane.dtype.kind == "f"


def _quantile(plane: NDArray[np.generic], share: float) -> float:
    return float(np.quantile(plane.astype(np.float64), share))


def _unit(plane: NDArray[np.generic]) -> NDArray[np.float64]:
    pixels = plane.astype(np.float64)
    return np.asarray((pixels - pixels.min()) / max(float(np.ptp(pixels)), 1e-6 if _is_float(plane) else 1.0))
