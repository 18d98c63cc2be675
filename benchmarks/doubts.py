"""Two doubts that must be told where they hold and nowhere else: a diameter given that is wrong, and images that the package does not know.

    python -m benchmarks.doubts diameter DATA [--record]
    python -m benchmarks.doubts unknown DATA [--record]

DATA is the folder that holds bccd_blood/, ldc_live_dead/, microalgae/, dsb2018_nuclei/ and nuclei_more/; what is not there is left out.
`diameter` compares runs of one image and of four with diameters around the true one, by the rule of the plan, and prints how often it
contradicts them. `unknown` counts images that a package is made for and images that it is not, and prints how often they are told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.brightfield import CLASSES, SPLIT
from benchmarks.record import record
from cellcount_core.domain.doubts import Doubt, code_of
from cellcount_core.evaluation.evaluate import Diameter, count_image, counting_of, pixels_of
from cellcount_core.labelled.box_faults import BoxFault, policy_of
from cellcount_core.labelled.boxes import BoxReading, list_boxes
from cellcount_core.labelled.dataset import choose, list_labelled
from cellcount_core.labelled.image import ImageEntry, Pictured
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.field import PlanesKit, planes_kit
from cellcount_core.pipeline.maps import canvas_maps, network_planes
from cellcount_core.plan.sizes import ImageSize, contradicting

BOXES = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "boxes.md"

TIMES = (0.1, 0.25, 0.4, 0.5, 0.67, 1.0, 1.5, 2.0, 2.5, 4.0, 10.0)
"""Diameters that are given, as times the true one."""

TOGETHER = 4
"""As many images of a plate as a plan compares."""

ABOUT_THE_IMAGE = frozenset(
    {
        Doubt.OUT_OF_DOMAIN, Doubt.NOTHING_FOUND, Doubt.FEW_FOUND, Doubt.DARK_BACKGROUND, Doubt.BRIGHT_BACKGROUND, Doubt.LOOKS_LIKE_MASK,
        Doubt.SIZE_UNLIKE, Doubt.SIZE_ABSURD,
    }
)  # fmt: skip
"""Doubts that say that an image is not what the package is made for, or not at the scale it was counted at."""


@dataclass(frozen=True, slots=True)
class Images:
    """Every `step`-th image of a folder below DATA, of one split and modality ("" for any)."""

    folder: str
    split: str = ""
    modality: str = ""
    step: int = 1

    @property
    def title(self) -> str:
        """What they are called in the tables."""
        return " ".join(word for word in (self.folder, self.split, self.modality) if word)

    def read(self, data: Path, package: Package) -> Iterator[Pictured]:
        """The images, as the package looks at them, one after the other."""
        path, modality = data / self.folder, (self.modality,) if self.modality else ()
        entries: Sequence[ImageEntry[Pictured]]
        if self.folder in _BOXED:
            entries = list_boxes(path, _BOXED[self.folder]).chosen(self.split, modality)
        else:
            entries = choose(list_labelled(path, roles=package.input.channels), self.split, modality)
        return (entry.load(package.input.channels) for entry in entries[:: self.step])


_SKIP = policy_of({}, tuple(BoxFault))
_BOXED = {
    "bccd_blood": BoxReading("voc", policy=_SKIP),
    "ldc_live_dead": BoxReading("voc", classes=CLASSES, table=SPLIT),
    "microalgae/labeled": BoxReading("voc", policy=_SKIP),
}

BLOOD, LDC = Images("bccd_blood", "test"), Images("ldc_live_dead", "test")
ALGAE = Images("microalgae/labeled")
FLUORESCENCE, TISSUE = (Images("dsb2018_nuclei", "val", kind) for kind in ("fluorescence", "histology"))
U2OS, KROMP = Images("nuclei_more/bbbc039", "test"), Images("nuclei_more/kromp2020", "val")

OWN: tuple[tuple[str, Images, Diameter], ...] = (
    ("blood", BLOOD, 102.0), ("viability-brightfield", LDC, 20.0), ("nuclei", FLUORESCENCE, "auto"), ("nuclei", U2OS, "auto"),
    ("nuclei", KROMP, "auto"), ("histology", TISSUE, "auto"),
)  # fmt: skip
"""Packages with images that they are made for, which did not train them, and the diameter that is given for those."""

FOREIGN: tuple[tuple[str, Images, Diameter], ...] = (
    ("blood", ALGAE, 102.0), ("blood", TISSUE, "auto"), ("viability-brightfield", ALGAE, 20.0), ("viability-brightfield", BLOOD, "auto"),
    ("viability-brightfield", TISSUE, "auto"), ("histology", BLOOD, "auto"), ("nuclei", BLOOD, "auto"), ("nuclei", TISSUE, "auto"),
)  # fmt: skip

Shares = Sequence[bool]


def _share(told: Shares) -> str:
    return f"{sum(told)} of {len(told)}"


def size_of(kit: PlanesKit, image: Pictured) -> ImageSize:
    """What an image says about the size of its objects, as the sample of a plan says it."""
    planes = tuple(pixels_of(kit, image).planes[selection.name] for selection in kit.counted)
    seen = tuple(network_planes(planes, kit.package.input))
    found = kit.head.size(seen, lambda canvas: canvas_maps(canvas, kit.package, kit.device))
    height, width = planes[0].shape
    return ImageSize("P", height, width, found.diameter_px, found.objects)


def diameter(data: Path) -> Iterator[str]:
    """The lines of the table of how often a diameter is contradicted, for each number of images that a plan has to go by."""
    yield f"| given / true | | | {' | '.join(f'{times:g}' for times in TIMES)} |"
    yield f"|---|---|---|{'---|' * len(TIMES)}"
    for name, images, _ in OWN:
        with kit_of(name) as kit:
            seen = [
                (size_of(kit, image), image.diameter_px)
                for image in read(images, data, kit)
                if image.diameter_px > 0
            ]
        for together in (1, TOGETHER) if seen else ():
            runs = [seen[start : start + together] for start in range(0, len(seen) - together + 1, together)]
            told = [
                _share([bool(contradicting([size for size, _ in run], times * _middle(run))) for run in runs])
                for times in TIMES
            ]
            yield f"| {images.title} | `{name}` | runs of {together} | {' | '.join(told)} |"


def _middle(run: Sequence[tuple[ImageSize, float]]) -> float:
    return float(np.median([true for _, true in run]))


def unknown(data: Path) -> Iterator[str]:
    """The lines of the table of how many images are told to be none that the package knows."""
    yield "| images | package | counted | `few_found` | `nothing_found` | told without these | told |"
    yield "|---|---|---|---|---|---|---|"
    for title, pairs in (("made for", OWN), ("not made for", FOREIGN)):
        yield f"| *{title}* | | | | | | |"
        for name, images, given in pairs:
            with kit_of(name, given) as kit:
                seen = [_counted(kit, image) for image in read(images, data, kit)]
            if not seen:
                continue
            missed = {Doubt.FEW_FOUND, Doubt.NOTHING_FOUND}
            counted, codes = float(np.median([count for count, _ in seen])), [told for _, told in seen]
            yield (
                f"| {images.title} | `{name}` | {counted:g} in the median of {len(seen)} | {_share([Doubt.FEW_FOUND in one for one in codes])} | "
                f"{_share([Doubt.NOTHING_FOUND in one for one in codes])} | {_share([bool(one - missed) for one in codes])} | "
                f"{_share([bool(one) for one in codes])} |"
            )


def _counted(kit: PlanesKit, image: Pictured) -> tuple[int, set[str]]:
    """How many objects are counted in an image, and the doubts about the image."""
    seen = count_image(kit, image)
    return seen.found.count, {code_of(warning) for warning in seen.warnings} & ABOUT_THE_IMAGE


@contextmanager
def kit_of(name: str, given: Diameter = "auto") -> Iterator[PlanesKit]:
    """What images are counted with by a shipped package, on one thread."""
    package = find_package(name)
    engine = load_engine(package, resolve_engine(package, "auto", gpus=0), 1)
    with closing(planes_kit(package, engine, counting_of(given))) as kit:
        yield kit


def read(images: Images, data: Path, kit: PlanesKit) -> Iterator[Pictured]:
    """The images; none if their folder is not there, which is told."""
    if not (data / images.folder).is_dir():
        print(f"{data / images.folder} is not there: left out")
        return iter(())
    return images.read(data, kit.package)


TABLES: dict[str, Callable[[Path], Iterator[str]]] = {"diameter": diameter, "unknown": unknown}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("what", choices=tuple(TABLES))
    made.add_argument("data", type=Path)
    made.add_argument("--record", action="store_true", help="write the table to docs/explanation/boxes.md")
    arguments = made.parse_args()
    prepare_process()
    lines = []
    for line in TABLES[arguments.what](arguments.data):
        print(line, flush=True)
        lines.append(line)
    record(f"doubts-{arguments.what}", lines, BOXES)


if __name__ == "__main__":
    main()
