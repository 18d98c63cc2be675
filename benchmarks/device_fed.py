"""Fields/s of the whole path against those of the bare model on ready tiles: one engine, one thread, the same images.

    python -m benchmarks.device_fed [--model nuclei] [--engine auto] [--sizes 512,1024] [--megapixels 100] [--rounds 3] [--record]

The two are measured in turn, each in this process. The bare model is the engine called in a loop on the tiles of the images, in the
shape the path cuts them; the whole path is a ShardWorker counting such fields from local disk, committing included, at the model's
own scale on both sides. That both are comparable is checked: engine, images, their scale and their objects.

Until the first tile is at the model, and from the last one to the last commit, the model has nothing to do: 0.1 to 0.2 s a run, however many
its fields. So a run has as many as some plates have, for that not to count as what the path costs each of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
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
from cellcount_core.domain.fields import Receipt
from cellcount_core.images.tiles import cut, plan_tiles
from cellcount_core.models.engines import load_engine, resolve_engine
from cellcount_core.models.package import Package, find_package
from cellcount_core.output.runfile import read_run
from cellcount_core.pipeline.context import prepare_process
from cellcount_core.pipeline.maps import levels
from cellcount_core.runners.job import run_job
from cellcount_core.stores.local import open_local

_IMAGES = 12
_SHARD_FIELDS = 16
_LEAST_FIELDS = 48


@dataclass(frozen=True, slots=True)
class Side:
    """What one side of the comparison did: fields/s, CPU ms a field of the whole process, the engine, and the share of the wall that was
    spent in the engine."""

    rate: float
    cpu_ms: float
    engine: str
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--sizes", default="512,1024", help="sides of the fields in px")
    parser.add_argument("--megapixels", type=float, default=100.0, help="of all fields of a round")
    parser.add_argument("--rounds", type=int, default=3)
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
        bare, whole = (_median(kind) for kind in zip(*sides, strict=True))
        ratio = statistics.median(whole.rate / bare.rate for bare, whole in sides)
        rows.append(
            f"| {fields} of {size} x {size} px | {bare.rate:.2f} | {whole.rate:.2f} | {bare.cpu_ms:.0f} | {whole.cpu_ms:.0f} "
            f"| {ratio:.3f} |"
        )
    table = [
        f"| {arguments.model}, {engine}, one model thread | bare model on ready tiles, fields/s | whole path, fields/s "
        f"| CPU ms a field: bare | whole path | whole / bare, fields/s (median of {arguments.rounds}) |",
        "|---|---|---|---|---|---|",
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


def _median(sides: Sequence[Side]) -> Side:
    rate, cpu_ms = (
        statistics.median(figures) for figures in zip(*((s.rate, s.cpu_ms) for s in sides), strict=True)
    )
    return Side(rate, cpu_ms, sides[0].engine, statistics.median(side.busy for side in sides))


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
    began, cpu = time.perf_counter(), time.process_time()
    for index in range(fields):
        for tile in tiles[index % len(tiles)]:
            engine.run(tile)
    seconds, spent = time.perf_counter() - began, time.process_time() - cpu
    return Side(fields / seconds, 1000 * spent / fields, engine.name, 1.0)


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
    engine_used = read_run(open_local(output)).model.engine
    return Side(
        clock.fields / seconds, 1000 * clock.cpu_s / clock.fields, engine_used, clock.busy_s / seconds
    )


class _Clock(Quiet):
    """From the first shard handed out to the last one committed: seconds, CPU seconds of the process, and seconds in the engine."""

    began = 0.0
    ended = 0.0
    cpu_s = 0.0
    busy_s = 0.0
    fields = 0
    _cpu = 0.0

    def begin(self, fields: int, already: int, run: str) -> None:
        self.began, self._cpu = time.perf_counter(), time.process_time()
        self.fields = fields

    def receipt(self, receipt: Receipt, *_: object) -> None:
        self.ended, self.cpu_s = time.perf_counter(), time.process_time() - self._cpu
        self.busy_s += receipt.device_busy_s


if __name__ == "__main__":
    main()
