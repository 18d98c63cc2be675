"""Robustness: the labelled images degraded as microscopes and cameras degrade them, compared with the same images as
they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.suites.base import (
    Asked,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    cell,
    labelled,
    met,
    with_plane,
)
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.image import ImageEntry, Pictured
from cellcount_core.tasks.matching import ImageScore, Report

LARGEST_FALL = 0.03
"""How much F1@0.5 may fall for the degradations that have a bar."""

NEAR = 1.25
"""An estimated size counts as near if it is within this factor of the true median diameter."""

FAR_OFF = 10
"""A count is far off if it is wrong by more than this many objects, and by more than half of the true count."""

Degrade = Callable[[Plane, np.random.Generator], Plane]
"""Degrades a plane (H, W). The same generator state gives the same pixels."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """One way to degrade an image, and how much F1@0.5 may fall because of it (None: no bar)."""

    name: str
    degrade: Degrade
    largest_fall: float | None = LARGEST_FALL


def low_contrast(plane: Plane, rng: np.random.Generator) -> Plane:
    """16 bits, with the whole image within 3 % of the range, on an offset of 20,000."""
    return np.rint(20_000 + _unit(plane) * 0.03 * 65_535).astype(np.uint16)


def inverted(plane: Plane, rng: np.random.Generator) -> Plane:
    """Dark objects on a bright background: the largest value of the type (for floats: of the image) minus the value."""
    if plane.dtype.kind == "f":
        return np.asarray(plane.max() - plane, plane.dtype)
    return (_full_scale(plane) - plane.astype(np.int64)).astype(plane.dtype)


def offset(plane: Plane, rng: np.random.Generator) -> Plane:
    """A background raised by twice the range of the image; 16 bits if it fits, otherwise floats."""
    pixels = plane.astype(np.float64)
    raised = pixels + 2 * np.ptp(pixels)
    fits = not _is_float(plane) and raised.max() <= 65_535
    return np.rint(raised).astype(np.uint16) if fits else raised.astype(np.float32)


def saturated(plane: Plane, rng: np.random.Generator) -> Plane:
    """Exposed so long that the brightest 5 % of the pixels reach full scale; the background keeps its level."""
    return _exposed(plane, _quantile(plane, 0.95))


def saturated_objects(plane: Plane, rng: np.random.Generator) -> Plane:
    """As `saturated`, but at most half of the pixels above Otsu's threshold reach full scale.

    If objects cover less than 5 % of an image, `saturated` also saturates the background around them.
    """
    unit = np.rint(_unit(plane) * 255).astype(np.uint8)
    level, _ = cv2.threshold(unit, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    objects = plane[unit > level]
    half = _quantile(objects, 0.5) if objects.size else 0.0
    return _exposed(plane, max(half, _quantile(plane, 0.95)))


def poisson(photons: float) -> Degrade:
    """Shot noise: the 99.8th percentile lies `photons` photons above a background of a tenth of that; 16 bits."""

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
    """Light, background included, that falls to 30 % from one corner to the opposite one; 8 bits become 16."""
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


def robustness(asked: Asked) -> SuiteResult:
    """Count every image as it is and in each degradation, and compare the counts with the labels."""
    clean = _measured(asked, 0, lambda plane, rng: plane)
    rows = [_row("as they are", clean, clean.report.f1(), None)]
    for number, degradation in enumerate(DEGRADATIONS, 1):
        measured = _measured(asked, number, degradation.degrade)
        rows.append(_row(degradation.name, measured, clean.report.f1(), degradation.largest_fall))
    columns = (
        SuiteColumn("images", "images"), SuiteColumn("f1_50", "F1@0.5"), SuiteColumn("falls_by", "falls by"), SuiteColumn("bar", "bar", "bars"),
        SuiteColumn("count_mape", "count MAPE"), SuiteColumn("count_bias", "count bias"), SuiteColumn("size_near", f"size within {NEAR}x"),
        SuiteColumn("far_off", "off by half"), SuiteColumn("far_off_warned", "of them warned of"),
        SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    return SuiteResult(
        asked.caption(f"{len(asked.entries)} images"), (SuiteTable("degradations", columns, tuple(rows)),)
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """The scores of the images under one degradation.

    `near` is the share of images with objects whose size was estimated within 1.25x (None: sizes are not estimated).
    `warned` says, for each image whose count is far off, whether the count came with a warning.
    """

    report: Report
    near: float | None
    warned: tuple[bool, ...]


def _measured(asked: Asked, number: int, degrade: Degrade) -> _Measured:
    def work(numbered: tuple[int, ImageEntry[Pictured]]) -> tuple[ImageScore, bool | None, bool]:
        at, entry = numbered
        image = labelled(entry)
        seen = asked.counter.count(with_plane(image, degrade(image.plane, np.random.default_rng(at))))
        size = seen.scale.diameter_px
        near = size is not None and image.diameter_px > 0 and 1 / NEAR <= size / image.diameter_px <= NEAR
        score = asked.counter.score(image, seen)
        return score, near if image.diameter_px > 0 else None, bool(seen.warnings)

    images = len(asked.entries)
    done = asked.in_turn(work, enumerate(asked.entries), images * (1 + len(DEGRADATIONS)), number * images)
    counted = list(done)
    told = [near for _, near, _ in counted if near is not None] if asked.counter.diameter == "auto" else []
    warned = tuple(is_warned for score, _, is_warned in counted if is_far_off(score))
    return _Measured(Report(tuple(score for score, _, _ in counted)), fmean(told) if told else None, warned)


def is_far_off(score: ImageScore) -> bool:
    """Whether the count is wrong by more than half of the true count, and by more than ten objects."""
    return abs(score.counted - score.true) > max(score.true / 2, FAR_OFF)


def _row(
    name: str, measured: _Measured, clean_f1: float, largest_fall: float | None
) -> tuple[SuiteCell, ...]:
    report = measured.report
    fall = clean_f1 - report.f1()
    return (
        cell(name),
        cell(report.f1(), ".3f"),
        cell(fall, "+.3f"),
        cell(None) if largest_fall is None else SuiteCell(largest_fall, f"≤ {largest_fall}"),
        cell(report.count_mape(), ".1%"),
        cell(report.count_bias(), "+.1%"),
        cell(measured.near, ".0%"),
        cell(len(measured.warned)),
        cell(sum(measured.warned) if measured.warned else None),
        cell(None) if largest_fall is None else met(fall <= largest_fall),
    )


def _exposed(plane: Plane, top: float) -> Plane:
    """Keep the median and bring `top` to full scale: 255 for 8 bits, otherwise 65,535. Floats become 16 bits of their
    range."""
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
