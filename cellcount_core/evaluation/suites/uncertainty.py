"""Uncertainty: how honest a package is about its counts.

Do the intervals hold the true counts, and are fields that the package is not made for reported as unlike those that
trained it?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.doubts import Doubt
from cellcount_core.domain.errors import ConfigFault
from cellcount_core.evaluation.suites.base import (
    Asked,
    Counter,
    SuiteCell,
    SuiteColumn,
    SuiteResult,
    SuiteTable,
    cell,
    labelled,
    met,
    with_plane,
)
from cellcount_core.labelled.dataset import list_labelled
from cellcount_core.labelled.image import (
    IMAGE_SUFFIXES,
    ImageEntry,
    LabelledEntry,
    LabelledImage,
    Pictured,
    plane_of,
    read_pixels,
)
from cellcount_core.labelled.label_files import Labels
from cellcount_core.pipeline.pixels import Pixels
from cellcount_core.tasks.instances.columns import interval_in

COVERAGE = (0.85, 0.95)
"""The share of images whose interval of nominal 90 % holds the true count must lie between these two."""

MOST_UNLIKE = 24
"""The most files taken of one pattern."""

_DENSITIES = (("all", 0, 1 << 30), ("up to 20", 0, 20), ("21 to 50", 21, 50), ("more", 51, 1 << 30))


@dataclass(frozen=True, slots=True)
class Told:
    """What a count says of itself (None if the package does not say), beside `true`, the true count."""

    true: int
    count: int
    low: float | None
    high: float | None
    unlike: float | None
    flagged: bool


def uncertainty(asked: Asked) -> SuiteResult:
    """Count the labelled images, and sets of images that the package is not made for."""
    familiar = list(asked.entries)
    others = strangers(asked)
    total = 2 * len(familiar) + sum(map(len, others.values()))
    work = partial(_told, asked.counter)
    told = list(asked.in_turn(lambda entry: work(labelled(entry)), familiar, total))
    blurred = list(
        asked.in_turn(lambda entry: work(defocused(labelled(entry))), familiar, total, len(familiar))
    )
    name = _name_of(asked)
    sets: dict[str, Sequence[Told]] = {}
    done = 2 * len(familiar)
    for title, entries in others.items():
        sets[title] = list(asked.in_turn(lambda entry: work(labelled(entry)), entries, total, done))
        done += len(entries)
    sets[f"{name}, out of focus (blurred by half an object)"] = blurred
    covered, notes = _coverage(told)
    flags, more = _flags(name, told, sets)
    return SuiteResult(asked.caption(f"{len(familiar)} images"), (*covered, *flags), (*notes, *more))


def strangers(asked: Asked) -> dict[str, list[ImageEntry[Pictured]]]:
    """Images that the package is not made for: those of other modalities in the data, and the files of the given
    patterns.

    Modalities that the package names, or that it was asked to count, are left out. Raises ConfigFault if no image
    file matches a pattern.
    """
    data, limit = asked.data, asked.limit
    assert data is not None
    known = {*asked.counter.package.modality, *data.modality, *(entry.modality for entry in data.entries)}
    found: dict[str, list[ImageEntry[Pictured]]] = {}
    for entry in list_labelled(Path(data.path)).entries:
        if entry.modality and entry.modality not in known:
            found.setdefault(entry.modality, []).append(entry)
    for pattern in asked.unlike:
        files = image_files(pattern)
        if not files:
            raise ConfigFault(
                f"--unlike {pattern!r}: no image file; expected a folder of images or a pattern such as 'plate/*.tif'"
            )
        found[pattern] = [_unlabelled(path) for path in files[:MOST_UNLIKE]]
    return {name: entries[:limit] for name, entries in found.items()}


def image_files(pattern: str) -> list[Path]:
    """The image files of a folder, at any depth, or of a pattern such as `plate/w1*.tif`, in order."""
    path = Path(pattern).expanduser()
    found = path.rglob("*") if path.is_dir() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    return sorted(each for each in found if each.suffix.lower() in IMAGE_SUFFIXES)


def _unlabelled(path: Path) -> LabelledEntry:
    def read(roles: Sequence[str]) -> tuple[Pixels, Labels]:
        pixels = read_pixels(path, roles)
        return pixels, np.zeros(plane_of(pixels).shape, np.int32)

    return LabelledEntry(path.stem, read)


def defocused(image: LabelledImage) -> LabelledImage:
    """The image blurred until its objects are clouds: sigma is half their median diameter."""
    sigma = max(2.0, image.diameter_px / 2)
    return with_plane(image, np.asarray(cv2.GaussianBlur(image.plane.astype(np.float32), (0, 0), sigma)))


def _told(counter: Counter, image: LabelledImage) -> Told:
    seen = counter.count(image)
    low, high = interval_in(seen.found.values)
    flagged = any(code.startswith(Doubt.OUT_OF_DOMAIN) for code in seen.warnings)
    true = int(np.unique(image.labels[image.labels > 0]).size)
    return Told(true, seen.found.count, low, high, seen.found.unlike, flagged)


def _name_of(asked: Asked) -> str:
    modalities = {entry.modality for entry in asked.entries}
    return next(iter(modalities)) or "the data" if len(modalities) == 1 else "the data"


def _coverage(told: Sequence[Told]) -> tuple[tuple[SuiteTable, ...], tuple[str, ...]]:
    cases = [(one, one.low, one.high) for one in told if one.low is not None and one.high is not None]
    if not cases:
        return (), ("The package tells no interval of its counts.",)
    rows = []
    for name, least, most in _DENSITIES:
        chosen = [(one, low, high) for one, low, high in cases if least <= one.true <= most]
        if not chosen:
            continue
        share = coverage([(one.true, low, high) for one, low, high in chosen])
        width = median((high - low) / max(1, one.count) for one, low, high in chosen)
        asked_for = name == "all"
        rows.append(
            (
                cell(name), cell(len(chosen)), cell(share, ".1%"), cell(width, ".0%"),
                SuiteCell("85-95 %", "85-95 %") if asked_for else cell(None),
                met(COVERAGE[0] <= share <= COVERAGE[1]) if asked_for else cell(None),
            )
        )  # fmt: skip
    columns = (
        SuiteColumn("objects", "objects in the image"), SuiteColumn("images", "images"), SuiteColumn("covered", "true count in the interval"),
        SuiteColumn("width", "median width, of the count"), SuiteColumn("bar", "bar", "bars"), SuiteColumn("met", "met", "bars"),
    )  # fmt: skip
    return (SuiteTable("intervals", columns, tuple(rows)),), ()


def coverage(cases: Sequence[tuple[float, float, float]]) -> float:
    """The share of the cases (true, low, high) whose true value lies between low and high, ends included."""
    return sum(low <= true <= high for true, low, high in cases) / len(cases)


def _flags(
    name: str, told: Sequence[Told], sets: Mapping[str, Sequence[Told]]
) -> tuple[tuple[SuiteTable, ...], tuple[str, ...]]:
    familiar = [one.unlike for one in told if one.unlike is not None]
    if not familiar:
        return (), ("The package does not tell fields that are unlike its training.",)
    rows = []
    for title, fields in {name: told, **sets}.items():
        scores = [one.unlike for one in fields if one.unlike is not None]
        area = roc_area(scores, familiar) if scores and fields is not told else None
        rows.append(
            (
                cell(title), cell(len(fields)), cell(area, ".3f"),
                cell(sum(one.flagged for one in fields) / len(fields), ".0%"),
                cell(median(scores) if scores else None, ".2f"),
            )
        )  # fmt: skip
    columns = (
        SuiteColumn("images", "images"), SuiteColumn("fields", "fields"), SuiteColumn("roc_area", "area under the ROC curve"),
        SuiteColumn("flagged", "flagged"), SuiteColumn("median_score", "median score"),
    )  # fmt: skip
    return (SuiteTable("unlike", columns, tuple(rows)),), ()


def roc_area(strange: Sequence[float], familiar: Sequence[float]) -> float:
    """The chance that a strange field scores above a familiar one, with ties counted half (Mann-Whitney U over n m)."""
    a: NDArray[np.float64] = np.asarray(strange, np.float64)[:, None]
    b: NDArray[np.float64] = np.asarray(familiar, np.float64)[None]
    return float(np.mean((a > b) + 0.5 * (a == b)))
