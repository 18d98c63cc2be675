"""Memory: of one very large image, and what it saves a count that its processes use freed memory again.

    python benchmarks/memory.py large-image [--model nuclei] [--side 10000] [--tiles 512 1280] [--threads 2] [--record]
    python benchmarks/memory.py freed [--fields 24] [--rounds 5] [--record]

Every count is a process of its own, its start and plan included.

large-image: peak memory above the model's own, CPU time, and the same count whatever the tiles. "The model's own" is the peak of a process
that counts one image of one tile with the same package. An image of 20,000 px takes four times as long.

freed: with and without, in turn. Made-up 16-bit fields of 1,024 x 1,024 px with some 600 nuclei, counted with `nuclei` by one worker in one
process. Without: a neutral setting of the user's own for glibc's `malloc`, which cellcount leaves alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tifffile

from benchmarks.record import record
from benchmarks.speed import large_fields

_COUNT_THAT_TELLS = """
import sys, time
from cellcount_core.cli.main import main
code = main(sys.argv[1:])
print(time.process_time(), [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
sys.exit(code)
"""
"""A count that tells its CPU seconds and its peak (KiB) last. `getrusage` would keep the peak of the process that started it."""


_OWN_SETTING = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}
"""What is glibc's default anyway."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one count found and took: CPU seconds of all its threads, and the peak of its resident memory."""

    objects: int
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True, slots=True)
class Spent:
    """What one count took: `cpu_s` seconds of CPU time, `faults` pages that the system handed out, `peak_mib`."""

    cpu_s: float
    faults: float
    peak_mib: float


_FIGURES = [field.name for field in fields(Spent)]


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = made.add_subparsers(required=True)
    of_large = commands.add_parser("large-image")
    of_large.add_argument("--model", default="nuclei")
    of_large.add_argument("--side", type=int, default=10_000)
    of_large.add_argument("--tiles", type=int, nargs="+", default=[512, 1280])
    of_large.add_argument("--threads", type=int, default=2)
    of_large.set_defaults(measure=large_image)
    of_freed = commands.add_parser("freed")
    of_freed.add_argument("--fields", type=int, default=24)
    of_freed.add_argument("--rounds", type=int, default=5)
    of_freed.set_defaults(measure=freed)
    for command in (of_large, of_freed):
        command.add_argument(
            "--record", action="store_true", help="write the table to docs/explanation/performance.md"
        )
    arguments = made.parse_args()
    arguments.measure(arguments)


def large_image(arguments: argparse.Namespace) -> None:
    """Count the large image with each tile size, and print peaks and CPU time."""
    with tempfile.TemporaryDirectory() as scratch:
        small, large = Path(scratch) / "small", Path(scratch) / "large"
        small.mkdir()
        large.mkdir()
        write_image(small / "small.tif", max(arguments.tiles))
        write_image(large / "large.tif", arguments.side)
        base = count_tiled(
            small, Path(scratch) / "out", arguments.model, max(arguments.tiles), arguments.threads
        )
        table = [
            f"| {arguments.model}, {arguments.side} x {arguments.side} px, 16 bit | objects | peak above the model's own | CPU s |",
            "|---|---|---|---|",
            f"| model and one tile | | ({base.peak_mib:.0f} MiB) | {base.cpu_s:.0f} |",
        ]
        print("\n".join(table), flush=True)
        counts = set()
        for tile in arguments.tiles:
            one = count_tiled(large, Path(scratch) / f"out{tile}", arguments.model, tile, arguments.threads)
            counts.add(one.objects)
            table.append(
                f"| tile {tile} | {one.objects} | {one.peak_mib - base.peak_mib:.0f} MiB | {one.cpu_s:.0f} |"
            )
            print(table[-1], flush=True)
    assert len(counts) == 1, f"other counts with other tiles: {sorted(counts)}"
    record("large-image", table)


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


def count_tiled(source: Path, output: Path, model: str, tile: int, threads: int) -> Counted:
    """Count one folder in a process of its own."""
    command = [sys.executable, "-c", _COUNT_THAT_TELLS, "count", str(source), str(output)]
    command += ["--model", model, "--runner", "serial", "--progress", "quiet"]
    command += ["--set", f"run.tile={tile}", "--set", f"execution.threads={threads}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said, spent = done.stdout.splitlines()[0], done.stdout.splitlines()[-1].split()
    return Counted(int(said.split()[0]), float(spent[0]), int(spent[1]) / 1024)


def freed(arguments: argparse.Namespace) -> None:
    """Count the same fields with both settings in turn, and print what each took."""
    with tempfile.TemporaryDirectory(prefix="freed-memory-") as folder:
        source = Path(folder) / "fields"
        source.mkdir()
        for number, field in enumerate(large_fields(20.0, arguments.fields)):
            tifffile.imwrite(source / f"{number:03d}.tif", np.asarray(field, np.uint16))
        ways = {"given back": _OWN_SETTING, "used again": {}}
        spent: dict[str, list[Spent]] = {way: [] for way in ways}
        counts: set[tuple[int, ...]] = set()
        for turn in range(arguments.rounds):
            for way, setting in ways.items():
                output = Path(folder) / f"{turn} {way}"
                one = count_with(source, output, setting)
                counts.add(tuple(pq.read_table(output / "fields")["count"].to_pylist()))
                assert len(counts) == 1, f"{way}: other counts than before, of the same images"
                spent[way].append(one)
                print(f"round {turn + 1}, {way}: {one.cpu_s:.2f} s CPU, {one.faults:,.0f} faults", flush=True)
    medians = {way: _median(runs) for way, runs in spent.items()}
    table = [
        f"{arguments.fields} fields of 1,024 px, median of {arguments.rounds} rounds in turn; start and plan are part of each run.",
        "",
        "| freed memory is | CPU s | page faults | peak MiB |",
        "|---|---|---|---|",
        *(
            f"| {way} | {one.cpu_s:.2f} | {one.faults:,.0f} | {one.peak_mib:.0f} |"
            for way, one in medians.items()
        ),
        "| ratio, median of the rounds' | " + " | ".join(_ratios(*spent.values())) + " |",
    ]
    print("\n".join(table))
    record("freed-memory", table)


def count_with(source: Path, output: Path, setting: dict[str, str]) -> Spent:
    """Count a folder in one process with glibc's settings as given."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    command = [sys.executable, "-m", "cellcount_core.cli", "count", str(source), str(output)]
    command += ["--runner", "serial", "--diameter", "20", "--progress", "quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**environment, **setting})
    # Of this process alone, peak included: RUSAGE_CHILDREN keeps the largest peak of all runs.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    # A process begins with the peak of the one that started it.
    assert used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, (
        "the peak is this script's own"
    )
    return Spent(used.ru_utime + used.ru_stime, used.ru_minflt, used.ru_maxrss / 1024)


def _ratios(before: list[Spent], after: list[Spent]) -> list[str]:
    return [
        f"{statistics.median(getattr(b, name) / getattr(a, name) for a, b in zip(before, after, strict=True)):.2f}"
        for name in _FIGURES
    ]


def _median(runs: list[Spent]) -> Spent:
    return Spent(*(statistics.median(getattr(run, name) for run in runs) for name in _FIGURES))


if __name__ == "__main__":
    main()
