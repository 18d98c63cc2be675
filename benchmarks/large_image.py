"""Count a 20,000 x 20,000 16-bit image: peak memory above the model's own, and the count for three tile sizes.

    python benchmarks/large_image.py [--model nuclei] [--side 20000] [--tiles 512 896 1280] [--threads 2]

Each count is a process of its own; memory is VmHWM. "The model's own" is the peak of a process that counts one image of one
tile with the same package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import record

_CHILD = """
import sys
from cellcount_core.cli.main import main
code = main(sys.argv[1:])
print("peak", [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(code)
"""


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


def count(source: Path, output: Path, model: str, tile: int, threads: int) -> tuple[int, float, float]:
    """(objects, peak MiB, seconds) of one count."""
    command = [
        sys.executable,
        "-c",
        _CHILD,
        "count",
        str(source),
        str(output),
        "--model",
        model,
        "--runner",
        "serial",
    ]
    command += ["--progress", "quiet", "--set", f"run.tile={tile}", "--set", f"execution.threads={threads}"]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - began
    return int(done.stdout.split()[0]), int(done.stdout.split("peak")[1]) / 1024, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--tiles", type=int, nargs="+", default=[512, 896, 1280])
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
        _, base, _ = count(
            small, Path(scratch) / "out", arguments.model, max(arguments.tiles), arguments.threads
        )
        table = [
            f"| {arguments.model}, {arguments.side} x {arguments.side} px, 16 bit | objects | peak above the model's own | seconds |",
            "|---|---|---|---|",
            f"| model and one tile | | ({base:.0f} MiB) | |",
        ]
        print("\n".join(table), flush=True)
        counts = set()
        for tile in arguments.tiles:
            found, peak, seconds = count(
                large, Path(scratch) / f"out{tile}", arguments.model, tile, arguments.threads
            )
            counts.add(found)
            table.append(f"| tile {tile} | {found} | {peak - base:.0f} MiB | {seconds:.0f} |")
            print(table[-1], flush=True)
    table.append(f"| counts equal | {'yes' if len(counts) == 1 else 'no'} | | |")
    print(table[-1])
    record("large-image", table)


if __name__ == "__main__":
    main()
