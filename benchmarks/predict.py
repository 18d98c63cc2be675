"""Counting a labelled image at once, as the product does: size of the objects, the model's scale, maps, objects, back.

What the benchmarks of accuracy share: their command line, a `Counter` of one package on one thread, and how a figure is
shown beside its bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellcount_core.evaluation.dataset import LabelledImage, load_folder
from cellcount_core.evaluation.evaluate import MAX_CANVAS_PX, PackageCounter, Separated
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.scale import LARGEST_FACTOR, SMALLEST_FACTOR, resize
from cellcount_core.models.engines import Engine, load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.sizing import SizeEstimate, estimate_size


@dataclass(frozen=True, slots=True)
class Counted:
    """What came out of one image: the objects at the model's scale, and the size that led there.

    `estimate` is None where the size was given.
    """

    objects: Separated
    count: int
    estimate: SizeEstimate | None

    def at(self, shape: tuple[int, int]) -> NDArray[np.int32]:
        """The label image at `shape` (H, W)."""
        return self.objects.drawn(shape)


class Counter:
    """A package on one thread. `diameter` is "auto" (each image by itself), "model" (as the image is) or px."""

    def __init__(self, package: str, engine: str, diameter: str) -> None:
        self.package: Package = find_package(package)
        self.engine_name = resolve_engine(self.package, engine, gpus=0)
        self.diameter = diameter
        self._engine: Engine = load_engine(self.package, self.engine_name, 1)
        self._at_scale = PackageCounter(self.package, self._engine, "model")

    def estimate(self, plane: Plane) -> SizeEstimate:
        """What the plane (H, W) says of the size of its objects; the size itself where one was given."""
        if self.diameter == "auto":
            return estimate_size(plane, self.package, self._engine)
        given = self.package.input.diameter_px if self.diameter == "model" else float(self.diameter)
        return SizeEstimate(given, 0, 1.0)

    def count(self, plane: Plane) -> Counted:
        """Count one raw plane (H, W). Without an estimate the image is taken as it is."""
        own = self.package.input.diameter_px
        estimate = self.estimate(plane) if own is not None else None
        factor = 1.0
        if own is not None and estimate is not None and estimate.diameter_px is not None:
            factor = own / estimate.diameter_px
        # Objects stay at the model's scale: most images here are far larger, and are not looked at in their own size.
        objects = self._at_scale.separated(resize(plane, _possible(factor, plane.size)))
        return Counted(
            objects, int(objects.labels.max(initial=0)), estimate if self.diameter == "auto" else None
        )


def _possible(factor: float, pixels: int) -> float:
    largest = min(LARGEST_FACTOR, max(1.0, (MAX_CANVAS_PX / pixels) ** 0.5))
    return float(min(max(factor, SMALLEST_FACTOR), largest))


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of all benchmarks that count labelled images."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("data", type=Path, help="the folder that holds dsb2018_nuclei/")
    add_counter(made)
    made.add_argument("--limit", type=int, default=0, help="this many images, evenly spread (0: all)")
    return made


def add_counter(made: argparse.ArgumentParser) -> None:
    """The arguments that choose a counter, and `--record`."""
    made.add_argument("--package", default="nuclei", help="name of a shipped package, or a folder")
    made.add_argument("--engine", default="auto")
    made.add_argument("--diameter", default="auto", help="auto, model (as the image is), or px")
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )


def validation_images(data: Path, limit: int) -> list[LabelledImage]:
    """The fluorescence images of the `val` split, or `limit` of them evenly spread."""
    images = load_folder(data / "dsb2018_nuclei", split="val", modality=("fluorescence",))
    return images if not 0 < limit < len(images) else [images[i * len(images) // limit] for i in range(limit)]


def passed(*held: bool) -> str:
    """The last column of a table: whether the row's bars are met."""
    return "yes" if all(held) else "**no**"


def how_many(limit: int, images: Sequence[LabelledImage]) -> str:
    """Says in a table's caption when it was not made of all images."""
    return f"{len(images)} images" + (" (--limit)" if limit else "")
