"""What separating touching nuclei costs on one CPU thread, beside the network's inference, and how it grows with the image.

    python benchmarks/separation.py DATA [--package nuclei] [--engines onnxruntime onnxruntime-int8] [--sides 512 1024 2048 4096] [--record]

The maps are those of the package on the fluorescence `val` images of 256 x 256 px with 20 to 100 objects; larger ones are
these maps side by side. Drawing objects to the package's outline is part of it. A confluent layer (every pixel foreground, all in one piece) is the worst case. All times are CPU
time of one thread, warm, measured in turn, the least of the rounds. Bars: separation takes at most a fifth of the inference, at most 20 ms for
1024 x 1024 px with about 1,000 objects, and its time grows with the pixels to the power of 1.1 at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from benchmarks.record import passed, record
from cellcount_core.images.normalise import Normalisation
from cellcount_core.labelled.dataset import load_folder
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.objects.separators import Separator, build_separator
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.maps import whole_canvas
from cellcount_core.tasks.instances.task import label_whole, section_of, separate_whole

Maps = NDArray[np.float32]

TILE, LARGE = 256, 1024
FEWEST, MOST = 20, 100
SHARE_BAR, LARGE_BAR, SLOPE_BAR = 0.2, 20.0, 1.1
_SPACING = 20


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, help="the folder that holds dsb2018_nuclei/")
    made.add_argument("--package", default="nuclei")
    made.add_argument(
        "--engines", nargs="+", default=[], help="default: those of the package on ONNX Runtime"
    )
    made.add_argument("--sides", nargs="+", type=int, default=[512, 1024, 2048, 4096])
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument(
        "--record", action="store_true", help="write the tables to docs/explanation/performance.md"
    )
    arguments = made.parse_args()
    prepare_process()
    package = find_package(arguments.package)
    separator = build_separator(section_of(package).separator)
    engines = arguments.engines or [name for name in package.engines if name.startswith("onnxruntime")]
    images = load_folder(arguments.data / "dsb2018_nuclei", split="val", modality=("fluorescence",))
    images = [image for image in images if image.plane.shape == (TILE, TILE)]
    canvases = [whole_canvas([image.plane], package.input, package.stride) for image in images]
    tiles = _maps_with_objects(canvases, package, engines[0], separator)
    table = _shares(tiles, package, engines, separator, arguments.rounds)
    print("\n".join(table), flush=True)
    growth = _growth(tiles, separator, arguments.sides, arguments.rounds)
    print("\n".join(growth))
    record("separation", [*table, "", *growth])


def _maps_with_objects(
    canvases: list[NDArray[np.float32]], package: Package, engine_name: str, separator: Separator
) -> list[Maps]:
    """Maps of the tiles that hold `FEWEST` to `MOST` objects."""
    engine = load_engine(package, engine_name, 1)
    tiles = [engine.run(canvas[None].repeat(engine.batch, axis=0))[0] for canvas in canvases]
    tiles = [np.ascontiguousarray(maps[:TILE, :TILE]) for maps in tiles]
    counts = [int(separate_whole(separator, maps).max()) for maps in tiles]
    return [maps for maps, count in zip(tiles, counts, strict=True) if FEWEST <= count <= MOST]


def _shares(
    tiles: list[Maps], package: Package, engines: list[str], separator: Separator, rounds: int
) -> list[str]:
    """Separation of tiles and of a large field beside the inference of each engine."""
    crowded = sorted(tiles, key=lambda maps: -int(separate_whole(separator, maps).max()))
    large = _side_by_side(crowded[:16], LARGE)
    separations = [partial(separate_and_draw, separator, maps) for maps in [*tiles, large]]
    inferences = [_inference(package, name, side) for name in engines for side in (TILE, LARGE)]
    times = _least_ms([*separations, *[run for run, _ in inferences]], rounds)
    small_ms, large_ms = times[: len(tiles)], times[len(tiles)]
    infer_ms = [ms / batch for ms, (_, batch) in zip(times[len(separations) :], inferences, strict=True)]
    counts = [int(separate_whole(separator, maps).max()) for maps in tiles]
    large_count = int(separate_whole(separator, large).max())
    mean_ms = float(np.mean(small_ms))
    table = [
        f"| separation, `{package.name}` | ms | objects |",
        "|---|---|---|",
        f"| {TILE} x {TILE} px, mean of {len(tiles)} images | {mean_ms:.2f} | {np.mean(counts):.0f} |",
        f"| {TILE} x {TILE} px, slowest image | {max(small_ms):.2f} | {counts[int(np.argmax(small_ms))]} |",
        f"| {LARGE} x {LARGE} px (bar {LARGE_BAR:.0f} ms: {passed(large_ms <= LARGE_BAR)}) | {large_ms:.1f} | {large_count} |",
        "",
        f"| engine | inference {TILE} px, ms | separation is | inference {LARGE} px, ms | separation is | at most {SHARE_BAR:.0%} |",
        "|---|---|---|---|---|---|",
    ]
    for name, small_infer, large_infer in zip(engines, infer_ms[::2], infer_ms[1::2], strict=True):
        shares = mean_ms / small_infer, large_ms / large_infer
        table.append(
            f"| {name} | {small_infer:.1f} | {shares[0]:.1%} | {large_infer:.1f} | {shares[1]:.1%} | "
            f"{passed(max(shares) <= SHARE_BAR)} |"
        )
    return table


def separate_and_draw(separator: Separator, maps: Maps) -> NDArray[np.int32]:
    """What is done with the maps (H, W, K) of a field at the model's scale: its objects, drawn to the package's outline."""
    plane = np.asarray(maps[..., 0])
    return label_whole(separator, maps, plane, Normalisation(0.0, 1.0, 0.0))


def _inference(package: Package, engine_name: str, side: int) -> tuple[Callable[[], object], int]:
    """What runs one batch of canvases `side` px wide, and how many there are in it."""
    engine = load_engine(package, engine_name, 1)
    rng = np.random.default_rng(0)
    canvas = rng.random((engine.batch, side, side, len(package.input.channels)), np.float32)
    return partial(engine.run, canvas), engine.batch


def _growth(tiles: list[Maps], separator: Separator, sides: list[int], rounds: int) -> list[str]:
    """Nanoseconds a pixel by the side of the image, and the power of the pixels that the time grows with."""
    table = [
        f"| maps | {' | '.join(f'{side} px, ns a pixel' for side in sides)} | power of the pixels | at most {SLOPE_BAR} |",
        f"|---{'|---' * len(sides)}|---|---|",
    ]
    confluent = [_confluent(512, tiles[0].shape[-1])]
    for name, pieces in (("validation images side by side", tiles), ("confluent layer", confluent)):
        works = [partial(separate_and_draw, separator, _side_by_side(pieces, side)) for side in sides]
        times = _least_ms(works, max(2, rounds // 2))
        pixels = np.array(sides, np.float64) ** 2
        power = float(np.polyfit(np.log(pixels), np.log(times), 1)[0])
        cells = " | ".join(f"{ms * 1e6 / count:.1f}" for ms, count in zip(times, pixels, strict=True))
        table.append(f"| {name} | {cells} | {power:.2f} | {passed(power <= SLOPE_BAR)} |")
    return table


def _side_by_side(pieces: list[Maps], side: int) -> Maps:
    """Square maps (side, side, K) of pieces of one size, again and again in their order."""
    size = pieces[0].shape[0]
    across = -(-side // size)
    maps = np.empty((across * size, across * size, pieces[0].shape[-1]), np.float32)
    for index in range(across * across):
        y, x = (size * at for at in divmod(index, across))
        maps[y : y + size, x : x + size] = pieces[index % len(pieces)]
    return np.ascontiguousarray(maps[:side, :side])


def _confluent(side: int, channels: int) -> Maps:
    """Maps of cells about `_SPACING` px wide that cover everything, so that all foreground is one piece."""
    rng = np.random.default_rng(0)
    grid = np.arange(_SPACING // 2, side, _SPACING)
    centres = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2).astype(np.float64)
    centres += rng.uniform(-3, 3, centres.shape)
    pixels = np.moveaxis(np.mgrid[:side, :side], 0, -1).reshape(-1, 2)
    distances = np.asarray(cKDTree(centres).query(pixels, 2)[0])
    near, second = distances[:, 0], distances[:, 1]
    maps = np.zeros((side, side, channels), np.float32)
    maps[..., 0] = 1
    maps[..., 1] = ((second - near) / (second + near)).reshape(side, side)
    return maps


def _least_ms(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """CPU milliseconds of each of some works, done in turn: the least of the rounds, after one that only warms up."""
    times = np.empty((rounds, len(works)))
    for turn in range(-1, rounds):
        for index, work in enumerate(works):
            began = time.process_time()
            work()
            if turn >= 0:
                times[turn, index] = time.process_time() - began
    least: list[float] = (1e3 * times.min(axis=0)).tolist()
    return least


if __name__ == "__main__":
    main()
