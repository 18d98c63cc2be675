"""Count one very large 16-bit image: peak memory above the model's own, CPU time, and the same count whatever the tiles.

    python benchmarks/large_image.py [--model nuclei] [--side 10000] [--tiles 512 1280] [--threads 2] [--record]

Each count is a process of its own, its start and plan included. "The model's own" is the peak of a process that counts one image
of one tile with the same package. An image of 20,000 px takes four times as long.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import record

_CHILD = """
import sys, time
from cellcount_core.cli.main import main
code = main(sys.argv[1:])
print(time.process_time(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(code)
"""
"""A count that tells its CPU seconds and its peak (KiB) last. `getrusage` would keep the peak of the process that started it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one count found and took: CPU seconds of all its threads, and the peak of its resident memory."""

    objects: int
    cpu_s: float
    peak_mib: float


def write_image(path: Path, side: int) -> None:
    """Nuclei-like discs on noise, made of one 1000 px square so that it is quick, and written strip by strip."""
    rng = np.random.default_rng(7)
    square = rng.normal(400, 15, (1000, 1000))
    yy, xx = np.mgrid[:1000, :1000]
    for y, x in rng.integers(0, 1000, (500, 2)):
        radius, level = rng.uniform(7, 12), rng.uniform(800, 2500)
        near = (slice(max(0, y - 14), y + 15), slice(max(0, x - 14), x + 15))
        square[near] = np.maximum(
            square[near], 400 + level * (np.hypot(yy[near] - y, xx[near] - x) <= radius)
        )
    square = np.clip(square, 0, 65535).astype(np.uint16)
    image = np.tile(square, (side // 1000 + 1, side // 1000 + 1))[:side, :side]
    tifffile.imwrite(path, image, compression="zlib", rowsperstrip=64)


def count(source: Path, output: Path, model: str, tile: int, threads: int) -> Counted:
    """Count one folder in a process of its own."""
    command = [sys.executable, "-c", _CHILD, "count", str(source), str(output)]
    command += ["--model", model, "--runner", "serial", "--progress", "quiet"]
    command += ["--set", f"run.tile={tile}", "--set", f"execution.threads={threads}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said, spent = done.stdout.splitlines()[0], done.stdout.splitlines()[-1].split()
    return Counted(int(said.split()[0]), float(spent[0]), int(spent[1]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 1280])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        small.mkdir()
        large.mkdir()
        write_image(small / "small.tif", max(arguments.tiles))
        write_image(large / "large.tif", arguments.side)
        base = count(small, Path(scratch) / "out", arguments.model, max(arguments.tiles), arguments.threads)
        table = [
            f"| {arguments.model}, {arguments.side} x {arguments.side} px, 16 bit | objects | peak above the model's own | CPU s |",
            "|---|---|---|---|",
            f"| model and one tile | | ({base.peak_mib:.0f} MiB) | {base.cpu_s:.0f} |",
        ]
        print("\n".join(table), flush=True)
        counts = set()
        for tile in arguments.tiles:
            one = count(large, Path(scratch) / f"out{tile}", arguments.model, tile, arguments.threads)
            counts.add(one.objects)
            table.append(
                f"| tile {tile} | {one.objects} | {one.peak_mib - base.peak_mib:.0f} MiB | {one.cpu_s:.0f} |"
            )
            print(table[-1], flush=True)
    assert len(counts) == 1, f"other counts with other tiles: {sorted(counts)}"
    record("large-image", table)


if __name__ == "__main__":
    main()
