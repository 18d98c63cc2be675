"""CPU-seconds a field of the Ray runner against the serial runner: slopes over two sizes, start-up apart.

    python benchmarks/overhead.py [--small 2000] [--large 6000] [--rounds 3]

Fields are 256 x 256 16-bit TIFF files counted with the `threshold` package. Every run is a process of its own, runners in
turn; its CPU time is the sum over its whole process tree (driver, Ray's own processes, actors).
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from benchmarks.record import record


def write_fields(folder: Path, count: int) -> None:
    """`count` images in ImageXpress names; 64 different ones, so that making them does not take longer than counting."""
    rng = np.random.default_rng(1)
    yy, xx = np.mgrid[:256, :256]
    bodies = []
    for _ in range(64):
        image = rng.normal(300, 12, (256, 256))
        for y, x in rng.integers(12, 244, (25, 2)):
            image += 1500.0 * ((yy - y) ** 2 + (xx - x) ** 2 <= 49)
        path = folder / "one.tif"
        tifffile.imwrite(path, np.clip(image, 0, 65535).astype(np.uint16))
        bodies.append(path.read_bytes())
    path.unlink()
    for index in range(count):
        well = f"{chr(65 + index // 24 % 16)}{index % 24 + 1:02d}"
        (folder / f"P_{well}_s{index // 384 + 1}.tif").write_bytes(bodies[index % 64])


def cpu_seconds(runner: str, actors: int, source: Path, fields: int) -> float:
    """CPU time of one count, over its process tree."""
    output = Path(tempfile.mkdtemp(prefix="overhead-"))
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(source), str(output / "out")]
    command += ["--layout", "imagexpress", "--model", "threshold", "--progress", "quiet", "--runner", runner]
    command += ["--set", "execution.threads=1"] + (["--actors", str(actors)] if runner == "ray" else [])
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    spent: dict[int, float] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for member in [root, *root.children(recursive=True)]:
                times = member.cpu_times()
                spent[member.pid] = times.user + times.system
        except psutil.Error:
            pass
        time.sleep(0.1)
    told = process.stdout.read().decode() if process.stdout else ""
    shutil.rmtree(output)
    if process.returncode != 0 or f"of {fields} fields" not in told:
        raise SystemExit(f"{runner}: exit code {process.returncode}: {told}")
    return sum(spent.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    slopes: dict[str, list[float]] = {"serial": [], "ray": []}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for size in (arguments.small, arguments.large):
            sources[size] = Path(scratch) / str(size)
            sources[size].mkdir()
            write_fields(sources[size], size)
        for turn in range(arguments.rounds):
            for runner in ("serial", "ray") if turn % 2 == 0 else ("ray", "serial"):
                low, high = (cpu_seconds(runner, arguments.actors, sources[size], size) for size in sources)
                slopes[runner].append((high - low) / (arguments.large - arguments.small))
                print(
                    f"{runner}: {low:.1f} s, {high:.1f} s: {1000 * slopes[runner][-1]:.3f} ms a field",
                    flush=True,
                )
    medians = {runner: statistics.median(values) for runner, values in slopes.items()}
    table = [
        "| runner | CPU time a field |",
        "|---|---|",
        f"| serial | {1000 * medians['serial']:.3f} ms |",
        f"| ray, {arguments.actors} actors | {1000 * medians['ray']:.3f} ms |",
        f"| ratio | {medians['ray'] / medians['serial']:.3f} |",
    ]
    print("\n".join(table))
    record("overhead", table)


if __name__ == "__main__":
    main()
