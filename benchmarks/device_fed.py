"""Fields/s of the whole path against those of the bare model on ready tiles: one engine, one thread, the same images.

    python -m benchmarks.device_fed [--model nuclei] [--engine auto] [--sizes 512,1024] [--megapixels 30] [--rounds 5] [--record]

The two are measured in turn, each in this process. The bare model is the engine called in a loop on the tiles of the images, in the
shape the path cuts them; the whole path is a ShardWorker counting such fields from local disk, committing included, at the model's
own scale on both sides. That both are comparable is checked: engine, images, their scale and their objects.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tifffile
from numpy.typing import NDArray

from benchmarks.record import record
from cellcount_core.cli.progress import Quiet
from cellcount_core.config import JobConfig, RunConfig
from cellcount_core.demo.optics import Stain, build_instrument, expose
from cellcount_core.demo.scene import plant
from cellcount_core.domain.receipts import Receipt
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.pipeline.maps import levels
from cellcount_core.pipeline.process import prepare_process
from cellcount_core.runners.job import run_job
from cellcount_core.stores.local import open_local
from cellcount_core.tables.runfile import read_run

_IMAGES = 12
_SHARD_FIELDS = 16
_LEAST_FIELDS = 48


@dataclass(frozen=True, slots=True)
class Side:
    """What one side of the comparison did: fields/s, the engine, and the share of the wall that was spent in the engine."""

    rate: float
    engine: str
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--sizes", default="512,1024", help="sides of the fields in px")
    parser.add_argument("--megapixels", type=float, default=30.0, help="of all fields of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    prepare_process()
    package = find_package(arguments.model)
    engine = resolve_engine(package, arguments.engine, gpus=0)
    print(f"{os.cpu_count()} cores; model {arguments.model}, {engine}")
    rows = []
    for size in (int(part) for part in arguments.sizes.split(",")):
        fields = max(_LEAST_FIELDS, round(arguments.megapixels * 1e6 / size**2))
        sides = _compared(package, engine, size, fields, arguments.rounds)
        bare, whole = (statistics.median(side.rate for side in kind) for kind in zip(*sides, strict=True))
        ratio = statistics.median(whole.rate / bare.rate for bare, whole in sides)
        rows.append(f"| {size} x {size} px | {bare:.2f} | {whole:.2f} | {ratio:.3f} |")
    table = [
        f"| {arguments.model}, {engine}, one model thread | bare model on ready tiles, fields/s | whole path, fields/s "
        f"| ratio (median of {arguments.rounds}) |",
        "|---|---|---|---|",
        *rows,
    ]
    print("\n".join(table))
    record("device-fed", table)


def _compared(package: Package, engine: str, size: int, fields: int, rounds: int) -> list[tuple[Side, Side]]:
    """Both sides of every round, (bare, whole); which of them comes first changes."""
    images = _images(size)
    sides = []
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "in"
        source.mkdir()
        for index in range(fields):
            tifffile.imwrite(source / f"f{index:04d}.tif", images[index % _IMAGES], compression="zlib")
        for turn in range(rounds):
            output = Path(scratch) / f"out{turn}"
            if turn % 2 == 0:
                bare, whole = _bare(package, engine, images, fields), _whole(package, engine, source, output)
            else:
                whole, bare = _whole(package, engine, source, output), _bare(package, engine, images, fields)
            _check_comparable(bare, whole, output, size, fields)
            sides.append((bare, whole))
            print(
                f"{size} px: bare {bare.rate:.2f} fields/s, whole path {whole.rate:.2f} fields/s, "
                f"its device at work for {whole.busy:.1%}: {whole.rate / bare.rate:.3f}",
                flush=True,
            )
    return sides


def _check_comparable(bare: Side, whole: Side, output: Path, size: int, fields: int) -> None:
    rows = pq.read_table(output / "fields").to_pylist()
    counts: dict[int, set[int]] = {}
    for index, row in enumerate(sorted(rows, key=lambda row: str(row["source"]))):
        counts.setdefault(index % _IMAGES, set()).add(row["count"])
    assert bare.engine == whole.engine, f"{bare.engine} beside {whole.engine}"
    assert len(rows) == fields, f"{len(rows)} fields counted of {fields}"
    assert all((row["status"], row["scale"], row["width_px"]) == ("ok", 1.0, size) for row in rows)
    assert all(len(same) == 1 for same in counts.values()), "an image was counted in two ways"


def _images(size: int) -> list[NDArray[np.uint16]]:
    rng = np.random.default_rng(0)
    instrument = build_instrument(rng, (size, size))
    density = size * size // 1800
    return [expose(rng, instrument, plant(rng, (size, size), density))[Stain.NUCLEI] for _ in range(_IMAGES)]


def _bare(package: Package, name: str, images: list[NDArray[np.uint16]], fields: int) -> Side:
    engine = load_engine(package, name, threads=1)
    side = RunConfig.model_fields["tile"].default
    tiles = []
    for image in images:
        norms = levels([image], package.input)
        grid = plan_tiles(image.shape, stride=package.stride, radius=package.radius, max_tile=side)
        tiles.append([cut([image], norms, grid, tile)[None] for tile in grid.tiles])
    engine.run(tiles[0][0])
    began = time.perf_counter()
    for index in range(fields):
        for tile in tiles[index % len(tiles)]:
            engine.run(tile)
    return Side(fields / (time.perf_counter() - began), engine.name, 1.0)


def _whole(package: Package, engine: str, source: Path, output: Path) -> Side:
    job = JobConfig.model_validate(
        {
            "input": str(source),
            "output": str(output),
            "run": {"model": {"package": package.name, "engine": engine}, "diameter": "model"},
            "execution": {"runner": "serial", "threads": 1, "shard_fields": _SHARD_FIELDS},
        }
    )
    clock = _Clock()
    run_job(job, clock)
    seconds = clock.ended - clock.began
    return Side(clock.fields / seconds, read_run(open_local(output)).model.engine, clock.busy_s / seconds)


class _Clock(Quiet):
    """Seconds from the first shard handed out to the last one committed, and those of them in the engine."""

    began = 0.0
    ended = 0.0
    busy_s = 0.0
    fields = 0

    def begin(self, fields: int, already: int, run: str) -> None:
        self.began = time.perf_counter()
        self.fields = fields

    def receipt(self, receipt: Receipt, *_: object) -> None:
        self.ended = time.perf_counter()
        self.busy_s += receipt.device_busy_s


if __name__ == "__main__":
    main()
