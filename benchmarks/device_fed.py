"""Fields/s of the whole path against those of the bare model on ready tiles: same process, same number of threads.

    python benchmarks/device_fed.py [--model nuclei] [--fields 200] [--size 512] [--rounds 5]

The two are measured in turn. The bare model is the engine called in a loop on the tiles of one field, in the shape the
path cuts them; the whole path is a ShardWorker counting a shard of such fields from local disk, committing included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.demo.optics import Stain, build_instrument, expose
from cellcount_core.demo.scene import plant
from cellcount_core.domain.config import JobConfig
from cellcount_core.images.normalise import estimate
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import load_engine
from cellcount_core.models.package import find_package
from cellcount_core.runners.job import run_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--fields", type=int, default=120)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} cores; model {arguments.model}; {arguments.fields} fields of {arguments.size} px"
    )
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        images = _images(arguments.size)
        for index in range(arguments.fields):
            tifffile.imwrite(source / f"f{index:04d}.tif", images[index % 12], compression="zlib")
        ratios, bare_rates, path_rates = [], [], []
        for turn in range(arguments.rounds):
            bare = _bare(arguments.model, images, arguments.fields)
            whole = _whole(arguments.model, source, Path(scratch) / f"out{turn}", arguments.fields)
            bare_rates.append(bare)
            path_rates.append(whole)
            ratios.append(whole / bare)
            print(f"bare {bare:.2f} fields/s, whole path {whole:.2f} fields/s: {ratios[-1]:.3f}", flush=True)
    table = [
        f"| {arguments.model}, {arguments.size} x {arguments.size} px, one model thread | fields/s |",
        "|---|---|",
        f"| bare model on ready tiles | {statistics.median(bare_rates):.2f} |",
        f"| whole path, from files to committed parts | {statistics.median(path_rates):.2f} |",
        f"| ratio (median of {arguments.rounds}) | {statistics.median(ratios):.3f} |",
    ]
    print("\n".join(table))
    record("device-fed", table)


def _images(size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    instrument = build_instrument(rng, (size, size))
    density = size * size // 1800
    return [expose(rng, instrument, plant(rng, (size, size), density))[Stain.NUCLEI] for _ in range(12)]


def _bare(model: str, images: list[np.ndarray], fields: int) -> float:
    package = find_package(model)
    engine = load_engine(package, next(iter(sorted(set(package.engines) - {"keras"}))), threads=1)
    tiles = []
    for image in images:
        norm = estimate(image, percentile=package.input.percentile, floor_sigmas=package.input.floor_sigmas)
        grid = plan_tiles(image.shape, stride=package.stride, radius=package.radius, max_tile=1280)
        tiles.append([cut([image], [norm], grid, tile)[None] for tile in grid.tiles])
    engine.run(tiles[0][0])
    began = time.perf_counter()
    for index in range(fields):
        for tile in tiles[index % len(tiles)]:
            engine.run(tile)
    return fields / (time.perf_counter() - began)


def _whole(model: str, source: Path, output: Path, fields: int) -> float:
    job = JobConfig.model_validate(
        {
            "input": str(source),
            "output": str(output),
            "run": {"model": {"package": model}},
            "execution": {"runner": "serial", "threads": 1},
        }
    )
    clock = _Clock()
    run_job(job, clock)
    return fields / (clock.ended - clock.began)


class _Clock(Quiet):
    """Seconds from the first shard handed out to the last one committed."""

    began = 0.0
    ended = 0.0

    def begin(self, fields: int, already: int, run: str) -> None:
        self.began = time.perf_counter()

    def receipt(self, *_: object) -> None:
        self.ended = time.perf_counter()


if __name__ == "__main__":
    main()
