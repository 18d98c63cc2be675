"""What it saves a count that its processes use freed memory again: with and without, in turn.

    python benchmarks/freed_memory.py [--fields 24] [--rounds 5] [--record]

Made-up 16-bit fields of 1,024 x 1,024 px with some 600 nuclei, counted with `nuclei` by one worker in one process. Every run is a process
of its own, its start and its plan included. Without: a neutral setting of the user's own for glibc's `malloc`, which cellcount leaves
alone.
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

_OWN_SETTING = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}
"""What is glibc's default anyway."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one count took: `cpu_s` seconds of CPU time, `faults` pages that the system handed out, `peak_mib`."""

    cpu_s: float
    faults: float
    peak_mib: float


_FIGURES = [field.name for field in fields(Spent)]


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--fields", type=int, default=24)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = made.parse_args()
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
                one = count(source, output, setting)
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


def count(source: Path, output: Path, setting: dict[str, str]) -> Spent:
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
