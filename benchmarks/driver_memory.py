"""Peak memory of the driver at two numbers of fields: it must not grow with them.

    python benchmarks/driver_memory.py [--small 2000] [--large 10000]

Tiny images, `threshold`, one Ray actor; the driver's own process is measured (VmHWM), not Ray's processes or the actor.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from benchmarks.record import record

_CHILD = """
import sys
from cellcount_core.cli.main import main
code = main(sys.argv[1:])
status = open("/proc/self/status").read()
print("peak", [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")][0])
sys.exit(code)
"""


def peak_mib(source: Path, output: Path) -> float:
    """Peak resident memory of the driver process, in MiB."""
    arguments = [
        "count",
        str(source),
        str(output),
        "--layout",
        "imagexpress",
        "--model",
        "threshold",
        "--progress",
        "quiet",
    ]
    arguments += ["--actors", "1"]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(done.stdout.split("peak")[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large", type=int, default=10000)
    parser.add_argument(
        "--record", action="store_true", help="write the table to docs/explanation/performance.md"
    )
    arguments = parser.parse_args()
    peaks = []
    table = ["| fields | peak of the driver |", "|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        one = Path(scratch) / "one.tif"
        tifffile.imwrite(one, np.random.default_rng(0).normal(300, 10, (32, 32)).astype(np.uint16))
        for count in (arguments.small, arguments.large):
            source = Path(scratch) / str(count)
            source.mkdir()
            for index in range(count):
                well = f"{chr(65 + index // 24 % 16)}{index % 24 + 1:02d}"
                (source / f"P_{well}_s{index // 384 + 1}.tif").write_bytes(one.read_bytes())
            peaks.append(peak_mib(source, Path(scratch) / f"out{count}"))
            table.append(f"| {count} | {peaks[-1]:.1f} MiB |")
            print(table[-1], flush=True)
    table.append(f"| ratio | {peaks[1] / peaks[0]:.3f} |")
    print(table[-1])
    record("driver-memory", table)


if __name__ == "__main__":
    main()
