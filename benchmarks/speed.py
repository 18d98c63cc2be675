"""Images/s on one CPU thread of prepare, infer and separate, for each engine of each package.

    python benchmarks/speed.py DATA [--packages nuclei threshold] [--engines all] [--rounds 5] [--record]
    python benchmarks/speed.py --first [--rounds 5]

With --first: seconds from `import cellcount_core` to the first count of a made-up field of a megapixel, each round in a new
process (bar: 1.5 s).

256 x 256 px: validation images of that size brought to the model's scale by their true size, and cut or padded with their own
background back to 256 x 256; 1024 x 1024 px: made-up fields of the same object size. Everything is loaded and warm, the
variants are measured in turn, and the medians of the rounds are shown. Bars: 90 images/s for the fastest variant, 30 for
f32, 5 fields/s. Then what it costs to ask an image for the size of its objects, in CPU time: the small images, and all validation images as
they are, counted one at a time by one thread as a run counts fields of which no size is known. Bar: 40 estimates/s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import passed, record
from benchmarks.separation import separate_and_draw
from cellcount_core.demo.optics import Stain, build_instrument, expose
from cellcount_core.demo.plate import made_up_image
from cellcount_core.demo.scene import plant
from cellcount_core.evaluation.evaluate import count_plane
from cellcount_core.evaluation.suites.base import open_counters
from cellcount_core.images.imagefile import Plane
from cellcount_core.images.pixels import resize
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.labelled.image import LabelledImage
from cellcount_core.models.engines import ENGINES, ON_GPU, Engine, load_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.pipeline.context import StageClock, prepare_process
from cellcount_core.pipeline.field import PlanesKit
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.instances.task import section_of
from cellcount_core.tasks.object_size.looks import tells_sizes

SMALL, LARGE = 256, 1024
SMALL_BAR, F32_BAR, LARGE_BAR, ESTIMATE_BAR = 90.0, 30.0, 5.0, 40.0
FIRST_BAR = 1.5
F32 = "onnxruntime"
_DEMO_DIAMETER = 18.6


@dataclass(frozen=True, slots=True)
class Variant:
    """A package on one of its engines, loaded."""

    package: Package
    engine_name: str
    engine: Engine
    separator: Separator

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.package.name}, {self.engine_name}"


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds an image of one round, by stage."""

    prepare: float
    infer: float
    separate: float

    @property
    def whole(self) -> float:
        """All stages together."""
        return self.prepare + self.infer + self.separate


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, nargs="?", help="the folder that holds dsb2018_nuclei/")
    made.add_argument("--first", action="store_true", help="only the time from the import to the first count")
    made.add_argument("--packages", nargs="+", default=["nuclei", "threshold"])
    made.add_argument(
        "--engines", nargs="+", default=[], help="names, or all (default: all but those for a GPU)"
    )
    made.add_argument("--images", type=int, default=64, help="images of 256 px in a round")
    made.add_argument("--fields", type=int, default=4, help="fields of 1,024 px in a round")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = made.parse_args()
    if arguments.first:
        print_first(arguments.rounds)
        return
    if arguments.data is None:
        made.error("DATA is needed: the folder that holds dsb2018_nuclei/")
    prepare_process()
    variants = load_variants(arguments.packages, arguments.engines)
    diameter = next((v.package.input.diameter_px for v in variants if v.package.input.diameter_px), 20.0)
    work = {
        SMALL: small_images(arguments.data, diameter, arguments.images),
        LARGE: large_fields(diameter, arguments.fields),
    }
    spent: dict[tuple[str, int], list[Spent]] = {}
    for turn in range(arguments.rounds + 1):
        for side, planes in work.items():
            for variant in variants:
                one = measure(variant, planes if turn else planes[: max(2, variant.engine.batch)])
                # The first turn only warms up.
                if turn:
                    spent.setdefault((variant.name, side), []).append(one)
        if turn:
            print(
                f"round {turn}: " + "; ".join(_brief(spent, variant, SMALL) for variant in variants),
                flush=True,
            )
    table = [
        f"One thread, median of {arguments.rounds} rounds in turn, {len(work[SMALL])} images of 256 px and "
        f"{len(work[LARGE])} fields of 1,024 px a round, objects of {diameter:g} px.",
        "",
        "| variant | px | images/s | ms: prepare | infer | separate | separate / infer (≤ 20 %) | bar, images/s | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for side in work:
        bars = bars_of(variants, {variant.name: _seconds(spent, variant, side) for variant in variants}, side)
        table += [_row(spent[v.name, side], v, side, bars.get(v.name)) for v in variants]
    table += ["", *_estimates(arguments.data, arguments.packages, work[SMALL], arguments.rounds)]
    print("\n".join(table))
    record("speed", table)


def _estimates(data: Path, packages: Sequence[str], small: Sequence[Plane], rounds: int) -> list[str]:
    """The speed of the estimate of the object size, and of the whole count with and without it, for each package that tells sizes."""
    whole = load_folder(data / "dsb2018_nuclei", split="val", modality=("fluorescence",))
    sets = {
        f"{len(small)} of {SMALL} px at the model's scale": small,
        f"{len(whole)} validation images as they are": [image.plane for image in whole],
    }
    table = [
        "| size of each image told by itself | images | estimates a CPU second | bar | met | images a CPU second, with it | without |",
        "|---|---|---|---|---|---|---|",
    ]
    for counter in open_counters(
        [find_package(name) for name in packages], engine="auto", threads=1, diameter="auto"
    ):
        if tells_sizes(counter.package):
            for name, planes in sets.items():
                # The first round only warms up.
                done = [_one_by_one(counter.kit, planes) for _ in range(rounds + 1)][1:]
                told, counted, as_they_are = (median(column) for column in zip(*done, strict=True))
                table.append(
                    f"| {counter.title} | {name} | {told:.1f} | ≥ {ESTIMATE_BAR:g} | {passed(told >= ESTIMATE_BAR)} | {counted:.1f} | "
                    f"{as_they_are:.1f} |"
                )
        counter.close()
    return table


class CpuClock(StageClock):
    """CPU seconds of this process by stage: with one image in hand at a time they are the stage's own, whatever else runs."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one passage through `stage`."""
        began = time.process_time()
        try:
            yield
        finally:
            self._seconds[stage] += time.process_time() - began


def _one_by_one(kit: PlanesKit, planes: Sequence[Plane]) -> tuple[float, float, float]:
    """Images a CPU second: of the stage that tells sizes, of the whole count, and of the count of images as they are."""
    kit = replace(kit, clock=CpuClock())
    as_they_are = replace(kit, clock=CpuClock(), run=kit.run.model_copy(update={"diameter": "model"}))
    rates = []
    for each in (kit, as_they_are):
        began = time.process_time()
        for plane in planes:
            count_plane(each, plane)
        rates.append(len(planes) / (time.process_time() - began))
    return len(planes) / kit.clock.totals()["size"], rates[0], rates[1]


_FIRST = """
import sys, time
import numpy as np
image = np.load(sys.argv[1])
began = time.perf_counter()
import cellcount_core as cc
cc.count(image)
print(time.perf_counter() - began)
"""


def print_first(rounds: int) -> None:
    """Seconds from the import to the first count of a made-up field of a megapixel: the median of processes, and the fastest."""
    image, planted = made_up_image(600, shape=(LARGE, LARGE))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        told = [
            subprocess.run(
                [sys.executable, "-c", _FIRST, str(path)], capture_output=True, text=True, check=True
            ).stdout
            for _ in range(rounds + 1)
        ]
    # The first process only fills the caches of the file system.
    seconds = [float(each) for each in told[1:]]
    print(
        f"first count of {planted} nuclei in {LARGE} x {LARGE} px, from the import: {median(seconds):.2f} s (fastest {min(seconds):.2f} s; "
        f"bar ≤ {FIRST_BAR:g} s: {passed(median(seconds) <= FIRST_BAR)})"
    )


def load_variants(packages: Sequence[str], engines: Sequence[str]) -> list[Variant]:
    """The engines of every package that are named (none: those made for a CPU; "all": every one), each on one thread."""
    wanted = set(ENGINES) if "all" in engines else set(engines) or set(ENGINES) - ON_GPU
    found = []
    for package in map(find_package, packages):
        for name in package.engines:
            if name in wanted:
                separator = build_separator(section_of(package).separator)
                found.append(Variant(package, name, load_engine(package, name, 1), separator))
    return found


def measure(variant: Variant, planes: Sequence[Plane]) -> Spent:
    """Count the planes once, in batches of the engine's own size."""
    package, batch = variant.package, variant.engine.batch
    began = time.perf_counter()
    canvases = [whole_canvas([plane], package.input, package.stride) for plane in planes]
    prepared = time.perf_counter()
    maps: list[NDArray[np.float32]] = []
    for start in range(0, len(canvases), batch):
        part = canvases[start : start + batch]
        maps += list(variant.engine.run(np.stack(part)))
    inferred = time.perf_counter()
    for one in maps:
        separate_and_draw(variant.separator, np.ascontiguousarray(one))
    separated = time.perf_counter()
    n = len(planes)
    return Spent((prepared - began) / n, (inferred - prepared) / n, (separated - inferred) / n)


def small_images(data: Path, diameter_px: float, count: int) -> list[Plane]:
    """Validation images of 256 x 256 px at the model's scale, 256 x 256 px again."""
    images = load_folder(data / "dsb2018_nuclei", split="val", modality=("fluorescence",))
    wanted = [image for image in images if image.plane.shape == (SMALL, SMALL)]
    return [at_scale(wanted[number % len(wanted)], diameter_px) for number in range(count)]


def at_scale(image: LabelledImage, diameter_px: float) -> Plane:
    """The image with a median object of `diameter_px`, cut or mirrored to 256 x 256 px."""
    plane = resize(image.plane, diameter_px / image.diameter_px)[:SMALL, :SMALL]
    missing = [(0, SMALL - side) for side in plane.shape]
    return np.ascontiguousarray(np.pad(plane, missing, mode="symmetric"))


def large_fields(diameter_px: float, count: int) -> list[Plane]:
    """Made-up 16-bit fields of 1,024 x 1,024 px with some 600 nuclei."""
    rng = np.random.default_rng(0)
    side = round(LARGE * _DEMO_DIAMETER / diameter_px)
    instrument = build_instrument(rng, (side, side))
    fields = []
    for _ in range(count):
        field = expose(rng, instrument, plant(rng, (side, side), 600))[Stain.NUCLEI]
        fields.append(np.ascontiguousarray(resize(field, LARGE / side)[:LARGE, :LARGE]))
    return fields


def _seconds(spent: dict[tuple[str, int], list[Spent]], variant: Variant, side: int) -> float:
    return median(one.whole for one in spent[variant.name, side])


def _brief(spent: dict[tuple[str, int], list[Spent]], variant: Variant, side: int) -> str:
    return f"{variant.name} {1 / spent[variant.name, side][-1].whole:.1f}/s"


def bars_of(variants: Sequence[Variant], seconds: dict[str, float], side: int) -> dict[str, float]:
    """The images/s asked of variants of networks, by name: of the fastest, and of ONNX Runtime in f32."""
    networks = [variant for variant in variants if variant.engine_name != "smooth"]
    if not networks:
        return {}
    fastest = min(networks, key=lambda variant: seconds[variant.name])
    if side == LARGE:
        return {fastest.name: LARGE_BAR}
    return {v.name: F32_BAR for v in networks if v.engine_name == F32} | {fastest.name: SMALL_BAR}


def _row(rounds: Sequence[Spent], variant: Variant, side: int, bar: float | None) -> str:
    rate = 1 / median(one.whole for one in rounds)
    prepare, infer, separate = (
        1000 * median(getattr(one, stage) for one in rounds) for stage in ("prepare", "infer", "separate")
    )
    shown, met = ("", "") if bar is None else (f"≥ {bar:g}", passed(rate >= bar))
    return (
        f"| {variant.name} | {side} | {rate:.1f} | {prepare:.2f} | {infer:.2f} | {separate:.2f} | "
        f"{separate / infer:.0%} | {shown} | {met} |"
    )


if __name__ == "__main__":
    main()
