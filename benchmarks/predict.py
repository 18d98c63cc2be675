"""What the benchmarks of accuracy share: their command line, a package that counts images in memory as a run counts files, and
how a figure is shown beside its bar.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellcount_core.domain.scales import ScaleSource
from cellcount_core.evaluation.evaluate import Diameter, count_plane, counting_of
from cellcount_core.images.imagefile import Plane
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.field import Examined
from cellcount_core.pipeline.kit import planes_kit
from cellcount_core.pipeline.sizing import SizeEstimate


class Counter:
    """A package on one thread. `diameter` is "auto" (each image by itself), "model" (as the image is) or px."""

    def __init__(self, package: str, engine: str, diameter: str) -> None:
        self.package: Package = find_package(package)
        self.engine_name = resolve_engine(self.package, engine, gpus=0)
        self.diameter = diameter
        loaded = load_engine(self.package, self.engine_name, 1)
        self._kit = planes_kit(self.package, loaded, counting_of(diameter_of(diameter)))

    def count(self, plane: Plane) -> Examined:
        """Count one raw plane (H, W), with its label image."""
        return count_plane(self._kit, plane)


def diameter_of(text: str) -> Diameter:
    """A diameter of the command line."""
    return "auto" if text == "auto" else "model" if text == "model" else float(text)


def told(counter: Counter, seen: Examined) -> SizeEstimate:
    """The object size that an image was counted at, and the objects it rests on: all that were counted where it was given."""
    scale = seen.scale
    diameter = counter.package.input.diameter_px if scale.source is ScaleSource.MODEL else scale.diameter_px
    return SizeEstimate(diameter, seen.found.count if scale.objects is None else scale.objects, 1.0)


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
