"""How honest a run is about its counts: coverage of the count's interval, and which fields are told to be unlike the training.

    python benchmarks/uncertainty.py DATA [--package nuclei] [--limit N] [--record]

The fluorescence validation images, which nothing was fitted on, and sets of images that the model is not made for are counted by
the whole job, each image in a folder of its own; the figures come from the columns `count_low`, `count_high` and
`out_of_domain` of its table. Bars: an interval of nominal 90 % holds the true count of 85 to 95 % of the images. For the
flag, the area under the ROC curve against the fluorescence images is shown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import pyarrow.dataset as ds
import tifffile
from numpy.typing import NDArray

from benchmarks.predict import passed, validation_images
from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage, read_plane
from cellcount_core.runners.job import run_job

COVERAGE = (0.85, 0.95)
FAMILIAR = "fluorescence"
_FLAG = "out_of_domain"


@dataclass(frozen=True, slots=True)
class Told:
    """What the table says of one field; None where the package tells nothing."""

    count: int | None
    low: float | None
    high: float | None
    unlike: float | None
    flagged: bool


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, help="the folder that holds dsb2018_nuclei/ and plates/")
    made.add_argument("--package", default="nuclei")
    made.add_argument("--engine", default="auto")
    made.add_argument("--diameter", default="auto", help="auto, model (as the image is), or px")
    made.add_argument("--limit", type=int, default=0, help="this many images of each set (0: all)")
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = made.parse_args()
    images = validation_images(arguments.data, arguments.limit)
    sets = {FAMILIAR: [image.plane for image in images], **strangers(arguments.data, images, arguments.limit)}
    told = count(sets, arguments.package, arguments.engine, arguments.diameter)
    table = [
        *_coverage(images, told[FAMILIAR]),
        "",
        *_flags(told),
    ]
    print("\n".join(table))
    record("uncertainty", table)


def strangers(data: Path, images: Sequence[LabelledImage], limit: int) -> dict[str, list[Plane]]:
    """Images that a network for nuclei in fluorescence is not made for; sets whose data is not there are left out."""
    folder = data / "dsb2018_nuclei"
    plate = data / "plates" / "bbbc013_sbs"
    found: dict[str, list[Plane]] = {
        modality: [image.plane for image in load_folder(folder, modality=(modality,))]
        for modality in ("histology", "brightfield")
    }
    found["fluorescence, out of focus (blurred by half a nucleus)"] = [defocused(image) for image in images]
    for name, channel in (("BBBC013, the other channel", 1), ("BBBC013, nuclei (another laboratory)", 2)):
        found[name] = [read_plane(path) for path in sorted(plate.rglob(f"Channel{channel}-*"))[:24]]
    return {name: planes[: limit or None] for name, planes in found.items() if planes}


def defocused(image: LabelledImage) -> Plane:
    """The image blurred until nuclei are clouds: sigma of half of their median diameter."""
    sigma = max(2.0, image.diameter_px / 2)
    return np.asarray(cv2.GaussianBlur(image.plane.astype(np.float32), (0, 0), sigma))


def count(
    sets: Mapping[str, Sequence[Plane]], package: str, engine: str, diameter: str
) -> dict[str, list[Told]]:
    """Count all sets in one job; what is told of their images, in their order."""
    with tempfile.TemporaryDirectory() as scratch:
        source, output = Path(scratch) / "in", Path(scratch) / "out"
        for number, planes in enumerate(sets.values()):
            for index, plane in enumerate(planes):
                own = source / f"{number}_{index:04d}" / "image.tif"
                own.parent.mkdir(parents=True)
                tifffile.imwrite(own, plane)
        job = JobConfig.model_validate(
            {
                "input": str(source),
                "output": str(output),
                "run": {"diameter": diameter, "model": {"package": package, "engine": engine}},
                "execution": {"runner": "serial", "threads": 1},
            }
        )
        run_job(job, Quiet())
        columns = ["source", "count", "count_low", "count_high", "out_of_domain", "warnings"]
        rows = ds.dataset(output / "fields").to_table(columns=columns).to_pylist()
    by_folder = {row["source"][0].split("/")[0]: _told(row) for row in rows}
    return {
        name: [by_folder[f"{number}_{index:04d}"] for index in range(len(planes))]
        for number, (name, planes) in enumerate(sets.items())
    }


def _told(row: Mapping[str, object]) -> Told:
    def number(name: str) -> float | None:
        value = row[name]
        return float(value) if isinstance(value, int | float) else None

    counted, warnings = row["count"], row["warnings"]
    flagged = isinstance(warnings, list) and any(str(code).startswith(_FLAG) for code in warnings)
    return Told(
        counted if isinstance(counted, int) else None,
        number("count_low"),
        number("count_high"),
        number("out_of_domain"),
        flagged,
    )


def _coverage(images: Sequence[LabelledImage], told: Sequence[Told]) -> list[str]:
    cases = [
        (int(np.unique(image.labels[image.labels > 0]).size), one)
        for image, one in zip(images, told, strict=True)
        if one.low is not None and one.high is not None
    ]
    if not cases:
        return ["The package tells no interval of its counts."]
    rows = [
        "| objects in the image | images | true count in the interval | median width, of the count | bar | met |",
        "|---|---|---|---|---|---|",
    ]
    for name, least, most in (
        ("all", 0, 1 << 30),
        ("up to 20", 0, 20),
        ("21 to 50", 21, 50),
        ("more", 51, 1 << 30),
    ):
        chosen = [(true, one) for true, one in cases if least <= true <= most]
        if not chosen:
            continue
        share = coverage([(true, one.low or 0.0, one.high or 0.0) for true, one in chosen])
        width = median(((one.high or 0.0) - (one.low or 0.0)) / max(1, one.count or 0) for _, one in chosen)
        bar, met = ("", "") if name != "all" else ("85-95 %", passed(COVERAGE[0] <= share <= COVERAGE[1]))
        rows.append(f"| {name} | {len(chosen)} | {share:.1%} | {width:.0%} | {bar} | {met} |")
    return rows


def coverage(cases: Sequence[tuple[float, float, float]]) -> float:
    """Share of the cases (true, low, high) whose true value lies between the others, ends included."""
    return sum(low <= true <= high for true, low, high in cases) / len(cases)


def _flags(told: Mapping[str, Sequence[Told]]) -> list[str]:
    familiar = [one.unlike for one in told[FAMILIAR] if one.unlike is not None]
    if not familiar:
        return ["The package does not tell fields that are unlike its training."]
    rows = [
        "| images | fields | area under the ROC curve | flagged | median score |",
        "|---|---|---|---|---|",
    ]
    for name, fields in told.items():
        scores = [one.unlike for one in fields if one.unlike is not None]
        area = "" if name == FAMILIAR or not scores else f"{roc_area(scores, familiar):.3f}"
        flagged = sum(one.flagged for one in fields) / len(fields)
        middle = f"{median(scores):.2f}" if scores else ""
        rows.append(f"| {name} | {len(fields)} | {area} | {flagged:.0%} | {middle} |")
    return rows


def roc_area(strange: Sequence[float], familiar: Sequence[float]) -> float:
    """Chance that a strange field scores above a familiar one, ties counted half (Mann-Whitney U over n m)."""
    a: NDArray[np.float64] = np.asarray(strange, np.float64)[:, None]
    b: NDArray[np.float64] = np.asarray(familiar, np.float64)[None]
    return float(np.mean((a > b) + 0.5 * (a == b)))


if __name__ == "__main__":
    main()
